"""Joining predictions: rows meet by id, and what cannot be compared is refused with the values."""

from typing import Any

import pytest

from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.same_items import is_overlap, join, model_labels
from tests.evaluate.made_up_predictions import made, shares


def test_rows_meet_by_id_whatever_their_order(run: Run) -> None:
    a = made(run, "a", "t", [1.0, 0.0, 1.0], ids=("x", "y", "z"), question="same")
    # the same items the other way round: questions and references must agree by id, so they are written by id here
    b = made(run, "b", "t", [0.0, 0.0, 1.0], ids=("x", "y", "z"), question="same")
    b.rows.reverse()
    (task,) = join([a, b])
    assert task.item_ids == ["x", "y", "z"]
    assert task.values("b", "acc").tolist() == [0.0, 0.0, 1.0]
    assert [m.label for m in task.models] == ["a", "b"]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"version": "2"}, r"t was measured in different versions: 1 \(a\), 2 \(b\)"),
        ({"primary": "acc_norm"}, r"different deciding metrics: acc \(a\), acc_norm \(b\)"),
        ({"form": "generate"}, r"different forms: choice \(a\), generate \(b\)"),
        ({"ids": ("t-0", "t-1", "u")}, r"On t, b did 3 items and a 3: 1 missing \(t-2\); 1 more \(u\)"),
        ({"ids": ("t-0", "t-1", "t-1")}, r"1 item ids of predictions/test-\w+ occur more than once: t-1"),
        ({"question": "Another {i}?"}, r"On t, 3 items of b have another question or reference than those of a: t-0, t-1, t-2"),
    ],
)
def test_refused_with_the_values(run: Run, other: dict[str, Any], what: str) -> None:
    a, b = made(run, "a", "t", shares(3, 1)), made(run, "b", "t", shares(3, 2), **other)
    with pytest.raises(UsageError, match=what) as error:
        join([a, b])
    assert error.value.exit_code == 2 and error.value.fix


def test_other_content_under_one_version_is_refused(run: Run) -> None:
    a, b = (made(run, name, "t", shares(3, 1), task_content=content * 64) for name, content in (("a", "0"), ("b", "1")))
    with pytest.raises(UsageError, match=r"contents under one version .*: 000000000000 \(a\), 111111111111 \(b\)"):
        join([a, b])


def test_fewer_than_two_items(run: Run) -> None:
    with pytest.raises(UsageError, match="a has 1 items on t; a comparison needs 2"):
        join([made(run, "a", "t", [1.0]), made(run, "b", "t", [1.0])])
    with pytest.raises(UsageError, match="a has 0 items on t"):
        join([made(run, "a", "t", []), made(run, "b", "t", [])])


def test_a_model_twice_on_a_task(run: Run) -> None:
    one, two = made(run, "a", "t", shares(3, 1)), made(run, "a", "t", shares(3, 2))
    with pytest.raises(UsageError, match=rf"a was measured 2 times on t: {one.id}, {two.id}"):
        join([one, two])
    assert len(join([one, two], ["first", "second"])[0].models) == 2  # told apart by their labels
    with pytest.raises(UsageError, match="1 labels for 2 predictions"):
        join([one, two], ["first"])


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), "1.0"])
def test_a_score_that_is_no_number(run: Run, broken: Any) -> None:
    a = made(run, "a", "t", [1.0, 0.0, 1.0])
    a.rows[1]["acc"] = broken
    (task,) = join([a, made(run, "b", "t", [1.0, 0.0, 1.0])])
    with pytest.raises(UsageError, match="1 of 3 items have no `acc` for a on t: t-1"):
        task.scored("acc").values("a", "acc")
    with pytest.raises(UsageError, match="a has no `f1` on t") as error:
        task.scored("f1")
    assert error.value.fix == "Its metrics: acc."


