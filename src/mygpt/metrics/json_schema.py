"""Does a JSON value fit a JSON Schema? A strict part of draft 2020-12, and nothing beside it.

    require_known(schema)            raises ValueError for a keyword that would not be checked
    violation(value, schema)         the first thing that is wrong, with its place; "" where it fits
    json_value(text)                 the value that an answer gives, bare or in one fenced block; raises ValueError

Checked  type, enum, const, properties, required, additionalProperties, minProperties, maxProperties, items, prefixItems, minItems,
         maxItems, uniqueItems, minimum, maximum, exclusiveMinimum, exclusiveMaximum, multipleOf, minLength, maxLength, anyOf, allOf,
         oneOf, not
Refused  everything else that decides ($ref, pattern, format, if, ...): what is not checked must not be rewarded

Source     JSON Schema 2020-12, core and validation vocabularies
We differ  a subset; numbers are Python's, so that 1.0 is an integer (as the standard says) and 0.1 + 0.2 is not 0.3
"""

import json
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "integer": lambda v: (isinstance(v, int) and not isinstance(v, bool)) or (isinstance(v, float) and v.is_integer()),
}
_BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool], str]] = {
    "minimum": ("number", lambda v, bound: v >= bound, "is less than"),
    "maximum": ("number", lambda v, bound: v <= bound, "is more than"),
    "exclusiveMinimum": ("number", lambda v, bound: v > bound, "is not more than"),
    "exclusiveMaximum": ("number", lambda v, bound: v < bound, "is not less than"),
    "multipleOf": ("number", lambda v, unit: (Fraction(str(v)) / Fraction(str(unit))).denominator == 1, "is no multiple of"),
    "minLength": ("string", lambda v, bound: len(v) >= bound, "is shorter than"),
    "maxLength": ("string", lambda v, bound: len(v) <= bound, "is longer than"),
    "minItems": ("array", lambda v, bound: len(v) >= bound, "has fewer items than"),
    "maxItems": ("array", lambda v, bound: len(v) <= bound, "has more items than"),
    "minProperties": ("object", lambda v, bound: len(v) >= bound, "has fewer properties than"),
    "maxProperties": ("object", lambda v, bound: len(v) <= bound, "has more properties than"),
}
_ONE_SCHEMA = ("items", "additionalProperties", "not")
_SCHEMAS = ("anyOf", "allOf", "oneOf", "prefixItems")
_OTHERS = {"type", "enum", "const", "properties", "required", "uniqueItems"}
_SAY_NOTHING = {"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"}
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


def require_known(schema: Any, place: str = "the schema") -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise ValueError(f"{place} is neither an object nor true or false")
    for key, value in schema.items():
        if key in _ONE_SCHEMA:
            require_known(value, f"{place}.{key}")
        elif key in _SCHEMAS:
            for number, part in enumerate(value):
                require_known(part, f"{place}.{key}[{number}]")
        elif key == "properties":
            for name, part in value.items():
                require_known(part, f"{place}.{key}.{name}")
        elif key == "type" and not set(_types(value)) <= _TYPES.keys():
            raise ValueError(f"{place} has the type {value!r}, and there is none of that name")
        elif key not in _BOUNDS and key not in _OTHERS and key not in _SAY_NOTHING:
            raise ValueError(f"{place} has `{key}`, which is not checked here")


def violation(value: Any, schema: Any, place: str = "$") -> str:
    if isinstance(schema, bool):
        return "" if schema else f"{place} is not allowed"
    if "type" in schema and not any(_TYPES[name](value) for name in _types(schema["type"])):
        return f"{place} is no {' or '.join(_types(schema['type']))}"
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        return f"{place} is none of the values listed"
    if "const" in schema and not _same(value, schema["const"]):
        return f"{place} is another value than the one given"
    for key, (type_name, fits, words) in _BOUNDS.items():
        if key in schema and _TYPES[type_name](value) and not fits(value, schema[key]):
            return f"{place} {words} {schema[key]}"
    if isinstance(value, dict) and (found := _in_object(value, schema, place)):
        return found
    if isinstance(value, list) and (found := _in_array(value, schema, place)):
        return found
    return _combined(value, schema, place)


def json_value(text: str) -> Any:
    """Raises ValueError for what is not JSON, with NaN, infinities and names given twice among it."""
    fenced = _FENCED.fullmatch(text.strip())
    try:
        return json.loads(fenced[1] if fenced else text, parse_constant=_no_constant, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _in_object(value: Mapping[str, Any], schema: Mapping[str, Any], place: str) -> str:
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        return f"{place} lacks `{missing[0]}`"
    properties, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    return next((found for name, one in value.items() if (found := violation(one, properties.get(name, rest), f"{place}.{name}"))), "")


def _in_array(value: list[Any], schema: Mapping[str, Any], place: str) -> str:
    first, rest = schema.get("prefixItems", []), schema.get("items", True)
    if schema.get("uniqueItems") and any(_same(one, other) for n, one in enumerate(value) for other in value[:n]):
        return f"{place} holds one item twice"
    parts = [*first, *[rest] * (len(value) - len(first))]
    found = (violation(one, part, f"{place}[{n}]") for n, (one, part) in enumerate(zip(value, parts, strict=False)))
    return next((one for one in found if one), "")


def _combined(value: Any, schema: Mapping[str, Any], place: str) -> str:
    for part in schema.get("allOf", ()):
        if found := violation(value, part, place):
            return found
    for key, allowed in (("anyOf", None), ("oneOf", 1)):
        if key in schema:
            fitting = sum(not violation(value, part, place) for part in schema[key])
            if fitting == 0 or (allowed is not None and fitting != allowed):
                return f"{place} fits {fitting} of {len(schema[key])} (`{key}`)"
    if "not" in schema and not violation(value, schema["not"], place):
        return f"{place} fits what it must not"
    return ""


def _same(a: Any, b: Any) -> bool:
    """As JSON sees it: true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)


def _types(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return made
