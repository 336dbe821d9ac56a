"""Settings: YAML values, nested names, and the nearest name for an unknown one."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from mygpt.core.config import Config, choices, parse_settings, resolve
from mygpt.core.errors import UsageError


class Optimizer(Config):
    learning_rate: float = 1e-3
    warmup_fraction: float = 0.1


class Training(Config):
    rank: int = 8
    name: str = "adam"
    optimizer: Optimizer = Optimizer()
    second: Optimizer | None = None


@pytest.mark.parametrize(
    ("settings", "parsed"),
    [
        (["minutes=5"], {"minutes": 5}),
        (["sft.rank=8", "sft.learning_rate=2e-4", "minutes=5"], {"sft": {"rank": 8, "learning_rate": 0.0002}, "minutes": 5}),
        (["a.b.c=true"], {"a": {"b": {"c": True}}}),
        (["text=", "nothing=null", "listed=[1, 2]"], {"text": "", "nothing": None, "listed": [1, 2]}),
        (["address=http://127.0.0.1:8000/v1?a=b"], {"address": "http://127.0.0.1:8000/v1?a=b"}),
        (["a=1", "a=2"], {"a": 2}),
        (["name=nan", "other=infinity"], {"name": "nan", "other": "infinity"}),
        (["method=prefix", "method.num_tokens=20"], {"method": {"name": "prefix", "num_tokens": 20}}),
        (["method.num_tokens=20", "method=prefix"], {"method": {"num_tokens": 20, "name": "prefix"}}),
    ],
)
def test_parse_settings(settings: list[str], parsed: dict) -> None:
    assert parse_settings(settings) == parsed


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["rank"], "is not of the form key=value"),
        (["=5"], "is not of the form key=value"),
        (["sft=5", "sft.rank=8"], "which already has a value"),
        (["rank=[1"], "cannot be read as a value"),
    ],
)
def test_parse_settings_refuses(settings: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_settings(settings)


def test_resolve() -> None:
    resolved = resolve(Training, {"rank": 16, "optimizer": {"learning_rate": 2e-4}})
    assert resolved.model_dump() == {
        "rank": 16,
        "name": "adam",
        "optimizer": {"learning_rate": 0.0002, "warmup_fraction": 0.1},
        "second": None,
    }


@pytest.mark.parametrize(
    ("settings", "what", "fix"),
    [
        ({"rnak": 8}, "Unknown setting `rnak`.", "Did you mean `rank`?"),
        ({"optimizer": {"learning_rat": 1}}, "Unknown setting `optimizer.learning_rat`.", "Did you mean `optimizer.learning_rate`?"),
        ({"second": {"warmup": 1}}, "Unknown setting `second.warmup`.", "Known: second.learning_rate, second.warmup_fraction."),
        ({"second": {"warmup_fractoin": 1}}, "Unknown setting `second.warmup_fractoin`.", "Did you mean `second.warmup_fraction`?"),
        ({"zzz": 1}, "Unknown setting `zzz`.", "Known: rank, name, optimizer, second."),
    ],
)
def test_unknown_names_get_the_nearest(settings: dict, what: str, fix: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(Training, settings)
    assert (error.value.what, error.value.fix, error.value.exit_code) == (what, fix, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rank": "many"}, "Setting `rank` cannot be 'many': Input should be a valid integer"),
        ({"optimizer": {"learning_rate": []}}, "Setting `optimizer.learning_rate` cannot be []"),
        ({"optimizer": {"learning_rate": float("inf")}}, "Setting `optimizer.learning_rate` cannot be inf"),
    ],
)
def test_wrong_values_are_shown(settings: dict, words: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(Training, settings)
    assert words in error.value.what and "Training" in error.value.fix


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Training().rank = 4  # type: ignore[misc]


class Round(Config):
    name: Literal["round"] = "round"
    radius: float = 1.0


class Square(Config):
    name: Literal["square"] = "square"
    side: int = 2


class Drawing(Config):
    shape: Annotated[Round | Square, Field(discriminator="name")] = Round(radius=3.0)
    title: str = ""


class Book(Config):
    drawing: Drawing = Drawing()


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({}, Round(radius=3.0)),
        ({"shape": "square"}, Square()),
        ({"shape": {"name": "square", "side": 5}}, Square(side=5)),
        ({"shape": {"radius": 2.0}}, Round(radius=2.0)),  # the default's kind is meant
    ],
)
def test_one_of_several(settings: dict, shape: Config) -> None:
    assert resolve(Drawing, settings).shape == shape
    assert resolve(Book, {"drawing": settings}).drawing.shape == shape
    assert Drawing.model_validate(resolve(Drawing, settings).model_dump(mode="json")).shape == shape  # as a manifest keeps it
    assert list(choices(Drawing.model_fields["shape"])) == ["round", "square"] and choices(Drawing.model_fields["title"]) == {}


@pytest.mark.parametrize(
    ("settings", "what", "fix"),
    [
        ({"shape": "squar"}, "There is no `shape` `squar`.", "Did you mean `shape=square`?"),
        ({"shape": {"name": "heptagon"}}, "There is no `shape` `heptagon`.", "Known: round, square."),
        ({"shape": {"name": "square", "sid": 5}}, "Unknown setting `shape.sid`.", "Did you mean `shape.side`?"),
        ({"shape": {"side": 5}}, "Unknown setting `shape.side`.", "Known: shape.name, shape.radius."),
        ({"shape": {"name": "square", "side": "x"}}, "Setting `shape.side` cannot be 'x': Input should be a valid integer", None),
        ({"shape": 5}, "Setting `shape` cannot be 5", None),
    ],
)
def test_one_of_several_refuses(settings: dict, what: str, fix: str | None) -> None:
    with pytest.raises(UsageError) as error:
        resolve(Drawing, settings)
    assert error.value.what.startswith(what)
    assert fix is None or error.value.fix == fix
    with pytest.raises(UsageError, match=r"drawing\.shape"):
        resolve(Book, {"drawing": settings})
