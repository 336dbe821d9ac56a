"""Plain Python values as JSON and back: what crosses the wall of a sandbox, in both directions. No pickle: a value can never be code.

JSON has no tuples, sets, bytes, complex numbers, infinities, keys that are no strings, or integers beyond what a parser takes. These are
objects with the one key `$`: {"$": "tuple", "of": [1, 2]}.
"""

from __future__ import annotations

import json
import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any  # when types are checked only: it takes a tenth of the start-up
_TAG = "$"
_DEEPEST = 100
_MOST_ALIKE = 64  # keys of one hash: a set of integers chosen to collide takes a time that grows with the square of their number
_LARGEST_NUMERAL = 10**15  # larger integers are written in hexadecimal, which is read in linear time


class NotPlain(ValueError):
    """Not made of None, booleans, numbers, text, bytes, lists, tuples, sets and dicts; or too deep, or no such value was written."""


def dumps(value: Any) -> bytes:
    return json.dumps(_tagged(value, 0), ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def loads(data: bytes) -> Any:
    """Raises NotPlain for whatever `dumps` does not write; nothing in `data` can do worse."""
    try:
        return _untagged(json.loads(data), 0)
    except (ValueError, RecursionError, TypeError, KeyError, OverflowError) as error:
        raise NotPlain(f"no value that can be read: {error}"[:200]) from None


def _tagged(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise NotPlain(f"nested more than {_DEEPEST} deep")
    kind, deeper = type(value), depth + 1
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        return value if abs(value) < _LARGEST_NUMERAL else {_TAG: "int", "of": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {_TAG: "float", "of": repr(value)}
    if kind is complex:
        return {_TAG: "complex", "of": [_tagged(value.real, deeper), _tagged(value.imag, deeper)]}
    if kind in (bytes, bytearray):
        return {_TAG: "bytes", "of": bytes(value).hex()}
    if kind is list:
        return [_tagged(one, deeper) for one in value]
    if kind in (tuple, set, frozenset):
        return {_TAG: kind.__name__, "of": [_tagged(one, deeper) for one in value]}
    if kind is dict:
        if all(type(key) is str for key in value) and _TAG not in value:
            return {key: _tagged(one, deeper) for key, one in value.items()}
        return {_TAG: "dict", "of": [[_tagged(key, deeper), _tagged(one, deeper)] for key, one in value.items()]}
    plain: Any
    for plain in (bool, int, float, str, list, tuple, dict):  # a subclass, or a number of numpy's that is one: by its plain content
        if isinstance(value, plain):
            return _tagged(plain(value), deeper)
    for as_plain in ("tolist", "item"):  # arrays and numbers of numpy
        if callable(method := getattr(value, as_plain, None)) and kind.__module__.split(".")[0] == "numpy":
            return _tagged(method(), deeper)
    raise NotPlain(f"a {kind.__module__}.{kind.__qualname__}, which is no plain value")


def _untagged(value: Any, depth: int) -> Any:
    if depth > 3 * _DEEPEST:
        raise NotPlain("nested too deep")
    deeper = depth + 1
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # half a character could not be written anywhere
    if isinstance(value, list):
        return [_untagged(one, deeper) for one in value]
    if not isinstance(value, dict):
        return value
    if _TAG not in value:
        return {_untagged(key, deeper): _untagged(one, deeper) for key, one in value.items()}
    if set(value) != {_TAG, "of"}:
        raise NotPlain("an unknown mark")
    kind, of = value[_TAG], value["of"]
    if kind == "int":
        return int(of, 16)
    if kind == "float" and of in ("inf", "-inf", "nan"):
        return float(of)
    if kind == "bytes":
        return bytes.fromhex(of)
    parts = [_untagged(one, deeper) for one in of]
    if kind == "complex":
        real, imaginary = parts
        return complex(float(real), float(imaginary))
    if kind == "tuple":
        return tuple(parts)
    if kind == "dict":
        _require_spread([key for key, _ in parts])
        return dict(parts)
    if kind in ("set", "frozenset"):
        _require_spread(parts)
        return set(parts) if kind == "set" else frozenset(parts)
    raise NotPlain("an unknown mark")


def _require_spread(keys: list[Any]) -> None:
    counts: dict[int, int] = {}
    for key in keys:
        alike = hash(key)
        counts[alike] = counts.get(alike, 0) + 1
    if counts and max(counts.values()) > _MOST_ALIKE:
        raise NotPlain(f"more than {_MOST_ALIKE} keys of one hash")
