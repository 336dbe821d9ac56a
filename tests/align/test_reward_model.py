"""Reward models: losses by hand and by trl, groups, resuming, and what is saved."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.align.answers import usable_pairs
from mygpt.align.model_reward import ModelReward
from mygpt.align.preference_groups import LLAMA_2_MARGINS, Group, groups_of, row_rewards
from mygpt.align.reward_model import RewardModelConfig, preference_losses, reward_model, summed_group_loss, unused
from mygpt.artifacts.dataset import Conversation, Dataset, Message, Preference, preference_facts, write_preferences
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.data.preference_pairs import PreferencePairsConfig, preference_pairs
from mygpt.data.preferences_from_ratings import pairs
from mygpt.finetune.merge import MergeConfig, merge
from mygpt.infer.protocols import Answer
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.prompt import Prompt
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.heads import open_head
from tests.data.test_preferences_from_ratings import rating
from tests.finetune import toys
from tests.finetune.conftest import Killed, killed_at
from tests.training import tiny
from tests.training.conftest import one_thread

__all__ = ["killed_at", "one_thread"]

FAST: dict[str, Any] = {"precision": "float32", "step_tokens": 250, "micro_batch_tokens": 250, "checkpoint_seconds": 0, "warmup_share": 0.0}
TRL = json.loads((Path(__file__).parent / "trl_reward_losses.json").read_text(encoding="utf-8"))
DISHES = ("soup", "bread", "fish", "pie", "stew", "rice", "cake", "jam")


class TastesConfig(Config):
    held_out: bool = True


@recipe
def tastes(config: TastesConfig, *, run: Run) -> Dataset:
    """Whoever answers "yes" is preferred; the worse answers are longer in half of the pairs."""
    rows = [
        Preference((Message("user", f"{dish}?"),), "yes" if n % 2 else "yes yes yes", "no no no" if n % 2 else "no", id=dish)
        for n, dish in enumerate(DISHES)
    ]
    splits = {"train": rows[:6], **({"test": rows[6:]} if config.held_out else {})}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits), name="tastes")


def trained(run: Run, *, held_out: bool = True, architecture: str = "llama", **changes: Any) -> Any:
    config = RewardModelConfig(**{**FAST, "method": LoRA(rank=4), "learning_rate": 1e-2, "epochs": 4, **changes})
    base = toys.base(toys.BaseConfig(architecture=architecture), run=run)
    return reward_model(config, model=base, dataset=tastes(TastesConfig(held_out=held_out), run=run), run=run)


# -- losses ------------------------------------------------------------------------------------------------------------------


def losses(apart: list[float], **changes: Any) -> list[float]:
    number = len(apart)
    given = {
        "margins_P": torch.tensor(changes.get("margins", [0.0] * number), dtype=torch.float64),
        "probabilities_P": torch.tensor(changes.get("probabilities", [1.0] * number), dtype=torch.float64),
        "is_tie_P": torch.tensor(changes.get("ties", [False] * number)),
    }
    found: list[float] = preference_losses(
        torch.tensor(apart, dtype=torch.float64), **given, tie_threshold=changes.get("tie_threshold", 0.0)
    ).tolist()
    return found


def test_a_preference_by_hand() -> None:
    """Equal rewards: ln 2. Three apart: ln(1 + e^-3). Numbers that log(1 + exp(x)) cannot hold stay numbers."""
    assert losses([0.0, 3.0, -3.0]) == pytest.approx([0.693147181, 0.048587352, 3.048587352], abs=1e-9)
    assert losses([-2000.0, 2000.0]) == pytest.approx([2000.0, 0.0])


def test_a_margin_is_what_rewards_should_lie_apart() -> None:
    assert losses([1.0, 0.5], margins=[1.0, 0.5]) == pytest.approx([math.log(2)] * 2)
    assert LLAMA_2_MARGINS["llama_2_small"] == pytest.approx((0, 1 / 3, 2 / 3, 1))  # table 27


def test_soft_labels_are_cross_entropy() -> None:
    """At the reward gap whose sigmoid is the label the loss is the label's entropy, its least: H(0.8) = 0.500402."""
    best = math.log(0.8 / 0.2)
    at = losses([best, best - 0.1, best + 0.1], probabilities=[0.8] * 3)
    assert at[0] == pytest.approx(0.500402, abs=1e-6) and min(at[1:]) > at[0]
    assert losses([0.7], probabilities=[0.0]) == pytest.approx(losses([-0.7]))


