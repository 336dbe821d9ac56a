"""Grouping of prompts: nothing lost, nothing empty, limits kept; for any prompts."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mygpt.infer.prefixes import Tokens, Tree, common_length, share_prefixes, share_stems

SHARED = tuple(range(100, 140))
prompts = st.lists(
    st.builds(
        lambda shared, own: SHARED[:shared] + tuple(own),
        st.integers(0, len(SHARED)),
        st.lists(st.integers(0, 2), min_size=1, max_size=8),
    ),
    max_size=40,
)
@given(prompts, st.integers(1, 6), st.integers(1, 60), st.integers(0, 45))
def test_every_prompt_is_there_once_and_whole(given: list[Tokens], max_rows: int, max_suffix_tokens: int, min_shared: int) -> None:
    trees = share_prefixes(given, max_rows=max_rows, max_suffix_tokens=max_suffix_tokens, min_shared=min_shared)
    rows = {row: tree.prefix + suffix for tree in trees for row, suffix in zip(tree.rows, tree.suffixes, strict=True)}
    assert rows == dict(enumerate(given))
    assert sum(len(tree.rows) for tree in trees) == len(given)
    for tree in trees:
        assert all(tree.suffixes)
        assert len(tree.rows) <= max_rows
        if len(tree.rows) > 1:
            assert len(tree.prefix) >= min_shared
            assert sum(map(len, tree.suffixes)) <= max_suffix_tokens
        else:
            assert tree.prefix == ()
    assert [t.num_tokens for t in trees] == sorted((t.num_tokens for t in trees), reverse=True)


@given(prompts, st.integers(1, 45))
def test_stem_and_tree_are_the_prompt(given: list[Tokens], min_shared: int) -> None:
    trees = share_prefixes(given)
    rooted = share_stems(trees, min_shared=min_shared)
    rows = {i: stem + tree.prefix + suffix for stem, tree in rooted for i, suffix in zip(tree.rows, tree.suffixes, strict=True)}
    assert rows == dict(enumerate(given))
    assert [tree.rows for _, tree in rooted] == [tree.rows for tree in trees]
    for stem, count in Counter(stem for stem, _ in rooted).items():
        assert stem == () or (count > 1 and len(stem) >= min_shared)
    assert all(all(tree.suffixes) for _, tree in rooted)


def test_questions_to_one_passage_are_one_tree() -> None:
    """Passage of 40 tokens, three questions: 40 + 2 + 1 + 1 tokens are computed in place of 124."""
    given = [(*SHARED, 1, 2), (9, 9), (*SHARED, 5), (*SHARED, 7)]
    first, second = share_prefixes(given)
    assert first == Tree(SHARED, (0, 2, 3), ((1, 2), (5,), (7,)))
    assert first.num_tokens == 44
    assert second == Tree((), (1,), ((9, 9),))


def test_equal_prompts_keep_their_last_token() -> None:
    assert share_prefixes([SHARED, SHARED]) == [Tree(SHARED[:-1], (0, 1), (SHARED[-1:], SHARED[-1:]))]


def test_a_prompt_that_begins_another_keeps_its_last_token() -> None:
    (tree,) = share_prefixes([(*SHARED, 1, 2), SHARED])
    assert tree == Tree(SHARED[:-1], (1, 0), (SHARED[-1:], (139, 1, 2)))


def test_too_little_in_common_is_not_shared() -> None:
    """31 tokens of 33 are below the least number; 40 of 100 are below half."""
    few = [(*SHARED[:31], 1, 1), (*SHARED[:31], 2, 2)]
    less_than_half = [SHARED + (1,) * 60, SHARED + (2,) * 60]
    assert [len(t.rows) for t in share_prefixes(few) + share_prefixes(less_than_half)] == [1, 1, 1, 1]
    assert [len(t.rows) for t in share_prefixes(few, min_shared=31)] == [2]


def test_more_rows_than_a_tree_takes_make_several() -> None:
    given = [(*SHARED, n) for n in range(35)]
    assert [len(t.rows) for t in share_prefixes(given, max_rows=16)] == [16, 16, 3]
    assert [len(t.rows) for t in share_prefixes(given, max_suffix_tokens=10)] == [10, 10, 10, 5]


def test_stems_are_what_neighbours_share() -> None:
    """Three questions behind a template of 12, three behind 40 examples more: two stems; and one tree that shares with nobody."""
    template, examples = tuple(range(12)), tuple(range(50, 90))
    short = [Tree((), (i,), ((*template, 200 + i, 5),)) for i in range(3)]
    long = [Tree((), (3 + i,), ((*template, *examples, 300 + i, 5),)) for i in range(3)]
    other = Tree((), (6,), ((7, 8, 9),))
    found = share_stems([*short, *long, other])
    assert [len(stem) for stem, _ in found] == [12, 12, 12, 52, 52, 52, 0]
    assert found[0][1] == Tree((), (0,), ((200, 5),)) and found[3][1] == Tree((), (3,), ((300, 5),))


def test_a_stem_is_taken_from_the_shared_prefix_of_a_tree() -> None:
    trees = [Tree((*SHARED, 1), (0, 1), ((2,), (3,))), Tree((*SHARED, 4, 5), (2, 3), ((2,), (3,)))]
    assert share_stems(trees) == [(SHARED, Tree((1,), (0, 1), ((2,), (3,)))), (SHARED, Tree((4, 5), (2, 3), ((2,), (3,))))]


def test_common_length() -> None:
    assert common_length((1, 2, 3), (1, 2, 4, 5)) == 2
    assert common_length((), (1,)) == 0
    assert common_length((1, 2), (1, 2)) == 2
