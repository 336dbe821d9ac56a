"""Reward models of SmolLM2-135M on two sets of preferences, beside what needs no model.

    python -m benchmarks.reward_models --json --keep          (about half an hour on two quiet cores)
    python -m benchmarks.reward_models --quick                (proves that it runs)

harmless    people's pairs of answers to red-team dialogues (hh-rlhf, harmless): four of five prompts are learnt, the others asked
gsm8k       right solutions preferred to wrong ones of the same problem, as four models wrote them; split by problem
ensemble    three that each learnt some of gsm8k's problems, one pair of each, drawn with replacement, with seeds of their own: the mean
            of their rewards, and the mean less their standard deviation, against one alone; and whether the pairs on which they
            disagree are those that their mean has wrong (area under the ROC curve; beside it: where the mean tells little apart)

A dialogue's first question decides its side of the split, so that no dialogue that begins alike is on both. Beside accuracy stand: how
often the longer or the shorter answer is the better one, on the held-out pairs and, as a rule learnt from the training pairs, always
choosing the direction that won there (`majority_length`); and a logistic regression on which words only one of the two answers has
(`bag_of_words`).
"""

import argparse
import gzip
import hashlib
import json
import random
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import arguments, finish, limits
from mygpt.align.model_reward import ModelReward
from mygpt.align.reward_ensemble import RewardEnsemble
from mygpt.align.reward_model import RewardModelConfig, reward_model
from mygpt.align.reward_quality import quality, share
from mygpt.align.reward_report import scored_rows
from mygpt.align.rewards import NamedReward
from mygpt.align.word_reward import difference, word_weights
from mygpt.artifacts.dataset import Conversation, Dataset, Message, Preference, preference_facts, write_preferences
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.cli.options import progress_view
from mygpt.core.config import Config
from mygpt.core.home import model_cache
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.sources import obtain
from mygpt.metrics.bootstrap import bootstrap_mean, paired_bootstrap
from mygpt.metrics.roc_auc import roc_auc

GRADED = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
_TURN = re.compile(r"\n\n(Human|Assistant): ?")
_HELD_OUT = 5  # one prompt in so many


class SplitConfig(Config):
    longest_characters: int  # of a prompt with an answer: longer pairs are left out, counted
    most_prompts: int = 0  # learnt; 0: all
    most_asked: int = 0


# -- the files ---------------------------------------------------------------------------------------------------------------


def harmless(file: Path) -> list[Preference]:
    """Dialogues of hh-rlhf that differ in their last turn only."""
    found = []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            chosen, rejected = turns(row["chosen"]), turns(row["rejected"])
            if chosen[:-1] == rejected[:-1] and chosen and chosen[-1].role == rejected[-1].role == "assistant":
                found.append(Preference(tuple(chosen[:-1]), chosen[-1].content, rejected[-1].content, f"hh-{number}"))
    return found


def turns(dialogue: str) -> list[Message]:
    """`"\\n\\nHuman: Hi\\n\\nAssistant: Hello"` -> two messages. Two turns of one speaker are one message."""
    parts = _TURN.split(dialogue)[1:]
    found: list[Message] = []
    for speaker, text in zip(parts[::2], parts[1::2], strict=True):
        role: Any = {"Human": "user", "Assistant": "assistant"}[speaker]
        if found and found[-1].role == role:
            found[-1] = Message(role, f"{found[-1].content}\n\n{text.strip()}")
        else:
            found.append(Message(role, text.strip()))
    return found


