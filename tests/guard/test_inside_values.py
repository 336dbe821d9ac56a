"""Plain values through JSON and back; and whatever else comes is refused, not believed."""

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt.guard.inside import values

_KEYS = st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(exclude_categories=["Cs"])) | st.binary()
_PLAIN = st.recursive(
    _KEYS | st.floats(allow_nan=False) | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(_KEYS, inner)
        | st.frozensets(_KEYS)
        | st.sets(_KEYS)
        | st.dictionaries(st.sampled_from(["$", "of", "a"]), inner)
    ),
    max_leaves=20,
)


@given(_PLAIN)
@settings(max_examples=300, deadline=None)
def test_there_and_back(value: Any) -> None:
    again = values.loads(values.dumps(value))
    assert again == value
    assert type(again) is type(value)


def test_by_hand() -> None:
    assert values.dumps({"a": [1, (2.5, None)]}) == b'{"a":[1,{"$":"tuple","of":[2.5,null]}]}'
    assert values.dumps({1: b"\xff"}) == b'{"$":"dict","of":[[1,{"$":"bytes","of":"ff"}]]}'
    assert values.dumps(10**20) == b'{"$":"int","of":"0x56bc75e2d63100000"}'
    assert math.isnan(values.loads(values.dumps(math.nan)))
    assert values.loads(b'"\\ud800x"') == "\ufffdx"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"\xff", b"[" * 100_000, b"1" * 5_000),
        *(b'{"$":"tuple"}', b'{"$":"os.system","of":["x"]}', b'{"$":["tuple"],"of":[]}', b'{"$":"int","of":5}'),
        *(b'{"$":"dict","of":[[[],1]]}', b'{"$":"complex","of":[1]}', b'{"$":"tuple","of":[1],"x":2}', b'{"$":"float","of":"0x1"}'),
    ],
)
def test_anything_else_is_no_value(data: bytes) -> None:
    with pytest.raises(values.NotPlain):
        values.loads(data)


def test_what_is_not_plain() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value, said in ((object(), "builtins.object"), (loop, "nested more than 100 deep"), (len, "builtin_function_or_method")):
        with pytest.raises(values.NotPlain, match=said):
            values.dumps(value)


@pytest.mark.parametrize("kind", ["set", "frozenset", "dict"])
def test_keys_that_collide_are_refused_at_once(kind: str) -> None:
    """Python's integers hash to themselves modulo 2**61 - 1: 40,000 of one hash would take seconds of computing."""
    keys = [{"$": "int", "of": hex(k * (2**61 - 1))} for k in range(1, 40_000)]
    of = [[key, 1] for key in keys] if kind == "dict" else keys
    data = json.dumps({"$": kind, "of": of}).encode()
    started = time.process_time()
    with pytest.raises(values.NotPlain, match="of one hash"):
        values.loads(data)
    assert time.process_time() - started < 1


def test_subclasses_become_what_they_hold() -> None:
    class Odd(dict):  # type: ignore[type-arg]
        pass

    assert json.loads(values.dumps(Odd(x=True))) == {"x": True}
