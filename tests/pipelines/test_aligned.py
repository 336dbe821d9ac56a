"""A whole alignment with a base of a few thousand weights: every step runs, the judge is a stranger to PPO, and the gate decides."""

import json
from pathlib import Path

import pytest

from mygpt.align.ppo import PPOConfig
from mygpt.align.reward_model import RewardModelConfig
from mygpt.align.watch import WatchConfig
from mygpt.align.word_reward import WordReward
from mygpt.artifacts.dataset import Dataset, Message, Preference, preference_facts, write_preferences
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.store import Store
from mygpt.cli.main import main
from mygpt.core.config import Config
from mygpt.core.errors import Refused
from mygpt.core.run import Run
from mygpt.evaluate.forgetting import GeneralCheckConfig
from mygpt.evaluate.rewarded_answers import RewardedAnswersConfig
from mygpt.lm.adapters.lora import LoRA
from mygpt.pipelines.aligned import Aligned, AlignedConfig, aligned, figures, forecast, prompt_digest
from tests.finetune import toys

SHORT = AlignedConfig(
    reward_model=RewardModelConfig(method=LoRA(rank=2), precision="float32"),
    ppo=PPOConfig(
        method=LoRA(rank=2),
        precision="float32",
        rollouts=2,
        answers=8,
        epochs=2,
        max_answer_tokens=6,
        watch=WatchConfig(prompts=3, every=1, max_tokens=6),
    ),
    answers=RewardedAnswersConfig(max_tokens=6),
    general=GeneralCheckConfig(max_tokens=1, piece_characters=200),
    num_resamples=200,
)


class ManyConfig(Config):
    train: int = 40
    test: int = 32


@recipe
def many_preferences(config: ManyConfig, *, run: Run) -> Dataset:
    """Short answers are preferred to long ones."""

    def rows(split: str, count: int) -> list[Preference]:
        asked = [(Message("user", f"What is number {n} of {split}?"),) for n in range(count)]
        return [Preference(prompt, f"It is {n}.", f"It may be {n}, or else.", id=f"{split}-{n}") for n, prompt in enumerate(asked)]

    splits = {"train": rows("train", config.train), "test": rows("test", config.test)}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits), name="many")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("aligned")


@pytest.fixture(scope="module")
def result(home: Path) -> Aligned:
    run = Run(home, name="short")
    made = aligned(SHORT, model=toys.base(toys.BaseConfig(), run=run), dataset=many_preferences(ManyConfig(), run=run), run=run)
    run.close()
    return made


def test_every_step_ran(result: Aligned, home: Path) -> None:
    store = Store(home)
    assert isinstance(result.policy, Adapter) and len(result.policy.manifest.facts["vitals"]) == 2
    assert [one.manifest.facts["head"] for one in (result.reward_model, result.judge)] == ["reward", "reward"]
    assert result.decision.manifest.facts["outcome"] in ("ship", "do not ship", "need more items")
    rules = {rule["task"] for rule in result.decision.figures["rules"]}
    assert rules == {"rewarded_answers", "general_text"}
    assert result.policy.manifest.tools["reward"]["adapter"] == result.reward_model.digest
    assert store.lookup("short", kind="adapter") is not None


def test_the_judge_learnt_from_other_prompts(result: Aligned) -> None:
    learnt = [
        {prompt_digest(row) for row in Dataset.of(one.store, one.manifest.inputs["dataset"][0].digest).preferences("train")}
        for one in (result.reward_model, result.judge)
    ]
    assert learnt[0] and learnt[1] and not learnt[0] & learnt[1] and len(learnt[0] | learnt[1]) == 40


def test_ppo_is_watched_by_words_of_other_pairs(result: Aligned) -> None:
    """By a reward of another kind, which the doctor needs to name reward hacking: fitted on prompts that the reward model did not learn."""
    assert all({"held_out_reward", "win_rate"} <= row.keys() for row in result.policy.manifest.facts["vitals"])
    identity = result.policy.manifest.tools["held_out_reward"]
    learnt, judged = (Dataset.of(one.store, one.manifest.inputs["dataset"][0].digest) for one in (result.reward_model, result.judge))
    others = Dataset.of(result.policy.store, identity["dataset"])
    assert others.preferences("train") == judged.preferences("train")  # of so few pairs the judge's, and never the reward model's
    assert not {prompt_digest(row) for row in others.preferences("train")} & {prompt_digest(row) for row in learnt.preferences("train")}
    words = WordReward.fitted(others, max_pairs=SHORT.max_word_pairs)
    assert words.identity == identity and words.weights["is"] > 0 > words.weights["else"]