def test_ties_by_hand() -> None:
    """Half a win each: -(ln sigmoid(1) + ln sigmoid(-1)) / 2 = 0.813262. Rao-Kupper with theta = 2 at equal strength: 1/3 each way."""
    assert losses([1.0], ties=[True]) == pytest.approx([0.813261688], abs=1e-9)
    theta = math.log(2)
    assert losses([0.0], ties=[True], tie_threshold=theta) == pytest.approx([math.log(3)])
    assert losses([0.0], tie_threshold=theta) == pytest.approx([math.log(3)])
    for gap in (-1.3, 0.0, 0.4, 2.5):  # won, lost and tied are all there is
        chances = [losses([gap], tie_threshold=theta), losses([-gap], tie_threshold=theta), losses([gap], ties=[True], tie_threshold=theta)]
        assert sum(math.exp(-one[0]) for one in chances) == pytest.approx(1)
    weights = (3.0, 1.0)  # pi_i / (pi_i + theta pi_j) = 3 / (3 + 2): Rao and Kupper's own form
    assert math.exp(-losses([math.log(weights[0] / weights[1])], tie_threshold=theta)[0]) == pytest.approx(0.6)


@pytest.mark.parametrize("case", TRL["cases"], ids=lambda case: case["name"])
def test_losses_are_those_of_trl(case: dict[str, Any]) -> None:
    """Means of trl's RewardTrainer on the same rewards, and the gradients; one prompt a pair."""
    rewards_2P = torch.tensor([case["chosen"], case["rejected"]], requires_grad=True)
    margins = case["margin"] or [0.0] * len(case["chosen"])
    groups = [made_up_group([(0, 1, margin)]) for margin in margins]
    loss = summed_group_loss(rewards_2P.T.reshape(-1), groups, centring=case["centring"]) / len(groups)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(case["loss"], abs=1e-5)
    assert rewards_2P.grad is not None
    assert torch.allclose(rewards_2P.grad, torch.tensor(case["gradients"]), atol=1e-5)


def made_up_group(verdicts: list[tuple[int, int, float]]) -> Group:
    answers = sorted({place for one in verdicts for place in one[:2]})
    rows = [Preference((Message("user", "Q"),), str(a), str(b), margin=None) for a, b, _ in verdicts]
    groups = groups_of(usable_pairs_of(rows))
    made = tuple(replace(v, chosen=a, rejected=b, margin=m) for v, (a, b, m) in zip(groups[0].verdicts, verdicts, strict=True))
    assert len(groups[0].answers) == len(answers)
    return replace(groups[0], verdicts=made)


def usable_pairs_of(rows: list[Preference]) -> Any:
    class Quiet:
        def warn(self, text: str) -> None:
            raise AssertionError(text)

    renderer = ChatRenderer(tiny.chat_tokenizer())
    return usable_pairs(rows, renderer, max_example_tokens=200, context_tokens=None, drop_unusable=False, run=Quiet())  # type: ignore[arg-type]


# -- groups ------------------------------------------------------------------------------------------------------------------


RANKED = [  # three answers, best first, as `preferences_from_ratings` writes them
    Preference((Message("user", "Q"),), "best", "middle", margin=1),
    Preference((Message("user", "Q"),), "best", "worst", margin=2),
    Preference((Message("user", "Q"),), "middle", "worst", margin=1),
    Preference((Message("user", "other"),), "a", "b", facts={"tie": "true"}),
    Preference((Message("user", "third"),), "a", "b", facts={"probability": "0.7"}),
]


def test_each_answer_once_and_every_pair() -> None:
    first, second, third = groups_of(usable_pairs_of(RANKED), margins=(0.0, 0.25, 0.5))
    assert first.answers == ("best", "middle", "worst")
    assert [(v.chosen, v.rejected, v.margin) for v in first.verdicts] == [(0, 1, 0.25), (0, 2, 0.5), (1, 2, 0.25)]
    assert second.verdicts[0].is_tie and third.verdicts[0].probability == 0.7
    renderer = ChatRenderer(tiny.chat_tokenizer())
    assert all(e.token_ids[-1] in renderer.stop_token_ids for e in first.examples)  # nothing that the template writes behind it


