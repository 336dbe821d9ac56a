"""KTO: answers of pairs or with a label; z of mismatched answers, by the step; splits and kills change nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mygpt.align.kto import AnswerWork, KTOConfig, judged, kto, kto_loss, weights
from mygpt.align.policy import open_policy
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.lm.adapters.lora import LoRA
from tests.align import pair_sites
from tests.finetune import toys
from tests.finetune.conftest import Killed, killed_at, one_thread

__all__ = ["killed_at", "one_thread"]


def tuned(run: Run, dataset: Any = None, **changes: Any) -> Any:
    settings = {"method": LoRA(rank=2), "step_answers": 4, **pair_sites.FAST, **changes}
    dataset = dataset or pair_sites.compared(pair_sites.ComparedConfig(), run=run)
    return kto(KTOConfig(**settings), model=toys.base(toys.BaseConfig(), run=run), dataset=dataset, run=run)


def losses(made: Any) -> list[float]:
    return [loss for _, loss in made.manifest.facts["curve"]]


def test_loss_worked_by_hand() -> None:
    """r = 3, z = 1, beta = 0.5: 1 - sigmoid(1) = 0.268941 for a good answer, 1 - sigmoid(-1) = 0.731059 for a bad one."""
    found = kto_loss(torch.tensor([3.0, 3.0]), torch.tensor([True, False]), 1.0, beta=0.5)
    assert found.tolist() == pytest.approx([0.268941, 0.731059], abs=1e-6)


def test_answers_of_pairs(run: Run) -> None:
    made = tuned(run, epochs=6)
    facts = made.manifest.facts
    assert losses(made)[0] == 0.5 and losses(made)[-1] < 0.4
    assert facts["answers"] == {"good": 4, "bad": 4} and facts["weights"] == {"good": 1.0, "bad": 1.0}
    assert facts["held_out"]["before"]["accuracy"] is None and facts["held_out"]["after"]["pairs"] == 2


def test_answers_with_a_label(run: Run) -> None:
    """3 good and 1 bad: each good one counts a third, so the first loss is (3 x 1/3 + 1) / 4 x 0.5."""
    dataset = pair_sites.judged_answers(pair_sites.JudgedConfig(good=3, bad=1), run=run)
    made = tuned(run, dataset, epochs=6)
    facts = made.manifest.facts
    assert losses(made)[0] == 0.25 and losses(made)[-1] < 0.24
    assert facts["weights"] == {"good": pytest.approx(1 / 3), "bad": 1.0}
    held_out = facts["held_out"]
    assert held_out["before"]["reward_auc"] == 0.5 and held_out["after"]["answers"] == 4 and 0 <= held_out["after"]["reward_auc"] <= 1
    assert facts["sentences"][0].startswith("Held out: on 4 answers, a good answer has a higher reward than a bad one with probability")


def test_the_other_answers_are_of_other_prompts(run: Run) -> None:
    """z by the model's own means; a pair's own two answers are never exchanged with one another."""
    model = toys.base(toys.BaseConfig(), run=run)
    config = KTOConfig(method=LoRA(rank=2), precision="float32")
    policy = open_policy(model, config, run=run)
    rows = judged(pair_sites.compared(pair_sites.ComparedConfig(), run=run), "train", policy, config, run=run)[:4]
    work = AnswerWork(policy, 256, 512, 2048)
    labels = [[t for t, trained in zip(e.token_ids, e.trained, strict=True) if trained] for e in work.exchanged(rows, rows)]
    assert [policy.renderer.text(ids[:-1]) for ids in labels] == [rows[2].answer, rows[2].answer, rows[0].answer, rows[0].answer]
    assert work.moved(rows, rows) == 0.0
    with torch.no_grad():
        for name, parameter in policy.module.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.2)
    own = work.logprobs(policy.module, work.exchanged(rows, rows))
    with policy.reference() as frozen:
        reference = work.logprobs(frozen, work.exchanged(rows, rows))
    assert work.moved(rows, rows) == max(0.0, float((own - reference).mean())) and float((own - reference).abs().min()) > 0.1
    short = AnswerWork(policy, len(rows[0].example.token_ids), 512, 2048)
    assert all(len(e.token_ids) <= short.allowed_tokens for e in short.exchanged(rows, rows))


def test_a_step_of_one_prompt_borrows_an_answer_of_the_training_set(run: Run) -> None:
    """Five answers in steps of four: the last step has one. Its z is of the first answer to another prompt, never of an own one."""
    made = tuned(run, pair_sites.judged_answers(pair_sites.JudgedConfig(good=3, bad=2), run=run))
    assert len(losses(made)) == 4
    model = toys.base(toys.BaseConfig(), run=run)
    config = KTOConfig(method=LoRA(rank=2), precision="float32")
    policy = open_policy(model, config, run=run)
    rows = judged(pair_sites.compared(pair_sites.ComparedConfig(), run=run), "train", policy, config, run=run)
    work = AnswerWork(policy, 256, 512, 2048)
    for step in ([rows[2]], rows[2:4]):  # alone; both answers to one prompt
        labels = [[t for t, trained in zip(e.token_ids, e.trained, strict=True) if trained] for e in work.exchanged(step, rows)]
        assert [policy.renderer.text(ids[:-1]) for ids in labels] == [rows[0].answer] * len(step)
    assert work.exchanged(rows[:2], rows[:2]) == [] and work.moved(rows[:2], rows[:2]) == 0.0


def test_one_prompt_alone_is_said(run: Run) -> None:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    made = tuned(run, pair_sites.compared(pair_sites.ComparedConfig(pairs=pair_sites.COMPARED[:1]), run=run))
    assert losses(made)[0] == 0.5 and any(text.startswith("All answers are to one prompt") for text in said)


def test_without_shift_nothing_else_is_computed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first loss is 0.5 as ever, since nothing has moved; z is never asked for."""
    monkeypatch.delattr(AnswerWork, "moved")
    found = losses(tuned(run, shift=False, epochs=3))
    assert found[0] == 0.5 and found[-1] < found[0]