def test_the_report_is_paired_over_prompts(result: Aligned) -> None:
    found = result.report.figures
    assert found["prompts"] == 32 and found["judge_gain"]["more"] + found["judge_gain"]["less"] <= 32
    gain = found["judge_gain"]
    assert gain["gain"]["estimate"] == pytest.approx(gain["after"]["estimate"] - gain["before"]["estimate"], abs=1e-9)
    assert found["forgetting"]["num_items"] == 96
    page = result.report.page.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert "The reward that is only watched" in page and "Better than the start, in its eyes" in page
    assert json.loads((result.report.payload / "report.json").read_text())["headline"] in page


def test_nothing_is_done_twice(result: Aligned, home: Path) -> None:
    events: list[str] = []
    run = Run(home, name="short", listeners=(lambda event: events.append(event["event"]),))
    dataset = many_preferences(ManyConfig(), run=run)
    again = aligned(SHORT, model=toys.base(toys.BaseConfig(), run=run), dataset=dataset, run=run)
    assert again.decision.digest == result.decision.digest and "published" not in events
    summary = figures(again, run)
    assert summary["gate"]["outcome"] == result.decision.manifest.facts["outcome"] and summary["policy"] == result.policy.id
    run.close()


def test_the_exit_code_does_not_depend_on_the_gate(
    result: Aligned, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with `up`: the work was done, and what the gate said is printed."""
    monkeypatch.setattr("mygpt.pipelines.aligned.aligned", lambda *args, **kwargs: result)
    monkeypatch.setattr("mygpt.lm.sources.obtain", lambda name, *, run: None)
    said = []
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["aligned", "many", "--home", str(home), *more])
        assert ended.value.code == 0
        said.append(capsys.readouterr().out)
    facts = result.decision.manifest.facts
    assert facts["outcome"] != "ship" and facts["headline"] in said[0]
    assert json.loads(said[1])["gate"]["outcome"] == facts["outcome"]


def test_what_its_trainings_need_is_said_before(result: Aligned, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as each said of itself when it ran."""
    store = Store(home)
    given = {"dataset": Dataset.open(store, "many"), "model": Model.open(store, "tiny")}
    needs = forecast(SHORT, **given)["training"]
    ran = {"reward model": result.reward_model, "judge": result.judge, "ppo": result.policy}
    for name, made in ran.items():
        said = made.manifest.facts["forecast"]
        assert {key: needs[name][key] for key in ("weights_bytes", "logits_bytes", "steps", "tokens")} == {
            key: said[key] for key in ("weights_bytes", "logits_bytes", "steps", "tokens")
        }
    assert needs["reward model"]["seconds"] > 0 and needs["ppo"]["examples"] == 40 and needs["ppo"]["sampling_bytes"] > 0
    for model, told in (("tiny", "  ppo: about"), ("smollm2-none", "training: not known before smollm2-none is there")):
        with pytest.raises(SystemExit) as ended:
            main(["aligned", "many", "--model", model, "--home", str(home), "--dry-run"])
        assert ended.value.code == 0 and told in capsys.readouterr().out


def test_too_few_held_out_prompts_are_refused(run: Run) -> None:
    dataset = many_preferences(ManyConfig(train=4, test=12), run=run)
    assert forecast(SHORT, dataset=dataset, model=None)["enough_to_decide"] is False
    with pytest.raises(Refused, match="12 held-out prompts"):
        aligned(SHORT, model=toys.base(toys.BaseConfig(), run=run), dataset=dataset, run=run)


def test_a_half_without_pairs_is_refused(run: Run) -> None:
    dataset = many_preferences(ManyConfig(train=1), run=run)
    given = {"model": toys.base(toys.BaseConfig(), run=run), "dataset": dataset}
    for asked in (lambda: aligned(SHORT, **given, run=run), lambda: forecast(SHORT, **given)):
        with pytest.raises(Refused, match=r"Of the 1 pairs in the split `train` of dataset/many-.* none falls to the (first|second) half"):
            asked()
