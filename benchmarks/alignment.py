"""Every technique of alignment on one preference that a rule decides, for the same number of graded answers.

    python -m benchmarks.alignment --json --keep             (about an hour on two quiet cores; goes on where it was stopped)
    python -m benchmarks.alignment --only dpo --only grpo    (these alone, beside the base)

SmolLM2-135M is asked to say in one sentence what a paragraph is about. The rule gives a point each to an answer that is a single sentence,
has 8 to 30 words, and names three words of the paragraph; none to one that does not come to its end. 1,024 answers of the model are graded
for each technique, all drawn from 128 requests: eight to a request before the training (the best against the worst makes a pair, the best
alone an example), or in 16 rollouts of 64 during it. Held-out requests are then answered by all, once each with the same seed.

win_rate    more points than the base's answer, equal ones half, with a 95 % interval over requests
points      0 to 3, with the paired difference from the base; `words` shows whether only the length moved
hhh         the card of `mygpt evaluate hhh`: what else it moved, against the base, Holm-corrected over all of the card

Not on the card: the best of 4, since the card asks greedily but for continuations, and four greedy answers are the base's one. Neither in
the table nor on the card is what cannot learn from 1,024 graded answers to these requests; where each is measured instead:

constitutional AI           its critiques by `critique_and_revision.py`, its labels by `ai_labels.py`, the whole by `mygpt constitutional`
implicit Q-learning         on walks through graphs, which no card fits: `ilql.py`
detoxification              `detoxify.py`, by two classifiers of toxicity and perplexity
reward model, then PPO      `mygpt aligned`, by a judge apart and the general check
"""

import gc
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.large import paragraphs
from benchmarks.record import arguments, finish, limits
from mygpt.align.best_of_n import BestOfN
from mygpt.align.candidates import CandidatesConfig, candidates
from mygpt.align.dpo import DPOConfig, dpo
from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.kto import KTOConfig, kto
from mygpt.align.orpo import ORPOConfig, orpo
from mygpt.align.pair_losses import IPO, Hinge, Robust
from mygpt.align.ppo import PPOConfig, ppo
from mygpt.align.reinforce import ReinforceConfig, Whitened, reinforce
from mygpt.align.rejection_sampling import RejectionSamplingConfig, rejection_sampling
from mygpt.align.rewards import NamedReward
from mygpt.align.rloo import RLOOConfig, rloo
from mygpt.align.simpo import CPO, SimPOConfig, simpo
from mygpt.artifacts.dataset import (
    Conversation,
    Dataset,
    Message,
    Preference,
    conversation_facts,
    preference_facts,
    write_conversations,
    write_preferences,
)
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions
from mygpt.cli.options import progress_view
from mygpt.core.config import Config
from mygpt.core.home import model_cache
from mygpt.core.run import Run
from mygpt.evaluate.hhh import HHHConfig, hhh
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.protocols import Answer, Completer, Sampling
from mygpt.infer.torch_embedder import TorchEmbedder
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.memory import give_back_freed_memory
from mygpt.lm.sources import obtain
from mygpt.metrics.bootstrap import bootstrap_mean, paired_bootstrap

_REQUEST = "Say in one sentence what this text is about.\n\n"
_FEWEST_WORDS, _MOST_WORDS, _NAMED = 8, 30, 3
_SENTENCE_END = re.compile(r"[.!?]+[\"')]*(?=\s|$)")
_WORD = re.compile(r"[a-z]{5,}")
BASE = "base"


class Budget(Config):
    requests: int = 128  # whose answers are graded
    samples: int = 8  # of each
    rollouts: int = 16
    items: int = 128  # held out
    longest: int = 64  # tokens of an answer
    card: bool = True  # the axes of `hhh` too

    @property
    def answers(self) -> int:
        """Of one rollout."""
        return self.requests * self.samples // self.rollouts


QUICK = Budget(requests=16, items=8, longest=48, card=False)


# -- the rule ----------------------------------------------------------------------------------------------------------------


def points(request: str, text: str) -> int:
    """0 to 3, of an answer that came to its end."""
    words, named = len(text.split()), set(_WORD.findall(text.lower())) & set(_WORD.findall(request.removeprefix(_REQUEST).lower()))
    is_sentence = len(_SENTENCE_END.findall(text)) == 1 and "\n" not in text
    return int(is_sentence) + int(_FEWEST_WORDS <= words <= _MOST_WORDS) + int(len(named) >= _NAMED)


