"""Grouping of prompts: nothing lost, nothing empty, limits kept; for any prompts."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mygpt.infer.prefixes import Tokens, Tree, common_length, share_prefixes, waves

SHARED = tuple(range(100, 140))
prompts = st.lists(
    st.builds(
        lambda shared, own: SHARED[:shared] + tuple(own),
        st.integers(0, len(SHARED)),
        st.lists(st.integers(0, 2), min_size=1, max_size=8),
    ),
    max_size=40,
)
trees_of_any_shape = st.lists(
    st.builds(
        lambda prefix, rows: Tree((1,) * prefix, tuple(range(rows)), ((2,),) * rows),
        st.integers(0, 50),
        st.integers(1, 16),
    ),
    max_size=30,
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


@given(trees_of_any_shape, st.integers(1, 40), st.integers(1, 300))
def test_waves_hold_every_tree_once_within_their_limits(trees: list[Tree], max_rows: int, max_tokens: int) -> None:
    made = waves(trees, max_rows=max_rows, max_tokens=max_tokens)
    assert Counter(tree for wave in made for tree in wave) == Counter(trees)
    for wave in made:
        padded_rows = len(wave) * max(len(t.rows) for t in wave)
        padded_tokens = len(wave) * max(t.num_tokens for t in wave)
        assert len(wave) == 1 or (padded_rows <= max_rows and padded_tokens <= max_tokens)
        assert padded_rows <= 2 * sum(len(t.rows) for t in wave)


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


def test_trees_of_like_shape_run_together() -> None:
    """A lone row beside a tree of sixteen is padded to sixteen: one is bearable (17 of 32 are rows), two are not (18 of 48)."""
    wide, lone = Tree((1,) * 40, tuple(range(16)), ((2,),) * 16), Tree((), (0,), ((3,) * 56,))
    made = waves([lone, wide, lone, wide, lone, wide, lone, wide, lone], max_rows=64, max_tokens=16_384)
    assert [[len(t.rows) for t in wave] for wave in made] == [[16, 16, 16, 16], [1, 1, 1, 1, 1]]
    made = waves([lone, lone, lone, wide], max_rows=64, max_tokens=16_384)
    assert [[len(t.rows) for t in wave] for wave in made] == [[16, 1], [1, 1]]


def test_common_length() -> None:
    assert common_length((1, 2, 3), (1, 2, 4, 5)) == 2
    assert common_length((), (1,)) == 0
    assert common_length((1, 2), (1, 2)) == 2
