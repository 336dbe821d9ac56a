"""Freezing against full fine-tuning with few labels: a classifier of three kinds of tweets, from 32, 128 and 512 labelled ones.

The base carries a new head (`AutoModelForSequenceClassification`); it moves with every weight, or with the last two layers alone, at its
method's rate, for as many passes over the same rows. Every class is equally frequent in what is learnt and in what is asked, so that a
guess is right once in three times. Three draws of the labelled rows.
"""

import csv
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.claim import FAILS, HOLDS, OPEN, Setting, limits, spread_of, told
from mygpt.core.errors import UsageError
from mygpt.core.outbound import silence_hub
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.load import load_tokenizer, preferred_dtype
from mygpt.metrics.bootstrap import bootstrap_mean
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.schedules import warmup_cosine

_EPOCHS, _ROWS, _LONGEST = 3, 8, 64  # passes, rows of an update, tokens of a text
_CLASSES = 3


@dataclass(frozen=True)
class Labelled:
    text: str
    label: int


def freeze_labels(setting: Setting) -> dict[str, Any]:
    sizes, seeds = ((32, 128, 512), 3) if not setting.quick else ((6,), 1)
    rows = balanced(labelled_rows(setting.labelled))
    asked = rows[: setting.few(300, 12)]
    made = {}
    for number in sizes:
        right: dict[str, list[list[float]]] = {"freeze": [], "full": []}
        for seed in range(seeds):
            learnt = random.Random(seed).sample(rows[len(asked) :], number)
            for name, method in (("freeze", Freeze(num_layers=setting.few(2, 1))), ("full", Full())):
                module, tokenizer = learn(setting, method, learnt, seed)
                right[name].append(
                    [float(guess == row.label) for guess, row in zip(labels_of(module, tokenizer, asked), asked, strict=True)]
                )
        mean = {name: [sum(of_item) / seeds for of_item in zip(*own, strict=True)] for name, own in right.items()}
        differences = [a - b for a, b in zip(mean["freeze"], mean["full"], strict=True)]
        shares = {name: spread_of([sum(one) / len(one) for one in own]) for name, own in right.items()}
        made[str(number)] = {**shares, "freeze_over_full": limits(bootstrap_mean(differences))}
    least, most = made[str(sizes[0])]["freeze_over_full"], made[str(sizes[-1])]["freeze_over_full"]
    listed = "; ".join(f"{number} labels {told(shown['freeze_over_full'])}" for number, shown in made.items())
    return {
        "claim": "With few labels the last layers alone do as well as every weight; with many they fall behind.",
        "found": HOLDS if least["high"] >= 0 and most["high"] < 0 else FAILS if least["high"] < 0 or most["low"] > 0 else OPEN,
        "said": f"Share right, last two layers minus every weight, mean of {seeds} draws: {listed}.",
        "n": len(asked),
        "seeds": seeds,
        "chance": round(1 / _CLASSES, 4),
        "epochs": _EPOCHS,
        "labels": made,
    }


def labelled_rows(file: Path) -> list[Labelled]:
    if not file.is_file():
        raise UsageError(
            f"There is no file {file} of labelled texts.", fix="Give a CSV with the columns `class` and `tweet` by `--labelled`."
        )
    with file.open(encoding="utf-8", newline="") as opened:
        return [Labelled(row["tweet"], int(row["class"])) for row in csv.DictReader(opened)]


def balanced(rows: Sequence[Labelled]) -> list[Labelled]:
    """As many of every class as the rarest has, in turn: the first n of them are balanced too."""
    by_class = [[row for row in rows if row.label == label] for label in range(_CLASSES)]
    for own in by_class:
        random.Random(0).shuffle(own)
    return [row for together in zip(*by_class, strict=False) for row in together]


def learn(setting: Setting, method: methods.Method, rows: Sequence[Labelled], seed: int) -> tuple[Any, Any]:
    """The plain loop: cross-entropy of the label, AdamW with float32 masters."""
    silence_hub()
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    tokenizer = load_tokenizer(setting.model)
    module: Any = AutoModelForSequenceClassification.from_pretrained(
        setting.model.payload, num_labels=_CLASSES, dtype=preferred_dtype(), local_files_only=True, trust_remote_code=False
    )
    module.config.pad_token_id = tokenizer.pad_token_id
    module = methods.attach(module, method, tokenizer=tokenizer).eval()
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    optimizer = MasterAdamW(trainable, learning_rate=method.learning_rate, weight_decay=0.0, betas=(0.9, 0.999))
    order, steps = random.Random(seed), [range(i, min(i + _ROWS, len(rows))) for i in range(0, len(rows), _ROWS)]
    for step in range(_EPOCHS * len(steps)):
        if step % len(steps) == 0:
            shuffled = order.sample(list(rows), len(rows))
        batch = [shuffled[i] for i in steps[step % len(steps)]]
        loss = F.cross_entropy(logits_of(module, tokenizer, batch), torch.tensor([row.label for row in batch]))
        loss.backward()
        factor = warmup_cosine(step, num_steps=_EPOCHS * len(steps), warmup_share=0.1, final_share=0.1)
        optimizer.update(learning_rate=method.learning_rate * factor, max_grad_norm=1.0)
    return module, tokenizer


@torch.no_grad()
def labels_of(module: Any, tokenizer: Any, rows: Sequence[Labelled]) -> list[int]:
    found: list[int] = []
    for start in range(0, len(rows), 32):
        found += logits_of(module, tokenizer, rows[start : start + 32]).argmax(-1).tolist()
    return found


def logits_of(module: Any, tokenizer: Any, rows: Sequence[Labelled]) -> torch.Tensor:
    texts = [row.text for row in rows]
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt", padding_side="right")
    logits_BL: torch.Tensor = module(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return logits_BL.float()