def test_margins_of_scores_by_hand() -> None:
    """0.5 for each of 1.5 points; beside the margin of a grade where both are set; nothing where neither is known."""
    rows = [replace(RANKED[4], facts={"score_margin": "1.5"}), replace(RANKED[0], facts={"score_margin": "2"}), RANKED[3]]
    scored, ranked, tied = groups_of(usable_pairs_of(rows), margins=(0.0, 0.25), margin_per_score=0.5)
    assert [group.verdicts[0].margin for group in (scored, ranked, tied)] == [0.75, 0.25 + 1.0, 0.0]
    with pytest.raises(Refused, match="scores `better` higher"):
        groups_of(usable_pairs_of([replace(RANKED[4], facts={"score_margin": "better"})]), margin_per_score=1.0)


def test_ties_of_people_reach_their_own_likelihood() -> None:
    """One person ranked 1, 1, 2. At equal rewards Rao and Kupper's P(tie) with theta = 2 is 1/3, as is that of each side to win."""
    rows = list(pairs([rating([1, 1, 2])], ties=True))
    (group,) = groups_of(usable_pairs_of(rows))
    assert [v.is_tie for v in group.verdicts] == [True, False, False]
    loss = summed_group_loss(torch.zeros(3), [group], tie_threshold=math.log(2))
    assert float(loss) == pytest.approx(math.log(3))
    half = summed_group_loss(torch.zeros(3), [replace(group, verdicts=group.verdicts[:1])])
    assert float(half) == pytest.approx(math.log(2))  # without the threshold half a win for each


def test_a_setting_that_says_nothing_of_the_rows_is_said() -> None:
    scored = [replace(RANKED[4], facts={"score_margin": "1.5"})]

    def told(rows: list[Preference], **settings: Any) -> list[str]:
        return list(unused(rows, RewardModelConfig(**settings)))

    (said,) = told([*RANKED[:3], *scored], margins="llama_2_large")
    assert said == (
        "`margins` is set, and 1 of 4 pairs have no margin: they are learnt as pairs of margin 0. They have scores: `margin_per_score` "
        "makes margins of these."
    )
    assert told(RANKED[:4], margins="llama_2_large", tie_threshold=0.5) == told(scored, margin_per_score=1.0) == told(RANKED) == []
    assert told(RANKED[:3], margin_per_score=1.0) == ["`margin_per_score` is set, and 3 of 3 pairs have no scores: these add no margin."]
    assert told(RANKED[:3], tie_threshold=0.5)[0].startswith("`tie_threshold` is set, and none of the 3 pairs is a tie")


def test_margins_of_imported_scores_change_what_is_learnt(run: Run, tmp_path: Path) -> None:
    """Pairs with scores as `mygpt data preference_pairs` reads them: a table of margins says nothing of them, aloud; one of scores does."""
    said: list[str] = []
    run.listeners.append(lambda event: said.append(event.get("text", "")))
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{dish}?", "chosen": "yes", "rejected": "no", "score_rejected": 1} for dish in DISHES]
    lines = [json.dumps({**row, "score_chosen": n + 2}) for n, row in enumerate(rows)]
    file.write_text("\n".join(lines), encoding="utf-8")
    dataset = preference_pairs(PreferencePairsConfig(held_out_share=0), sources=(file,), run=run)
    base = toys.base(toys.BaseConfig(), run=run)

    def first_loss(**settings: Any) -> float:
        one_step = {"epochs": 1, "step_tokens": 2000, "micro_batch_tokens": 2000}
        config = RewardModelConfig(**{**FAST, "method": LoRA(rank=2), **one_step, **settings})
        return float(reward_model(config, model=base, dataset=dataset, run=run).manifest.facts["curve"][0][1])

    plain, table = first_loss(), first_loss(margins="llama_2_large")
    assert table == plain and [text for text in said if text.startswith("`margins` is set, and 8 of 8 pairs have no margin")]
    assert first_loss(margin_per_score=0.5) > plain + 0.5  # wanted are 0.5 to 4 apart