def graded(prompt: Conversation, answer: Answer) -> float:
    return 0.0 if answer.finish_reason == "length" else float(points(prompt.question, answer.text.strip()))


RULE = NamedReward("one sentence of 8 to 30 words that names three of the text", graded)


class RequestsConfig(Config):
    train: int
    test: int


@recipe
def requests(config: RequestsConfig, *, texts: Path, run: Run) -> Dataset:
    """Requests about different paragraphs of 40 to 120 words, drawn."""
    pool = sorted({one for one in paragraphs(texts) if 40 <= len(one.split()) <= 120})
    drawn = random.Random(0).sample(pool, config.train + config.test)
    rows = [Conversation((Message("user", _REQUEST + text),), f"text-{n}") for n, text in enumerate(drawn)]
    splits = {"train": rows[: config.train], "test": rows[config.train :]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


class PairsConfig(Config):
    pass


@recipe
def best_and_worst(config: PairsConfig, *, answers: Predictions, run: Run) -> Dataset:
    """A pair for each request whose answers differ in points; among equals the first stands for them."""
    rows = []
    for row in answers.rows:
        request, texts = row["messages"][0]["content"], [one["text"] for one in row["answers"]]
        worth = [points(request, text) for text in texts]
        best, worst = max(worth), min(worth)
        if best > worst:
            chosen, rejected = texts[worth.index(best)], texts[worth.index(worst)]
            rows.append(Preference((Message("user", request),), chosen, rejected, row["item_id"], best - worst, "rule"))
    splits = {"train": rows}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits))


# -- the techniques ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """What a technique begins with."""

    model: Model
    asked: Dataset
    pairs: Dataset
    budget: Budget
    run: Run

    def own(self) -> dict[str, Any]:
        return {"model": self.model, "dataset": self.asked, "reward": RULE, "run": self.run}

    def paired(self) -> dict[str, Any]:
        return {"model": self.model, "dataset": self.pairs, "run": self.run}

    def rolled(self, samples: int) -> dict[str, Any]:
        """`rollouts` of as many answers each, whatever a request is given at a time."""
        prompts = self.budget.answers // samples
        epochs = self.budget.rollouts * prompts // self.budget.requests
        return {"prompts_per_rollout": prompts, "samples": samples, "epochs": epochs, "max_answer_tokens": self.budget.longest, **_ONLINE}


_PAIRED: dict[str, Any] = {"learning_rate": 2e-4, "epochs": 3, "drop_unusable": True}
_ONLINE: dict[str, Any] = {"learning_rate": 3e-4, "warmup_share": 0.0}


def _best_alone(given: Given) -> Adapter | Model:
    drawing = RejectionSamplingConfig(samples=given.budget.samples, max_answer_tokens=given.budget.longest)
    engine = TorchEngine(given.model, run=given.run)
    rows = rejection_sampling(drawing, completer=engine, dataset=given.asked, reward=RULE, run=given.run)
    made: Adapter | Model = sft(SFTConfig(epochs=2), model=given.model, dataset=rows, run=given.run)
    return made


def _ppo(given: Given) -> Adapter | Model:
    size = {"rollouts": given.budget.rollouts, "answers": given.budget.answers, "max_answer_tokens": given.budget.longest}
    return ppo(PPOConfig(**size, **_ONLINE), **given.own())


TECHNIQUES: Mapping[str, Callable[[Given], Adapter | Model]] = {
    "rejection_sampling": _best_alone,
    "dpo": lambda given: dpo(DPOConfig(**_PAIRED), **given.paired()),
    "dpo_robust": lambda given: dpo(DPOConfig(loss=Robust(), **_PAIRED), **given.paired()),
    "dpo_hinge": lambda given: dpo(DPOConfig(loss=Hinge(), **_PAIRED), **given.paired()),
    "ipo": lambda given: dpo(DPOConfig(loss=IPO(), **_PAIRED), **given.paired()),
    "kto": lambda given: kto(KTOConfig(**_PAIRED), **given.paired()),
    "orpo": lambda given: orpo(ORPOConfig(**_PAIRED), **given.paired()),
    "simpo": lambda given: simpo(SimPOConfig(**_PAIRED), **given.paired()),
    "cpo": lambda given: simpo(SimPOConfig(loss=CPO(), **_PAIRED), **given.paired()),
    "grpo": lambda given: grpo(GRPOConfig(**given.rolled(8)), **given.own()),
    "rloo": lambda given: rloo(RLOOConfig(**given.rolled(4)), **given.own()),
    "reinforce": lambda given: reinforce(ReinforceConfig(**given.rolled(1)), **given.own()),
    "reinforce_whitened": lambda given: reinforce(ReinforceConfig(baseline=Whitened(), **given.rolled(1)), **given.own()),
    "ppo": _ppo,
}
BEST_OF = "best_of_4"  # moves no weight: the rule chooses at every question