def test_a_pair_counts_as_far_as_it_is_sure(run: Run) -> None:
    """Of p = 0.8 each answer counts 0.6: the first loss is 0.6 x 0.5. Of p = 0.2 the rejected answer is the good one, as sure."""
    likely, unlikely = (pair_sites.compared(pair_sites.ComparedConfig(probability=p), run=run) for p in ("0.8", "0.2"))
    made = tuned(run, likely)
    assert losses(made)[0] == pytest.approx(0.3, abs=1e-4)
    assert made.manifest.facts["answers"] == {"good": 4, "bad": 4} and made.manifest.facts["weights"] == {"good": 1.0, "bad": 1.0}
    config = KTOConfig(method=LoRA(rank=2), precision="float32")
    policy = open_policy(toys.base(toys.BaseConfig(), run=run), config, run=run)
    first, turned = (judged(dataset, "train", policy, config, run=run) for dataset in (likely, unlikely))
    assert [row.answer for row in turned] == [row.answer for pair in zip(first[1::2], first[::2], strict=True) for row in pair]
    assert [row.is_good for row in turned] == [row.is_good for row in first] == [True, False] * 4
    assert [row.weight for row in (*first, *turned)] == pytest.approx([0.6] * 16)


def test_the_weight_is_the_expectation_over_which_is_good() -> None:
    """p L(good) + (1 - p) L(bad) has (2 p - 1) times the slope of L(good)."""
    ratio, p = torch.tensor([0.7], requires_grad=True), 0.8
    good, bad = (kto_loss(ratio, torch.tensor([is_good]), 0.2, beta=0.5).sum() for is_good in (True, False))
    expected, alone = (torch.autograd.grad(loss, ratio, retain_graph=True)[0] for loss in (p * good + (1 - p) * bad, good))
    torch.testing.assert_close(expected, (2 * p - 1) * alone)


def test_ties_teach_nothing_and_are_counted(run: Run) -> None:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    made = tuned(run, pair_sites.compared(pair_sites.ComparedConfig(ties=(1, 3)), run=run))
    assert made.manifest.facts["answers"] == {"good": 2, "bad": 2}
    assert "2 of 4 pairs of the split `train` are ties, of which KTO learns nothing: they are left out." in said
    with pytest.raises(Refused, match="All 4 pairs to learn from are ties"):
        tuned(run, pair_sites.compared(pair_sites.ComparedConfig(probability="0.5"), run=run))


def test_micro_batches_change_nothing(run: Run) -> None:
    curves = [losses(tuned(run, step_answers=8, micro_batch_tokens=n, epochs=4)) for n in (2048, 1)]
    assert curves[1] == pytest.approx(curves[0], abs=2e-4)


def test_killed_and_resumed_is_uninterrupted(run: Run, killed_at: Callable[[int], Run]) -> None:
    whole = tuned(run, epochs=3)
    with pytest.raises(Killed):
        tuned(killed_at(4), epochs=3)
    assert tuned(killed_at(0), epochs=3).manifest.content == whole.manifest.content


def test_weights(run: Run) -> None:
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    assert weights(KTOConfig(), good=30, bad=10, run=run) == (pytest.approx(1 / 3), 1.0)
    assert weights(KTOConfig(desirable_weight=1.0, undesirable_weight=3.0), good=40, bad=10, run=run) == (1.0, 3.0)  # 4 : 3
    assert not [text for text in said if text]
    weights(KTOConfig(desirable_weight=2.0), good=10, bad=10, run=run)
    assert said[-1].startswith("Good answers count 2.00 times as much as bad ones")
    with pytest.raises(Refused, match="All 4 answers are called good"):
        weights(KTOConfig(), good=4, bad=0, run=run)


def test_answers_that_cannot_be_learnt(run: Run) -> None:
    dataset = pair_sites.judged_answers(pair_sites.JudgedConfig(label="fine"), run=run)
    with pytest.raises(Refused, match="4 of 8 answers cannot be learnt from \\(4 labelled 'fine'\\)"):
        tuned(run, dataset)
    with pytest.raises(Refused, match="All 4 answers are called bad"):
        tuned(run, dataset, drop_unusable=True)
