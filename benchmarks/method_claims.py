"""What the field says about methods of tuning, measured here: each claim is one function, one row of the record, and may come out negative.

    python -m benchmarks.method_claims --json --keep             (about an hour and a half on two quiet cores; goes on where it was stopped)
    python -m benchmarks.method_claims --only merged_latency     (one of them; the others are taken from --home where they were measured)

A claim that was measured is kept in `--home` under its name and its settings and is not measured again; `--fresh` does.
"""

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import methods as side_by_side
from benchmarks.claim import FAILS, HOLDS, OPEN, Setting, told
from benchmarks.claim_labels import freeze_labels
from benchmarks.claim_prompts import (
    prompt_engineering,
    prompt_four_tasks,
    prompt_length,
    prompt_over_multi_task,
    prompt_sizes,
    prompt_tightness,
)
from benchmarks.claim_seq2seq import encoder_decoder
from benchmarks.methods import METHODS, add_inputs
from benchmarks.record import RESULTS, arguments, finish
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Adapter
from mygpt.cli.options import progress_view
from mygpt.core.digest import digest_value
from mygpt.core.run import Run
from mygpt.finetune.merge import MergeConfig, merge
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.load import load_lm
from mygpt.lm.sources import obtain

_NEAR = 0.02  # latency: equal within so much


def main() -> None:
    parser = arguments(__doc__ or "")
    add_inputs(parser)
    data = Path("../shared/data")
    parser.add_argument("--articles", type=Path, default=data / "wiki_demo.txt", help="plain text that our own bases read")
    parser.add_argument("--labelled", type=Path, default=data / "hate_speech_labeled.csv", help="CSV with the columns `class` and `tweet`")
    parser.add_argument("--table-to-text", type=Path, default=Path("examples/table_to_text"), help="folder with train.jsonl and test.jsonl")
    parser.add_argument("--only", action="append", choices=[*CLAIMS, *READ_OFF], help="this claim; may be repeated")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured")
    options = parser.parse_args()
    if options.only and options.keep:
        parser.error("`--keep` is for all claims: leave `--only` out (what was measured is not measured again)")
    with Run(options.home, name="claims", listeners=(progress_view(),)) as run:
        model = obtain(options.model, run=run)
        files = {name: getattr(options, name) for name in ("texts", "articles", "labelled", "table_to_text")}
        setting = Setting(run, model, **files, quick=options.quick)
        figures = {name: measured(name, setting, fresh=options.fresh) for name in options.only or (*CLAIMS, *READ_OFF)}
    found = [row["found"] for row in figures.values()]
    counts = {word: found.count(word) for word in (HOLDS, FAILS, OPEN)}
    finish("method_claims", {"model": model.id, "counts": counts, "claims": figures}, options)