# -- what came out -----------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--home", type=Path, default=model_cache().parent / "mygpt-benchmarks", help="where what was measured is kept")
    parser.add_argument("--only", action="append", choices=list(TECHNIQUES), help="this technique; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a few items: proves that it runs")
    options = parser.parse_args()
    if options.only and options.keep:
        parser.error("`--keep` is for all techniques: leave `--only` out (what was measured is not measured again)")
    with Run(options.home, name="alignment", listeners=(progress_view(),)) as run:
        model = obtain(options.model, run=run)
        budget = QUICK if options.quick else Budget()
        figures = measured(run, options.only or list(TECHNIQUES), model=model, texts=options.texts, budget=budget)
    finish("alignment", figures, options)


def measured(run: Run, names: Sequence[str], *, model: Model, texts: Path, budget: Budget) -> dict[str, Any]:
    asked = requests(RequestsConfig(train=budget.requests, test=budget.items), texts=texts, run=run)
    drawing = {"samples": budget.samples, "answers_per_prompt": budget.samples, "max_tokens": budget.longest}
    base = TorchEngine(model, run=run)
    drawn = candidates(CandidatesConfig(temperatures=(1.0,), **drawing), prompts=asked, completers=(base,), run=run)
    given = Given(model, asked, best_and_worst(PairsConfig(), answers=drawn, run=run), budget, run)
    engines: dict[str, Completer] = {BASE: base}
    answers = {BASE: answered(base, asked, budget), BEST_OF: answered(BestOfN(base, RULE, n=4), asked, budget)}
    cost: dict[str, dict[str, Any]] = {}
    for name in names:
        with run.step(name):
            tuned = TECHNIQUES[name](given)
            engines[name] = TorchEngine(tuned, run=run) if isinstance(tuned, Model) else TorchEngine(model, adapter=tuned, run=run)
            answers[name] = answered(engines[name], asked, budget)
            cost[name] = {"seconds": tuned.manifest.cost.get("seconds")}
        gc.collect()
        give_back_freed_memory()
    prompts = asked.split("test")
    found = {name: {**outcome(prompts, answers[BASE], own), **cost.get(name, {})} for name, own in answers.items() if name != BASE}
    figures = {"model": model.id, "requests": budget.requests, "graded_answers": budget.requests * budget.samples}
    figures |= {"items": len(prompts), "pairs": given.pairs.manifest.facts["rows"]["train"], "threads": torch.get_num_threads()}
    figures |= {"base": of_one(prompts, answers[BASE]), "techniques": found}
    return {**figures, "hhh": card(engines, run)} if budget.card else figures


def answered(completer: Completer, asked: Dataset, budget: Budget) -> list[Answer]:
    return completer.complete(asked.split("test"), Sampling(max_tokens=budget.longest, temperature=0.7, seed=1))


def of_one(prompts: Sequence[Conversation], answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "points": round(fmean(map(graded, prompts, answers)), 3),
        "finished": round(fmean(a.finish_reason != "length" for a in answers), 3),
        "words": round(fmean(len(a.text.split()) for a in answers), 1),
        "examples": [a.text for a in answers[:2]],
    }


def outcome(prompts: Sequence[Conversation], before: Sequence[Answer], after: Sequence[Answer]) -> dict[str, Any]:
    was, now = ([graded(p, a) for p, a in zip(prompts, side, strict=True)] for side in (before, after))
    won = bootstrap_mean([1.0 if b > a else 0.5 if b == a else 0.0 for a, b in zip(was, now, strict=True)])
    return {"win_rate": limits(won), "gain": limits(paired_bootstrap(now, was)), **of_one(prompts, after)}


def card(engines: Mapping[str, Completer], run: Run) -> list[dict[str, Any]]:
    """Of each axis: the verdicts on every model, and the sentence that says what moved."""
    embedder = TorchEmbedder(obtain("minilm", run=run))
    made = hhh(HHHConfig(labels=tuple(engines), samples=1), completer=tuple(engines.values()), embedder=embedder, run=run)
    figures: list[dict[str, Any]] = made.figures["axes"]
    return figures


if __name__ == "__main__":
    main()
