"""Each keyword with a value that fits and one that does not, after the examples of the JSON Schema reference."""

from typing import Any

import pytest

from mygpt.metrics.json_schema import json_value, require_known, violation

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "fits", "not_so"),
    [
        ({"type": "integer"}, 1.0, 1.5),
        ({"type": "number"}, 3.1, True),
        ({"type": ["string", "null"]}, None, 7),
        ({"enum": ["red", None, 42]}, 42, 0),
        ({"const": 1}, 1.0, True),
        ({"const": {"a": [True]}}, {"a": [True]}, {"a": [1]}),
        ({"exclusiveMinimum": 0, "maximum": 100}, 100, 0),
        ({"minimum": 0, "exclusiveMaximum": 100}, 0, 100),
        ({"multipleOf": 0.01}, 0.29, 0.295),
        ({"minLength": 2, "maxLength": 3}, "abc", "a"),
        ({"items": {"type": "number"}}, [1, 2.5], [1, "2"]),
        ({"prefixItems": [{"type": "number"}], "items": {"type": "string"}}, [1, "a"], [1, 2]),
        ({"prefixItems": [{"type": "number"}], "items": False}, [1], [1, 2]),
        ({"minItems": 1, "maxItems": 2}, [0], []),
        ({"uniqueItems": True}, [1, True], [1, 1.0]),
        ({"minProperties": 1, "maxProperties": 1}, {"a": 1}, {}),
        (PERSON, {"name": "Ada", "age": 36}, {"name": "Ada", "age": -1}),
        (PERSON, {"name": "Ada"}, {"age": 3}),
        (PERSON, {"name": "Ada"}, {"name": "Ada", "more": 1}),
        ({"additionalProperties": {"type": "null"}}, {"a": None}, {"a": 1}),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, 5, 4),
        ({"oneOf": [{"multipleOf": 5}, {"multipleOf": 3}]}, 9, 15),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, 2, 3),
        ({"not": {"type": "string"}}, 1, "a"),
        ({"minimum": 5, "minLength": 9}, "long enough", "short"),
        (True, "anything", None),
    ],
)
def test_keywords(schema: Any, fits: Any, not_so: Any) -> None:
    require_known(schema)
    assert violation(fits, schema) == ""
    if schema is not True:
        assert violation(not_so, schema)
    assert violation(fits, False)


def test_the_place_is_named() -> None:
    schema = {"properties": {"people": {"items": PERSON}}}
    assert violation({"people": [{"name": "Ada"}, {"name": ""}]}, schema) == "$.people[1].name is shorter than 1"


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"properties": {"a": {"pattern": "x"}}}, "properties.a has `pattern`"),
        ({"anyOf": [{"$ref": "#"}]}, r"anyOf\[0\] has `\$ref`"),
        ({"type": "int"}, "the type 'int'"),
        ({"items": [1]}, "neither an object"),
    ],
)
def test_what_is_not_checked_is_refused(schema: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        require_known(schema)


def test_json_of_an_answer() -> None:
    assert json_value(' {"a": 1} ') == {"a": 1}
    assert json_value('```json\n{"a": 1}\n```') == {"a": 1}
    for text in ("", "{'a': 1}", "NaN", '{"a": 1, "a": 2}', 'So: {"a": 1}', "[" * 100_000, '```json\n{"a": 1}\n``` as asked'):
        with pytest.raises(ValueError):
            json_value(text)
