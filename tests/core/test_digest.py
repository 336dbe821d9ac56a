"""Against the published SHA-256 vectors, and canonical JSON worked by hand."""

import hashlib
from pathlib import Path

import pytest

from mygpt.core.digest import canonical_json, digest_file, digest_text, digest_value

# NIST, FIPS 180-4 examples and the Secure Hashing page: "", "abc", the two-block message, a million times "a"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
TWO_BLOCKS = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
MILLION_A = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"


def test_text() -> None:
    assert digest_text("") == EMPTY
    assert digest_text("abc") == ABC
    assert digest_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") == TWO_BLOCKS


def test_file_in_blocks(tmp_path: Path) -> None:
    """A million bytes are less than one block; three are more than two."""
    file = tmp_path / "a"
    file.write_bytes(b"a" * 1_000_000)
    assert digest_file(file) == MILLION_A
    file.write_bytes(b"")
    assert digest_file(file) == EMPTY
    file.write_bytes(b"a" * 3_000_000)
    assert digest_file(file) == digest_text("a" * 3_000_000)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [1.0, True, None]}, '{"a":[1.0,true,null],"b":1}'),
        ({"ü": "\u2028"}, '{"ü":"\u2028"}'),
        ((1, 2), "[1,2]"),
        (0.1, "0.1"),
        (1e22, "1e+22"),
    ],
)
def test_canonical_json(value: object, text: str) -> None:
    assert canonical_json(value) == text
    assert digest_value(value) == digest_text(text)


def test_order_of_keys_does_not_matter_and_of_items_does() -> None:
    assert digest_value({"a": 1, "b": 2}) == digest_value({"b": 2, "a": 1})
    assert digest_value([1, 2]) != digest_value([2, 1])
    assert digest_value(1) != digest_value(1.0) != digest_value("1.0")


def test_what_json_has_no_word_for_is_refused() -> None:
    for value in (float("nan"), {1, 2}, b"bytes"):
        with pytest.raises((ValueError, TypeError)):
            digest_value(value)


def test_text_that_is_no_unicode_has_a_digest() -> None:
    """A file name that is not UTF-8 reaches Python as lone surrogates: U+DCFF is ED B3 BF as UTF-8 would spell it."""
    assert digest_text("\udcff") == hashlib.sha256(b"\xed\xb3\xbf").hexdigest()
