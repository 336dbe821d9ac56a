"""Prefix tuning and LoRA on an encoder-decoder that writes sentences from tables, against every weight and against the base as it is.

The base is a T5 shape of our own (`benchmarks/own_bases`) that learnt to fill in missing words; the table-to-text rows were written
for this project. What is compared is the cost of the right sentences of the test rows, in bits per byte, over three draws of the order and
of what the methods begin with.
"""

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.claim import FAILS, HOLDS, OPEN, Bits, Setting, limits, spread_of, told
from benchmarks.own_bases import OwnBaseConfig, own_base, seq2seq_batch
from mygpt.artifacts.model import Model
from mygpt.core.errors import UsageError
from mygpt.core.outbound import silence_hub
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.load import load_tokenizer
from mygpt.training.optimizers import MasterAdamW
from mygpt.training.schedules import warmup_cosine

_SHAPE = OwnBaseConfig(shape="t5", hidden_size=192, layers=3, tokens=2_500_000, row_tokens=128, batch_rows=32, learning_rate=1e-3)
_QUICK = OwnBaseConfig(shape="t5", vocabulary=384, hidden_size=32, layers=1, heads=2, tokens=30_000, batch_rows=8, row_tokens=64)
_LONGEST, _ROWS = 128, 8

Pair = tuple[str, str]


def encoder_decoder(setting: Setting) -> dict[str, Any]:
    learnt, asked = (table_rows(setting.table_to_text / f"{name}.jsonl") for name in ("train", "test"))
    model: Any = own_base(_QUICK if setting.quick else _SHAPE, articles=setting.articles, texts=setting.texts, run=setting.run)
    tried: dict[str, methods.Method] = {"lora": LoRA(), "prefix": Prefix(), "full": Full()}
    epochs, seeds = setting.few(12, 2), setting.few(3, 1)
    base = bits_of(opened(model), load_tokenizer(model), asked)
    found: dict[str, list[Bits]] = {name: [] for name in tried}
    trained = {}
    for name, method in tried.items():
        for seed in range(seeds):
            module, tokenizer = learn(model, method, learnt, epochs=epochs, seed=seed)
            found[name].append(bits_of(module, tokenizer, asked))
            trained[name] = sum(p.numel() for p in module.parameters() if p.requires_grad)
    mean = {
        name: Bits([sum(nats) / seeds for nats in zip(*(b.nats for b in own), strict=True)], base.num_bytes) for name, own in found.items()
    }
    shown = {
        name: {
            "trainable": trained[name],
            "bits_per_byte": spread_of([one.per_byte for one in own]),
            "over_base": limits(mean[name].over(base)),
            **({} if name == "full" else {"over_full": limits(mean[name].over(mean["full"]))}),
        }
        for name, own in found.items()
    }
    better = [shown[name]["over_base"]["high"] < 0 for name in ("lora", "prefix")]
    worse = [shown[name]["over_base"]["low"] > 0 for name in ("lora", "prefix")]
    listed = "; ".join(f"{name} {told(own['over_base'])}" for name, own in shown.items())
    return {
        "claim": "Prefix tuning and LoRA teach an encoder-decoder a small table-to-text set (Li and Liang 2021; Hu et al. 2021).",
        "found": HOLDS if all(better) else FAILS if any(worse) else OPEN,
        "said": f"Bits per byte of the right sentences against the base, {base.per_byte:.3f}: {listed}.",
        "n": len(asked),
        "seeds": seeds,
        "train_rows": len(learnt),
        "epochs": epochs,
        "base_bits_per_byte": round(base.per_byte, 4),
        "parameters": model.manifest.facts["parameters"],
        "methods": shown,
    }


def table_rows(file: Path) -> list[Pair]:
    """Raises UsageError where the file, or a row of it, is not what it should be."""
    if not file.is_file():
        fix = "Give a folder with train.jsonl and test.jsonl by `--table-to-text`: rows with the fields `prompt` and `answer`."
        raise UsageError(f"There is no file {file} of tables and their sentences.", fix=fix)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, row in enumerate(rows, start=1):
        if not (str(row.get("prompt", "")).strip() and str(row.get("answer", "")).strip()):
            raise UsageError(f"{file}, row {number} has no `prompt` with an `answer`.", fix="Write both as texts.")
    return [(str(row["prompt"]), str(row["answer"])) for row in rows]


def opened(model: Model) -> Any:
    silence_hub()
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(model.payload, dtype=torch.float32, local_files_only=True, trust_remote_code=False).eval()


def learn(model: Model, method: methods.Method, rows: Sequence[Pair], *, epochs: int, seed: int) -> tuple[Any, Any]:
    """The plain loop: cross-entropy of the sentence given its table, AdamW."""
    torch.manual_seed(seed)
    tokenizer = load_tokenizer(model)
    module = methods.attach(opened(model), method, tokenizer=tokenizer).eval()
    trainable = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    optimizer = MasterAdamW(trainable, learning_rate=method.learning_rate, weight_decay=0.0, betas=(0.9, 0.999))
    order, num_steps = random.Random(seed), epochs * math.ceil(len(rows) / _ROWS)
    step, losses = 0, []
    for _ in range(epochs):
        shuffled = order.sample(list(rows), len(rows))
        for start in range(0, len(rows), _ROWS):
            read, written = zip(*shuffled[start : start + _ROWS], strict=True)
            loss = seq2seq_batch(tokenizer, read, written, _LONGEST)[1](module)
            loss.backward()
            factor = warmup_cosine(step, num_steps=num_steps, warmup_share=0.1, final_share=0.1)
            optimizer.update(learning_rate=method.learning_rate * factor, max_grad_norm=1.0)
            losses.append(float(loss.detach()))
            step += 1
    return module, tokenizer


@torch.no_grad()
def bits_of(module: Any, tokenizer: Any, rows: Sequence[Pair]) -> Bits:
    """Of each sentence with its end token, given its table."""
    nats = []
    for read, written in rows:
        inputs = tokenizer(read, return_tensors="pt", truncation=True, max_length=_LONGEST)
        labels_1T = tokenizer(written, return_tensors="pt", truncation=True, max_length=_LONGEST)["input_ids"]
        logits_1TV = module(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels_1T).logits
        nats.append(float(F.cross_entropy(logits_1TV[0].float(), labels_1T[0], reduction="sum")))
    return Bits(nats, [len(written.encode()) for _, written in rows])