def measured(name: str, setting: Setting, *, fresh: bool = False) -> dict[str, Any]:
    """From the home where it was measured with these settings; with the seconds that it took."""
    if name in READ_OFF:
        return READ_OFF[name](measured("prompt_sizes", setting)["sizes"])
    files = [str(file) for file in (setting.texts, setting.articles, setting.labelled, setting.table_to_text)]
    key = digest_value([name, setting.model.digest, setting.quick, files])
    file = setting.run.home / "claims" / f"{name}-{key[:12]}.json"
    if file.exists() and not fresh:
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    started = time.perf_counter()
    with setting.run.step(name):
        row = CLAIMS[name](setting)
    row = {**row, "seconds": round(time.perf_counter() - started, 1)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(row, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
    return row


# -- claims that need no base of our own ------------------------------------------------------------------------------------


def attention_only(setting: Setting) -> dict[str, Any]:
    """From the record of `benchmarks.methods` where it is of this model; else these two methods are run."""
    file = RESULTS / "methods.json"
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() and not setting.quick else {}
    if record.get("model") != setting.model.id:
        budget = side_by_side.QUICK if setting.quick else side_by_side.Budget()
        names = ["lora", "lora_attention"]
        record = side_by_side.measured(setting.run, names, model=setting.model, texts=setting.texts, budget=budget)
    attention = record["methods"]["lora_attention"]
    over = {task: attention[task]["over_lora"] for task in side_by_side.TEMPLATES}
    behind, ahead = any(i["high"] < 0 for i in over.values()), any(i["low"] > 0 for i in over.values())
    listed = "; ".join(f"{task} {told(i)}" for task, i in over.items())
    return {
        "claim": "LoRA on all linear layers learns more than on attention alone (Dettmers et al. 2023, section 4).",
        "found": HOLDS if behind and not ahead else FAILS if ahead and not behind else OPEN,
        "said": f"Attention only minus all linear layers, at the same rank: {listed}.",
        "n": {task: attention[task]["n"] for task in side_by_side.TEMPLATES},
        "seeds": 1,
        "over_all_linear": over,
    }


def trainable_share(setting: Setting) -> dict[str, Any]:
    """Exact: counted on the model."""
    whole = sum(p.numel() for p in load_lm(setting.model).module.parameters())
    shares = {}
    for name, (_, method) in METHODS.items():
        if methods.base_weights(method) == "nf4" or (isinstance(method, Freeze) and setting.quick and method.num_layers > 1):
            continue  # the same weights as LoRA; more layers than the smallest model has
        loaded = load_lm(setting.model)
        module = methods.attach(loaded.module, method, tokenizer=loaded.tokenizer)
        shares[name] = round(sum(p.numel() for p in module.parameters() if p.requires_grad) / whole, 6)
    small = {name: share for name, share in shares.items() if not isinstance(METHODS[name][1], (Full, Freeze))}
    most = max(small, key=lambda name: small[name])
    return {
        "claim": "Adapters, prompts and factors train under 5 % of the weights.",
        "found": HOLDS if small[most] < 0.05 else FAILS,
        "said": f"The largest share is that of {METHODS[most][0]}, {small[most]:.2%}; of {whole:,} weights.",
        "n": len(small),
        "shares": shares,
    }


def merged_latency(setting: Setting) -> dict[str, Any]:
    """Merged LoRA, LoRA beside its base, and the base write the same number of tokens, in turn, in changing order."""
    adapter = a_short_training(setting)
    merged: Any = merge(MergeConfig(), adapter=adapter, run=setting.run)
    engines = {"base": TorchEngine(setting.model), "merged": TorchEngine(merged), "unmerged": TorchEngine(setting.model, adapter=adapter)}
    length, rounds = setting.few(48, 4), setting.few(45, 3)
    sampling = Sampling(max_tokens=length, min_tokens=length)
    asked = [Conversation((Message("user", f"Tell me about ferry number {n}, please."),)) for n in range(setting.few(4, 2))]
    for engine in engines.values():
        engine.complete(asked, sampling)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds):
        for name in sorted(engines, key=lambda name: (list(engines).index(name) + turn) % len(engines)):
            started = time.perf_counter()
            answers = engines[name].complete(asked, sampling)
            seconds[name].append(time.perf_counter() - started)
            assert all(len(answer.token_ids) == length for answer in answers), "all write as much"
    ratios = {name: median_ratio(own, seconds["base"]) for name, own in seconds.items() if name != "base"}
    shown = ratios["merged"]
    outside = shown["low"] > 1 + _NEAR or shown["high"] < 1 - _NEAR
    inside = max(abs(shown["low"] - 1), abs(shown["high"] - 1)) <= _NEAR
    return {
        "claim": "A merged LoRA answers as fast as its base, within 2 % (Hu et al. 2021, section 4.1: no added latency).",
        "found": HOLDS if inside else FAILS if outside else OPEN,
        "said": f"Median ratio of times, merged {_ratio(shown)}, unmerged {_ratio(ratios['unmerged'])}; {rounds} rounds in changing order.",
        "n": rounds,
        "ratio": shown["estimate"],
        "ratios": ratios,
        "tokens_an_answer": length,
    }


def a_short_training(setting: Setting) -> Adapter:
    """That of `benchmarks.methods`, where it is in the home; a few steps in a quick run."""
    from benchmarks.claim_prompts import data_of, trained

    rows, _, _ = data_of(setting, setting.model)
    made = trained(setting, setting.model, LoRA(), rows, 1)
    assert isinstance(made, Adapter)
    return made


def median_ratio(after: list[float], before: list[float]) -> dict[str, float]:
    """Of times taken in the same round, with an interval over rounds."""
    ratios = torch.tensor([a / b for a, b in zip(after, before, strict=True)], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = ratios[torch.randint(len(ratios), (10_000, len(ratios)), generator=generator)].median(dim=1).values
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"estimate": round(statistics.median(ratios.tolist()), 4), "low": round(low, 4), "high": round(high, 4)}


def _ratio(shown: Mapping[str, float]) -> str:
    return f"{shown['estimate']:.3f} ({shown['low']:.3f} to {shown['high']:.3f})"


CLAIMS: Mapping[str, Callable[[Setting], dict[str, Any]]] = {
    "attention_only": attention_only,
    "trainable_share": trainable_share,
    "merged_latency": merged_latency,
    "prompt_sizes": prompt_sizes,
    "prompt_tightness": prompt_tightness,
    "freeze_labels": freeze_labels,
    "encoder_decoder": encoder_decoder,
}
READ_OFF: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {  # what `prompt_sizes` measured
    "prompt_over_multi_task": prompt_over_multi_task,
    "prompt_length": prompt_length,
    "prompt_four_tasks": prompt_four_tasks,
    "prompt_engineering": prompt_engineering,
}


if __name__ == "__main__":
    main()