def gsm8k(file: Path) -> list[Preference]:
    """Every right solution against every wrong one of its problem; calculator notes <<...>> are taken out."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        by_grade: dict[bool, list[str]] = {True: [], False: []}
        for name in GRADED:
            text = re.sub(r"<<[^>]*>>", "", row[name]["solution"]).strip()
            if text not in by_grade[row[name]["is_correct"]]:
                by_grade[row[name]["is_correct"]].append(text)
        prompt = (Message("user", row["question"]),)
        for i, right in enumerate(by_grade[True]):
            found += [Preference(prompt, right, wrong, f"gsm-{number}-{i}-{j}") for j, wrong in enumerate(by_grade[False])]
    return found


SETS: dict[str, tuple[str, Callable[[Path], list[Preference]]]] = {
    "harmless": ("hh_rlhf_harmless.jsonl.gz", harmless),
    "gsm8k": ("gsm8k_model_solutions.jsonl", gsm8k),
}


@recipe
def split_pairs(config: SplitConfig, *, source: Path, run: Run) -> Dataset:
    """Four of five prompts in `train`, the others in `test`, by the digest of the first question."""
    read = next(reader for name, reader in SETS.values() if source.name == name)
    rows = [row for row in read(source) if row.chosen.strip() and row.rejected.strip() and row.chosen.strip() != row.rejected.strip()]
    kept = [row for row in rows if characters(row) <= config.longest_characters]
    splits: dict[str, list[Preference]] = {"train": [], "test": []}
    for row in kept:
        digest = int(hashlib.sha256(row.prompt[0].content.encode()).hexdigest(), 16)
        splits["test" if digest % _HELD_OUT == 0 else "train"].append(row)
    for name, most in (("train", config.most_prompts), ("test", config.most_asked)):
        allowed = list(dict.fromkeys(row.prompt for row in splits[name]))[: most or None]
        splits[name] = [row for row in splits[name] if row.prompt in set(allowed)]
    facts = {**preference_facts(splits), "left_out": len(rows) - len(kept)}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=facts)


def one_a_prompt(rows: Sequence[Preference]) -> list[Preference]:
    """Drawn, so that pairs are independent."""
    by_prompt: dict[tuple[Message, ...], list[Preference]] = defaultdict(list)
    for row in rows:
        by_prompt[row.prompt].append(row)
    draw = random.Random(0)
    return [draw.choice(own) for own in by_prompt.values()]


def characters(row: Preference) -> int:
    return sum(len(m.content) for m in row.prompt) + max(len(row.chosen), len(row.rejected))


# -- what is measured --------------------------------------------------------------------------------------------------------


class Setting(Config):
    """What two quiet cores learn in about 10 minutes each."""

    split: SplitConfig
    train: RewardModelConfig


SETTINGS = {
    "harmless": Setting(
        split=SplitConfig(longest_characters=1000),
        train=RewardModelConfig(method=LoRA(rank=16, alpha=32), learning_rate=5e-4, epochs=1, step_tokens=4096),
    ),
    "gsm8k": Setting(
        split=SplitConfig(longest_characters=1400),
        train=RewardModelConfig(  # a solution of symbols is longer in tokens than it looks
            method=LoRA(rank=16, alpha=32), learning_rate=5e-4, epochs=1, step_tokens=4096, drop_unusable=True
        ),
    ),
}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of the two files")
    parser.add_argument("--model", default="smollm2-135m-q4_1")
    parser.add_argument("--home", type=Path, default=model_cache().parent / "mygpt-benchmarks", help="where what was made is kept")
    parser.add_argument("--only", choices=[*SETS, ENSEMBLE])
    parser.add_argument("--quick", action="store_true", help="a few pairs: proves that it runs")
    options = parser.parse_args()
    with Run(options.home, name="reward_models", listeners=(progress_view(),)) as run:
        model = obtain(options.model, run=run)
        names = [options.only] if options.only else [*SETS, ENSEMBLE]
        figures = {name: ensemble(model, options) if name == ENSEMBLE else measured(name, model, options, run) for name in names}
    finish("reward_models", {"model": model.id, **figures}, options)


def measured(name: str, model: Model, options: argparse.Namespace, run: Run) -> dict[str, Any]:
    setting = SETTINGS[name]
    if options.quick:
        few = setting.split.model_copy(update={"most_prompts": 24, "most_asked": 12})
        setting = setting.model_copy(update={"split": few})
    with run.step(name):
        dataset = split_pairs(setting.split, source=options.data / SETS[name][0], run=run)
        made: Any = reward_model(setting.train, model=model, dataset=dataset, run=run)
        facts = made.manifest.facts
        first, last = (np.mean([loss for _, loss in part]) for part in (facts["curve"][:3], facts["curve"][-3:]))
        held_out = dataset.preferences("test")
        # What is stored is what is used: saved, opened again, and asked as PPO would ask it.
        reward = ModelReward(model, adapter=made) if isinstance(made, Adapter) else ModelReward(made)
        again = quality(scored_rows(held_out, reward))
    assert abs(again["accuracy"] - facts["held_out"]["accuracy"]) < 0.02, "the saved reward model is not the one that was measured"
    return {
        "settings": setting.model_dump(mode="json"),
        "rows": dataset.manifest.facts["rows"],
        "left_out": dataset.manifest.facts["left_out"],
        "held_out": rounded(facts["held_out"]),
        "learnt_from_words": baselines(dataset),
        "loss": {"first_three_steps": round(float(first), 4), "last_three_steps": round(float(last), 4)},
        "normalised": facts["normalised"],
        "tokens": facts["tokens"],
        "seconds": made.manifest.cost["seconds"],
        "tokens_per_second": facts["tokens_per_second"],
    }


# -- several as one ----------------------------------------------------------------------------------------------------------

ENSEMBLE, MEMBERS = "ensemble", 3
OF_MEMBERS = Setting(
    split=SplitConfig(longest_characters=700, most_prompts=320),
    train=RewardModelConfig(method=LoRA(rank=16, alpha=32), learning_rate=5e-4, epochs=1, step_tokens=2048, drop_unusable=True),
)


class PartConfig(Config):
    pass


@recipe
def part_of(config: PartConfig, *, dataset: Dataset, run: Run) -> Dataset:
    """One pair of each problem; of those to learn as many drawn as there are, with replacement, each kept once: 63 % of them."""
    train, test = (one_a_prompt(dataset.preferences(name)) for name in ("train", "test"))
    drawn = set(run.random("part").choices(range(len(train)), k=len(train)))
    splits = {"train": [train[i] for i in sorted(drawn)], "test": test}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits))


def ensemble(model: Model, options: argparse.Namespace) -> dict[str, Any]:
    few = OF_MEMBERS.split.model_copy(update={"most_prompts": 24, "most_asked": 12})
    setting = OF_MEMBERS.model_copy(update={"split": few}) if options.quick else OF_MEMBERS
    by_member, learnt, seconds = [], [], 0.0
    for seed in range(MEMBERS):
        with Run(options.home, name=f"member-{seed}", seed=seed, listeners=(progress_view(),)) as run:
            pairs = split_pairs(setting.split, source=options.data / SETS["gsm8k"][0], run=run)
            dataset = part_of(PartConfig(), dataset=pairs, run=run)
            made: Any = reward_model(setting.train, model=model, dataset=dataset, run=run)
        reward = ModelReward(model, adapter=made) if isinstance(made, Adapter) else ModelReward(made)
        held_out = dataset.preferences("test")
        prompts = [Conversation(row.prompt) for row in held_out for _ in range(2)]
        texts = [text for row in held_out for text in (row.chosen, row.rejected)]
        by_member.append(reward.each(prompts, [Answer(text) for text in texts]))
        learnt.append(dataset.manifest.facts["rows"]["train"])
        seconds += made.manifest.cost["seconds"]
    figures = {"settings": setting.model_dump(mode="json"), "learnt": learnt, "seconds": round(seconds, 1)}
    return {**figures, **of_members(by_member, prompts, texts)}


def of_members(by_member: Sequence[Sequence[float]], prompts: Sequence[Conversation], texts: Sequence[str]) -> dict[str, Any]:
    """Of answers, the preferred one of each pair before the other, and the rewards that each member gave them."""
    places = {(prompt.prompt, text): i for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True))}
    members = [NamedReward(str(m), lambda p, a, own=own: own[places[p.prompt, a.text]]) for m, own in enumerate(by_member)]
    both = RewardEnsemble(members).means_and_stds(prompts, [Answer(text) for text in texts])
    assert any(std > 0 for _, std in both), "the members are all one"
    joined = {"mean": [mean for mean, _ in both], "lower_bound": [mean - std for mean, std in both]}
    right, alone = {name: hits(own) for name, own in joined.items()}, [hits(own) for own in by_member]
    single = [statistics.fmean(column) for column in zip(*alone, strict=True)]
    found: dict[str, Any] = {"pairs": len(single), "members": [round(statistics.fmean(own), 4) for own in alone]}
    found["one_alone"] = limits(bootstrap_mean(single))
    for name, own in right.items():
        found[name] = {**limits(bootstrap_mean(own)), "over_one_alone": limits(paired_bootstrap(own, single))}
    return {**found, **told_apart(by_member)}


def hits(rewards: Sequence[float]) -> list[float]:
    """1 for each pair whose first answer has the higher reward."""
    return [float(a > b) for a, b in zip(rewards[::2], rewards[1::2], strict=True)]


def told_apart(by_member: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How well each sign of doubt finds the pairs that the mean has wrong: 0.5 is not at all; None where all are right, or all wrong."""
    gaps = [[a - b for a, b in zip(own[::2], own[1::2], strict=True)] for own in by_member]
    by_pair = list(zip(*gaps, strict=True))
    wrong = [statistics.fmean(own) <= 0 for own in by_pair]
    doubts = {
        "disagreement": [statistics.pstdev(own) for own in by_pair],
        "small_difference": [-abs(statistics.fmean(own)) for own in by_pair],
    }
    found: dict[str, Any] = {"mean_has_wrong": sum(wrong)}
    for name, values in doubts.items():
        parted = [[value for value, is_wrong in zip(values, wrong, strict=True) if is_wrong is kind] for kind in (True, False)]
        found[f"{name}_finds_wrong"] = limits(roc_auc(*parted)) if all(parted) else None
    return found


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


# -- baselines that learn from the training pairs -----------------------------------------------------------------------------


def baselines(dataset: Dataset) -> dict[str, Any]:
    """Share right on held-out pairs, with intervals: the majority's direction in length, and words alone."""
    train, test = dataset.preferences("train"), dataset.preferences("test")
    prompts = [json.dumps([m.content for m in row.prompt]) for row in test]
    longer_won = sum(np.sign(len(row.chosen) - len(row.rejected)) for row in train)
    direction = 1 if longer_won > 0 else -1
    hits = [direction * (len(row.chosen) - len(row.rejected)) > 0 for row in test]
    weights = word_weights(train)
    worth = [sum(weights.get(word, 0.0) * n for word, n in difference(row).items()) for row in test]
    found = {"majority_length": share(hits, prompts, 0), "bag_of_words": share([value > 0 for value in worth], prompts, 0)}
    shown = {name: [round(one.estimate, 4), round(one.low, 4), round(one.high, 4)] for name, one in found.items()}
    return {**shown, "majority": "longer" if direction > 0 else "shorter"}


if __name__ == "__main__":
    main()