def test_items_without_a_score_are_left_out_for_all_and_counted(run: Run) -> None:
    """a has none on item 1, b none on items 3 and 4: items 0 and 2 remain for both, and 1 more for each alone."""
    a, b = made(run, "a", "t", [1.0, None, 0.0, 1.0, 0.0]), made(run, "b", "t", [0.0, 1.0, 1.0, None, None])
    (task,) = join([a, b])
    both = task.scored("acc")
    assert both.item_ids == ["t-0", "t-2"] and both.unscored == {"a": 1, "b": 2}
    assert (both.values("a", "acc").tolist(), both.values("b", "acc").tolist()) == ([1.0, 0.0], [0.0, 1.0])
    assert task.scored("acc", "b").item_ids == ["t-0", "t-1", "t-2"]
    (other,) = join([a, made(run, "c", "t", [None, 1.0, None, 1.0, None])])
    with pytest.raises(UsageError, match=r"Of 5 items of t, 1 have a `acc` for every model \(scored: a 4, c 2\)"):
        other.scored("acc")


def test_predictions_of_no_task(run: Run) -> None:
    a = made(run, "a", "t", shares(3, 1))
    del a.manifest.facts["task"]
    with pytest.raises(UsageError, match=f"{a.id} does not say which task it is of"):
        join([a])


def test_direction_must_be_known(run: Run) -> None:
    (task,) = join([made(run, "a", "t", shares(3, 1), higher_is_better={})])
    with pytest.raises(UsageError, match="t does not say whether more `acc` is better or worse"):
        task.is_higher_better("acc")


def test_models_are_called_by_name_and_told_apart(run: Run) -> None:
    a, b = made(run, "a", "t", shares(3, 1)), made(run, "b", "t", shares(3, 1))
    assert model_labels([a, b, a]) == ("a", "b", "a")
    b.manifest.facts["model"] = {"engine": "remote", "address": "http://127.0.0.1:8080/v1", "name": "b"}
    assert model_labels([b]) == ("b at http://127.0.0.1:8080/v1",)
    b.manifest.facts["model"] = {"engine": "torch", "name": "a"}
    first, second = model_labels([a, b])
    assert first.startswith("a (") and second.startswith("a (") and first != second
    a.manifest.facts["model"] = {"engine": "torch", "model": b.digest, "adapter": None, "dtype": "float32"}
    assert model_labels([a]) == ("test",)  # the artefact's own name
    a.manifest.facts["model"] = {"wrapper": "few shot", "completer": {"engine": "scripted", "name": "inner"}}
    assert model_labels([a]) == ("inner",)


def test_similarities_by_other_embedders_are_not_compared(run: Run) -> None:
    a, b, c = (made(run, name, "t", [0.0, 1.0]) for name in "abc")
    a.manifest.facts["embedder"] = {"engine": "remote", "name": "minilm"}
    b.manifest.facts["embedder"] = {"engine": "remote", "name": "bigger"}
    with pytest.raises(UsageError, match=r"Similarity on t was measured by different embedders: minilm \(a\), bigger \(b\)"):
        join([a, b, c])
    assert len(join([a, c])[0].models) == 2  # where one has none, there is nothing to mix up


def test_which_metrics_are_overlap_of_words() -> None:
    assert [m for m in ("acc", "rouge_l", "ROUGE-1", "sacrebleu", "chrf", "f1", "bits_per_byte") if is_overlap(m)] == [
        "rouge_l",
        "ROUGE-1",
        "sacrebleu",
        "chrf",
    ]


def test_token_f1_is_overlap_where_the_answer_is_a_summary(run: Run) -> None:
    """Of "five seconds" it is SQuAD's measure; of "Ann asks Bob to buy milk." it is ROUGE-1 by another name."""
    for answer, expected in (("summary", True), ("text", False), ("", False)):
        (task,) = join([made(run, "a", "t", [0.0, 1.0], primary="f1", answer=answer)])
        assert (task.is_overlap("f1"), task.is_overlap("rouge_l"), task.is_overlap("exact_match")) == (expected, True, False)
