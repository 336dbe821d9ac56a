"""Settings: small frozen models; an unknown name is an error that names the nearest one.

A setting may be one of several models that a field `name` tells apart (a union with `Field(discriminator="name")`). `method=prefix`
chooses one, `method.num_tokens=20` sets one of its fields, and both can be given; without the first the default's model is meant.
"""

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from mygpt.core.errors import UsageError


class Config(BaseModel):
    """Base of every recipe's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


C = TypeVar("C", bound=Config)


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`["sft.epochs=2", "minutes=5"]` -> `{"sft": {"epochs": 2}, "minutes": 5}`; values are YAML."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"`--set {setting}` is not of the form key=value.", fix="For example: `--set sft.learning_rate=2e-4`.")
        *parents, leaf = key.strip().split(".")
        place = parsed
        for parent in parents:
            if isinstance(place.get(parent), str):
                place[parent] = {"name": place[parent]}  # `method=prefix` before `method.num_tokens=20`
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UsageError(f"`{key}` names a setting inside `{parent}`, which already has a value.", fix="Give each setting once.")
        read = _scalar(value)
        if isinstance(place.get(leaf), dict) and isinstance(read, str):
            place[leaf]["name"] = read
        else:
            place[leaf] = read
    return parsed


def resolve(config_type: type[C], settings: Mapping[str, Any]) -> C:
    """`settings` over the defaults of `config_type`. Raises UsageError with the nearest known name."""
    settings = _with_choices(config_type, settings, prefix="")
    _check_names(config_type, settings, prefix="")
    try:
        return config_type.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in _told(config_type, first["loc"]))
        fix = f"See the settings of {config_type.__name__} with `--help`."
        raise UsageError(f"Setting `{key}` cannot be {first['input']!r}: {first['msg']}.", fix=fix) from error


def choices(field: FieldInfo) -> dict[str, type[Config]]:
    """The models that a field may be, by their `name`; empty for any other field."""
    if field.discriminator != "name":
        return {}
    return {part.model_fields["name"].default: part for part in _parts(field.annotation)}


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    return [found for part in get_args(annotation) for found in _parts(part)] or [annotation]


def _with_choices(config_type: type[BaseModel], settings: Mapping[str, Any], *, prefix: str) -> dict[str, Any]:
    """`settings`, with the `name` of every part that is one of several. Raises UsageError for a name that there is not."""
    made = dict(settings)
    for key, value in settings.items():
        field = config_type.model_fields.get(key)
        known = choices(field) if field else {}
        if known and isinstance(value, (str, Mapping)):
            part = {"name": value} if isinstance(value, str) else dict(value)
            part.setdefault("name", field.get_default(call_default_factory=True).name)  # type: ignore[union-attr]
            if part["name"] not in known:
                nearest = difflib.get_close_matches(str(part["name"]), known, n=1)
                hint = f"Did you mean `{prefix}{key}={nearest[0]}`?" if nearest else f"Known: {', '.join(known)}."
                raise UsageError(f"There is no `{prefix}{key}` `{part['name']}`.", fix=hint)
            _check_names(known[part["name"]], part, prefix=f"{prefix}{key}.")
            made[key] = part
        elif field and isinstance(value, Mapping) and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            made[key] = _with_choices(field.annotation, value, prefix=f"{prefix}{key}.")
    return made


def _scalar(value: str) -> Any:
    try:
        loaded = yaml.safe_load(value) if value.strip() else ""
    except yaml.YAMLError as error:
        raise UsageError(f"`{value}` cannot be read as a value.", fix='Put text in quotes: `--set name="..."`.') from error
    if isinstance(loaded, str):  # YAML 1.1 reads 2e-4 as text
        try:
            number = float(loaded)
        except ValueError:
            return loaded
        return number if math.isfinite(number) else loaded
    return loaded


def _told(config_type: type[BaseModel], place: tuple[Any, ...]) -> list[Any]:
    """A place in the settings as the user writes it: without the name of the model that a part was taken for."""
    found: list[Any] = []
    at: Any = config_type
    for part in place:
        field = at.model_fields.get(part) if isinstance(at, type) and issubclass(at, BaseModel) else None
        if isinstance(at, dict):
            at = at.get(part)
            continue
        found.append(part)
        at = (choices(field) or field.annotation) if field else None
    return found


def _check_names(config_type: type[BaseModel], settings: Mapping[str, Any], *, prefix: str) -> None:
    known = config_type.model_fields
    for key, value in settings.items():
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean `{prefix}{nearest[0]}`?" if nearest else f"Known: {', '.join(prefix + name for name in known)}."
            raise UsageError(f"Unknown setting `{prefix}{key}`.", fix=hint)
        annotation = known[key].annotation
        nested = [part for part in (annotation, *get_args(annotation)) if isinstance(part, type) and issubclass(part, BaseModel)]
        if isinstance(value, Mapping) and len(nested) == 1:
            _check_names(nested[0], value, prefix=f"{prefix}{key}.")