def test_a_prompt_weighs_as_much_as_another() -> None:
    """InstructGPT's 1 / C(K, 2): ranked 2, 1, 0 the three gaps are 1, 2, 1; the second prompt's one gap is 1."""
    groups = groups_of(usable_pairs_of([*RANKED[:3], RANKED[4]]))
    groups[1] = replace(groups[1], verdicts=(replace(groups[1].verdicts[0], probability=1.0),))
    loss = summed_group_loss(torch.tensor([2.0, 1.0, 0.0, 1.0, 0.0]), groups)
    one, two = math.log1p(math.exp(-1)), math.log1p(math.exp(-2))
    assert float(loss) == pytest.approx((2 * one + two) / 3 + one, abs=1e-6)
    centred = summed_group_loss(torch.tensor([2.0, 1.0, 0.0, 1.0, 0.0]), groups, centring=0.01)
    assert float(centred - loss) == pytest.approx(0.01 * ((9 + 4 + 1) / 3 + 1), abs=1e-6)


def test_a_probability_that_is_none() -> None:
    for told in ("likely", "1.2", "nan"):
        with pytest.raises(Refused, match=f"with the probability `{told}`"):
            groups_of(usable_pairs_of([replace(RANKED[4], facts={"probability": told})]))


@pytest.mark.parametrize("packed", [True, False])
def test_any_split_is_one_gradient(packed: bool, run: Run) -> None:
    """All groups in one row, two rows, or a row an answer: the same sum, read at each answer's own end."""
    opened = open_head(toys.base(toys.BaseConfig(), run=run), "reward", seed=1, dtype=torch.float32)
    groups = groups_of(usable_pairs_of(RANKED))

    def gradient(splits: list[list[Group]], packed: bool) -> torch.Tensor:
        opened.module.requires_grad_(True).zero_grad()
        for some in splits:
            rewards_N, _ = row_rewards(opened.module, some, packed=packed, padding_id=opened.tokenizer.pad_token_id)
            summed_group_loss(rewards_N, some, centring=0.01).backward()
        return torch.cat([p.grad.reshape(-1) for p in opened.module.parameters() if p.grad is not None])

    whole = gradient([groups], True)
    parts = gradient([groups[:1], groups[1:]], packed)
    assert float(whole.norm()) > 0.1
    assert torch.allclose(parts, whole, atol=1e-5)


# -- the recipe --------------------------------------------------------------------------------------------------------------


def test_learns_measures_and_is_normalised(run: Run) -> None:
    made = trained(run)
    facts = made.manifest.facts
    assert isinstance(made, Adapter) and facts["head"] == "reward"
    assert facts["curve"][-1][1] < 0.5 * facts["curve"][0][1]
    assert facts["held_out"]["accuracy"] == 1.0 and facts["held_out"]["pairs"] == 2 and facts["held_out"]["longer_wins"] == 0.5
    assert facts["normalised"]["on"] == "test"
    reward = ModelReward(made.base, adapter=made, dtype=torch.float32)
    values = torch.tensor(held_out_rewards(reward, run))
    assert float(values.mean()) == pytest.approx(0, abs=1e-4) and float(values.std(unbiased=False)) == pytest.approx(1, abs=1e-4)
    assert facts["sentences"][0].startswith("Held out: accuracy 1.000 (")


def test_without_held_out_rows_it_is_normalised_on_what_was_learnt(run: Run) -> None:
    facts = trained(run, held_out=False, epochs=1).manifest.facts
    assert facts["normalised"]["on"] == "train" and facts["held_out"] is None
    assert facts["sentences"] == ["No held-out rows: how well it does was not measured."]


