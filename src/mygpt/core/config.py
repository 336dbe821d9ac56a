"""Settings: small frozen models; an unknown name is an error that names the nearest one."""

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mygpt.core.errors import UsageError


class Config(BaseModel):
    """Base of every recipe's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


C = TypeVar("C", bound=Config)


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`["sft.rank=8", "minutes=5"]` -> `{"sft": {"rank": 8}, "minutes": 5}`; values are YAML."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"`--set {setting}` is not of the form key=value.", fix="For example: `--set sft.learning_rate=2e-4`.")
        *parents, leaf = key.strip().split(".")
        place = parsed
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise UsageError(f"`{key}` names a setting inside `{parent}`, which already has a value.", fix="Give each setting once.")
        place[leaf] = _scalar(value)
    return parsed


def resolve(config_type: type[C], settings: Mapping[str, Any]) -> C:
    """`settings` over the defaults of `config_type`. Raises UsageError with the nearest known name."""
    _check_names(config_type, settings, prefix="")
    try:
        return config_type.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        fix = f"See the settings of {config_type.__name__} with `--help`."
        raise UsageError(f"Setting `{key}` cannot be {first['input']!r}: {first['msg']}.", fix=fix) from error


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
