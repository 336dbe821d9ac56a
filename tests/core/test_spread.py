"""By hand."""

from mygpt.core.spread import spread


def test_at_even_distances() -> None:
    assert spread("abcdefghij", 4) == ["a", "c", "f", "h"]
    assert spread("abc", 3) == spread("abc", 9) == spread("abc", None) == ["a", "b", "c"]
    assert spread("abc", 0) == []