@pytest.mark.parametrize(
    ("architecture", "method", "merged"),
    [
        *(("llama", Full(), False), ("gpt2", Full(), False), ("llama", LoRA(rank=2), False)),
        *(("llama", LoRA(rank=2), True), ("gpt2", IA3(), True)),
    ],
)
def test_opens_in_plain_transformers(architecture: str, method: Any, merged: bool, run: Run) -> None:
    """The same raw number for a batch with padding, though this tokenizer's padding would be its stop token."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    made = trained(run, architecture=architecture, method=method, learning_rate=3e-3, epochs=1)
    if merged:
        facts = made.manifest.facts["normalised"]
        made = merge(MergeConfig(), adapter=made, run=run)
        assert made.head == "reward" and made.manifest.facts["normalised"] == facts
    base = made if isinstance(made, Model) else made.base
    plain: Any = AutoModelForSequenceClassification.from_pretrained(base.payload, num_labels=1, dtype=torch.float32)
    reward = ModelReward(base, adapter=made if isinstance(made, Adapter) else None, dtype=torch.float32)
    if isinstance(made, Adapter):
        plain.config.pad_token_id = reward.padding_id
        plain = PeftModel.from_pretrained(plain, str(made.payload))
    else:
        assert AutoTokenizer.from_pretrained(made.payload).pad_token_id == reward.padding_id == plain.config.pad_token_id
    prompt = Conversation((Message("user", "soup?"),))
    examples = [reward.example(prompt, Answer(text)) for text in ("yes", "no no no no")]
    assert reward.padding_id not in examples[0][-1:]
    ids_BT = torch.full((2, max(map(len, examples))), reward.padding_id)
    for row, ids in enumerate(examples):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
    with torch.no_grad():
        theirs = plain.eval()(input_ids=ids_BT, attention_mask=(ids_BT != reward.padding_id).long()).logits[:, 0]
    ours = torch.tensor(reward.each([prompt] * 2, [Answer("yes"), Answer("no no no no")]))
    facts = made.manifest.facts["normalised"]
    assert torch.allclose((theirs - facts["mean"]) / facts["std"], ours, atol=1e-4)
    assert abs(float(theirs[0] - theirs[1])) > 1e-3


@pytest.mark.parametrize("method", [IA3(), Bottleneck(size=4), Freeze(num_layers=1)], ids=lambda method: method.name)
def test_other_methods(method: Any, run: Run) -> None:
    """What was saved is what was measured: opened again, its held-out rewards have mean 0 and deviation 1."""
    made = trained(run, method=method, epochs=1)
    base, adapter = (made, None) if isinstance(made, Model) else (made.base, made)
    reward = ModelReward(base, adapter=adapter, dtype=torch.float32)
    values = torch.tensor(held_out_rewards(reward, run))
    assert float(values.mean()) == pytest.approx(0, abs=1e-3) and float(values.std(unbiased=False)) == pytest.approx(1, abs=1e-3)


def test_virtual_tokens_are_refused(run: Run) -> None:
    with pytest.raises(Refused, match="reads its answer at the last real token"):
        trained(run, method=Prompt(num_tokens=2))


def held_out_rewards(reward: ModelReward, run: Run) -> list[float]:
    rows = tastes(TastesConfig(), run=run).preferences("test")
    asked = [Conversation(row.prompt) for row in rows for _ in range(2)]
    return reward.each(asked, [Answer(text) for row in rows for text in (row.chosen, row.rejected)])


def test_goes_on_to_the_same_bits(run: Run, killed_at: Callable[[int], Run]) -> None:
    whole = trained(run, epochs=2)
    assert len(whole.manifest.facts["curve"]) >= 4
    again = killed_at(3)
    with pytest.raises(Killed):
        trained(again, epochs=2)
    resumed = trained(Run(run.home, name=run.name, seed=run.seed, fresh=True), epochs=2)
    assert resumed.manifest.content == whole.manifest.content
    assert resumed.manifest.facts["curve"] == whole.manifest.facts["curve"]


def test_pairs_that_cannot_be_learnt_from(run: Run) -> None:
    with pytest.raises(Refused, match="longer than 30 tokens"):
        trained(run, max_example_tokens=30)
    with pytest.raises(Refused, match="four bits"):
        trained(run, method=LoRA(weights="nf4"))


def test_a_base_model_has_no_template(run: Run) -> None:
    base = toys.base(toys.BaseConfig(chat_template=""), run=run)
    with pytest.raises(Refused, match="no chat template"):
        reward_model(RewardModelConfig(**FAST), model=base, dataset=tastes(TastesConfig(), run=run), run=run)
