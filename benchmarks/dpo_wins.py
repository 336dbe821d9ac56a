"""DPO on a preference that a rule decides: how often the tuned model's answer beats the start's, on held-out requests.

    python -m benchmarks.dpo_wins --json --keep              (about 8 minutes on two quiet cores)

SmolLM2-135M is asked to say in one sentence what a paragraph is about. The rule gives a point each to an answer that is a single sentence,
has 8 to 30 words, and names three words of the paragraph, and none to one that does not come to its end. The model draws answers itself
(`mygpt align candidates`); of a request's answers the best against the worst makes a pair, and DPO learns those. Held-out requests are then
answered by both, once each with the same seed. `win_rate`: more points win, equal ones count half, with a 95 % interval over requests;
`points` of both with their paired difference. The third point keeps emptiness from winning; `words` shows whether only length moved.
"""

import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.large import paragraphs
from benchmarks.record import arguments, finish
from mygpt.align.candidates import CandidatesConfig, candidates
from mygpt.align.dpo import DPOConfig, dpo
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
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.sources import obtain
from mygpt.metrics.bootstrap import bootstrap_mean, paired_bootstrap

_REQUEST = "Say in one sentence what this text is about.\n\n"
_FEWEST_WORDS, _MOST_WORDS, _NAMED = 8, 30, 3
_LONGEST = 64  # tokens of an answer
_SENTENCE_END = re.compile(r"[.!?]+[\"')]*(?=\s|$)")
_WORD = re.compile(r"[a-z]{5,}")


class RequestsConfig(Config):
    train: int
    test: int


@recipe
def requests(config: RequestsConfig, *, texts: Path, run: Run) -> Dataset:
    """Requests over different paragraphs of 40 to 120 words, drawn."""
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
        graded = [points(request, text) for text in texts]
        best, worst = max(graded), min(graded)
        if best > worst:
            chosen, rejected = texts[graded.index(best)], texts[graded.index(worst)]
            rows.append(Preference((Message("user", request),), chosen, rejected, row["item_id"], best - worst, "rule"))
    splits = {"train": rows}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits))


def points(request: str, text: str) -> int:
    """0 to 3, of an answer that came to its end."""
    words, named = len(text.split()), set(_WORD.findall(text.lower())) & set(_WORD.findall(request.removeprefix(_REQUEST).lower()))
    is_sentence = len(_SENTENCE_END.findall(text)) == 1 and "\n" not in text
    return int(is_sentence) + int(_FEWEST_WORDS <= words <= _MOST_WORDS) + int(len(named) >= _NAMED)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--requests", type=int, default=240, help="whose answers are compared and learnt")
    parser.add_argument("--items", type=int, default=200, help="held-out requests")
    parser.add_argument("--answers", type=int, default=6, help="drawn for a request")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, Run(Path(home), name="benchmark", listeners=(progress_view(),)) as run:
        base = obtain(options.model, run=run)
        asked = requests(RequestsConfig(train=options.requests, test=options.items), texts=options.texts, run=run)
        drawing = CandidatesConfig(temperatures=(1.0,), samples=options.answers, answers_per_prompt=options.answers, max_tokens=_LONGEST)
        drawn = candidates(drawing, prompts=asked, completers=(TorchEngine(base),), run=run)
        pairs = best_and_worst(PairsConfig(), answers=drawn, run=run)
        started = time.time()
        tuned = dpo(DPOConfig(epochs=options.epochs), model=base, dataset=pairs, run=run)
        seconds = time.time() - started
        before, after = answered(base, asked), answered(tuned, asked)
    texts = [row.messages[0].content for row in asked.split("test")]
    graded = [[graded_answer(t, a) for t, a in zip(texts, side, strict=True)] for side in (before, after)]
    won = bootstrap_mean([1.0 if b > a else 0.5 if b == a else 0.0 for a, b in zip(*graded, strict=True)])
    gain = paired_bootstrap(graded[1], graded[0])
    figures: dict[str, Any] = {"model": base.id, "requests": options.requests, "pairs": pairs.manifest.facts["rows"]["train"]}
    figures |= {"items": len(texts), "epochs": options.epochs, "seconds_of_dpo": round(seconds), "threads": torch.get_num_threads()}
    figures |= {"win_rate": round(won.estimate, 4), "win_rate_interval": [round(won.low, 4), round(won.high, 4)]}
    figures |= {"points": [round(fmean(side), 3) for side in graded]}
    figures |= {"gain": round(gain.estimate, 3), "gain_interval": [round(gain.low, 3), round(gain.high, 3)]}
    figures |= {"finished": [share([a.finish_reason != "length" for a in side]) for side in (before, after)]}
    figures |= {"words": [round(fmean(len(a.text.split()) for a in side), 1) for side in (before, after)]}
    figures |= {"examples": [{"before": before[i].text, "after": after[i].text} for i in range(3)]}
    sys.stderr.write(f"{figures}\n")
    finish("dpo_wins", figures, options)


def answered(model: Model | Adapter, asked: Dataset) -> list[Answer]:
    prompts = [Conversation(row.prompt, row.id) for row in asked.split("test")]
    return TorchEngine(model).complete(prompts, Sampling(max_tokens=_LONGEST, temperature=0.7, seed=1))


def graded_answer(request: str, answer: Answer) -> int:
    return 0 if answer.finish_reason == "length" else points(request, answer.text.strip())


def share(of: Sequence[bool]) -> float:
    return round(fmean(of), 3)


if __name__ == "__main__":
    main()
