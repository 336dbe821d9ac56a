"""Fine-tuning on a GPU against trl, on models of random weights that are made here: nothing is fetched, and no text is needed.

    python -m benchmarks.accelerator --only 1.2b-full --json --keep    Llama's 1.2B shape, every weight
    python -m benchmarks.accelerator --only 1.2b-lora --json --keep    the same shape, LoRA
    python -m benchmarks.accelerator --only 8b-lora --json --keep      Llama's 8B shape, LoRA
    python -m benchmarks.accelerator --only 8b-qlora --json --keep     the same, its base in four bits, paged moments
    python -m benchmarks.accelerator --quick --json                    the same path with a tiny shape, on a CPU too: proves no speed

Each of the four ends within `--seconds`; records of one machine gather in one file. Chats of made-up words, 60 to 900 of them, are packed:
ours into rows of `pack_tokens`, trl's into rows of 2,048, as many of them in a forward pass as ours has tokens. Both sides learn the same
tokens once, 16,384 in an update, with the same trained positions and learning rate; trl at each of its settings that may be its fastest
(`accelerator_trl_side`). `ratio`: real tokens/s against the fastest of all; `ratio_apart`: of those that keep examples apart, as ours does.

tokens/s is the median update's, the first four left out; a clock that waits for the device ends each update on both sides.
`share_of_limit` is against the fastest matrix product of this card, measured in the same process, `share_of_data_sheet` against its maker's
dense bfloat16 rate.
"""

import gc
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from benchmarks.own_bases import OwnBaseConfig, trained_tokenizer
from benchmarks.record import arguments, finish
from benchmarks.rivals import Rival, rival
from benchmarks.sft_vs_trl import RowsConfig, rows_of, say
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.finetune.rows import plan_of
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.chat import ChatRenderer, Rendered
from mygpt.lm.load import blueprint, load_tokenizer, preferred_device, preferred_dtype
from mygpt.training.flops import flops_of
from mygpt.training.machine import matmul_flops_per_second

_WARM_UP = 4  # updates that are not counted
_DATA_SHEET = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12}  # dense bfloat16, FLOP/s, of the SXM cards
_NEEDS = "torch sees no GPU here. One NVIDIA GPU of 80 GB is needed, 48 GB for `8b-qlora`; `--quick` runs a tiny shape on a CPU."
WORDS = ["".join(pair) for pair in zip("bdfgklmnprstvz" * 15, "aeiou" * 42, "lmnrstkp" * 27, "aeioua" * 35, strict=False)]


class Shape(Config):
    """Of a Llama."""

    hidden: int
    gate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool


SHAPES = {
    "1.2b": Shape(hidden=2048, gate=8192, layers=16, heads=32, kv_heads=8, vocabulary=128_256, tied=True),  # Llama 3.2
    "8b": Shape(hidden=4096, gate=14_336, layers=32, heads=32, kv_heads=8, vocabulary=128_256, tied=False),  # Llama 3.1
    "tiny": Shape(hidden=64, gate=128, layers=2, heads=4, kv_heads=2, vocabulary=768, tied=True),
}


@dataclass(frozen=True)
class Work:
    shape: str
    method: str  # full, lora or qlora
    pack_tokens: int  # of a forward pass
    updates: int
    update_tokens: int = 16_384
    row_tokens: int = 2_048  # of trl's rows, and the most of an example
    words: tuple[int, int] = (60, 900)  # of a chat
    compiled: bool = True

    @property
    def name(self) -> str:
        return f"{self.shape}_{self.method}"

    @property
    def learning_rate(self) -> float:
        return 1e-4 if self.method == "full" else 5e-4


PARTS = {
    "1.2b-full": (Work("1.2b", "full", 16_384, 24),),
    "1.2b-lora": (Work("1.2b", "lora", 16_384, 24),),
    "8b-lora": (Work("8b", "lora", 4_096, 12),),
    "8b-qlora": (Work("8b", "qlora", 4_096, 12),),
}
_TINY: dict[str, Any] = {"pack_tokens": 512, "updates": 8, "update_tokens": 1_024, "row_tokens": 256, "words": (8, 100)}
QUICK = tuple(Work("tiny", method, **_TINY) for method in ("full", "lora", "qlora"))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--only", choices=PARTS, help="a part that fits into ten minutes; without it all, one after another")
    parser.add_argument("--quick", action="store_true", help="a tiny shape, on whatever device is here")
    parser.add_argument("--seconds", type=float, default=540, help="of a part: what is left of them after ours is trl's")
    parser.add_argument("--alone", action="store_true", help="leave trl out")
    options = parser.parse_args()
    if not (options.quick or torch.cuda.is_available()):
        parser.error(_NEEDS)
    parts = {"quick": QUICK} if options.quick else {options.only: PARTS[options.only]} if options.only else PARTS
    options.keep = options.keep and not options.quick  # no speed of a tiny shape is worth it
    figures = earlier("accelerator", {work.name for works in PARTS.values() for work in works}) if options.keep else {}
    for works in parts.values():
        ends = time.monotonic() + options.seconds
        with tempfile.TemporaryDirectory() as home:
            for number, work in enumerate(works):
                left = (ends - time.monotonic()) / (len(works) - number)
                figures[work.name] = compared(work, Path(home), seconds=left, alone=options.alone)
    finish("accelerator", figures, options)


def earlier(benchmark: str, names: Set[str]) -> dict[str, Any]:
    """What other calls measured on the same kind of machine with the same versions."""
    file = record.RESULTS / f"{benchmark}.json"
    if not file.is_file():
        return {}
    kept = json.loads(file.read_text(encoding="utf-8"))
    same = kept["machine"]["gpu"] == record.gpu() and kept["versions"] == record.versions()
    return {key: value for key, value in kept.items() if key in names} if same else {}


def compared(work: Work, home: Path, *, seconds: float, alone: bool) -> dict[str, Any]:
    ends = time.monotonic() + seconds
    with Run(home, name="accelerator") as run:
        model = random_llama(SHAPES[work.shape], run=run)
    give_back()
    rendered, rows = chats(work, ChatRenderer(load_tokenizer(model)))
    ours = own(work, model, rows, rendered, home)
    say(f"{work.name}: {ours['tokens_per_second']:.0f} tokens/s, {ours['share_of_limit']:.0%} of the limit")
    tokens = sum(len(r.token_ids) for r in rendered)
    figures = {**asdict(work), "commit": record.commit(), "device": device_name(), "tokens": tokens, **ours}
    if alone:
        return figures
    tried = theirs(work, model, rendered, home, seconds=ends - time.monotonic())
    done = {name: one for name, one in tried.items() if "failed" not in one}
    figures |= {"trl": tried, "trl_versions": trl_versions(), "ratio": None}
    if not done:
        say(f"{work.name}: trl ran at none of its settings, so there is no ratio")
        return figures
    for name, one in done.items():
        assert one["tokens"] == tokens, f"{name}: {one['tokens']} tokens, {tokens} here"
        assert_falls(one["losses"])
    best = max(done, key=lambda name: done[name]["tokens_per_second"])
    apart = [one["tokens_per_second"] for one in done.values() if one["apart"]]
    per_second = done[best]["tokens_per_second"]
    figures |= {"ratio": round(ours["tokens_per_second"] / per_second, 2), "trl_best": best, "trl_tokens_per_second": per_second}
    figures |= {"ratio_apart": round(ours["tokens_per_second"] / max(apart), 2) if apart else None}
    figures |= {"trl_share_of_limit": round(per_second * ours["flops_per_token"] / ours["limit_flops_per_second"], 4)}
    figures |= {"trl_peak_memory_bytes": done[best]["peak_memory_bytes"]}
    return figures


def device_name() -> str:
    device = preferred_device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def assert_falls(losses: Sequence[float]) -> None:
    part = max(1, len(losses) // 4)
    assert statistics.mean(losses[-part:]) < statistics.mean(losses[:part]), f"the loss did not fall: {losses}"


# -- what is learnt ----------------------------------------------------------------------------------------------------------


@recipe
def random_llama(config: Shape, *, run: Run) -> Model:
    """Random weights in bfloat16, drawn on the device that will train them; the tokenizer uses 512 words of the vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": config.hidden, "intermediate_size": config.gate, "num_hidden_layers": config.layers}
    sizes |= {"num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads, "vocab_size": config.vocabulary}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    shape = LlamaConfig(**sizes, **ids, max_position_embeddings=8192, tie_word_embeddings=config.tied)
    torch.manual_seed(run.seed_for("weights"))
    with torch.device(preferred_device()):
        module = LlamaForCausalLM._from_config(shape, dtype=torch.bfloat16)
    draw = random.Random(0)
    tokenizer = trained_tokenizer(OwnBaseConfig(vocabulary=512), [" ".join(draw.choices(WORDS, k=500)) for _ in range(20)])

    def write(folder: Path) -> None:
        module.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)

    facts = {"head": "lm", "source": "random", "parameters": sum(p.numel() for p in module.parameters())}
    return publish(Model, run, write, facts=facts, provenance={"licence": "Apache-2.0"}, name=f"random-llama-{facts['parameters']}")


def chats(work: Work, renderer: ChatRenderer) -> tuple[list[Rendered], list[Conversation]]:
    """As many as make the updates. Words follow one another by a rule, so that there is something to learn."""
    draw = random.Random(0)
    rendered, rows, tokens = [], [], 0
    low, high = work.words
    while tokens < work.updates * work.update_tokens:
        length = round(low * (high / low) ** draw.random())
        first = draw.randrange(len(WORDS))
        words = [WORDS[(first + 7 * n) % len(WORDS)] for n in range(length)]
        asked = max(2, length // 5)
        row = Conversation((Message("user", " ".join(words[:asked])), Message("assistant", " ".join(words[asked:]))))
        one = renderer.render(row)
        if len(one.token_ids) <= work.row_tokens:
            rendered, rows, tokens = [*rendered, one], [*rows, row], tokens + len(one.token_ids)
    return rendered, rows


# -- ours --------------------------------------------------------------------------------------------------------------------


def own(work: Work, model: Model, rows: Sequence[Conversation], rendered: Sequence[Rendered], home: Path) -> dict[str, Any]:
    """The recipe `sft`, whole: from loading to the published result."""
    method = Full() if work.method == "full" else LoRA(weights="nf4" if work.method == "qlora" else "full")
    config = SFTConfig(
        method=method,
        learning_rate=work.learning_rate,
        epochs=1,
        step_tokens=work.update_tokens,
        pack_tokens=work.pack_tokens,
        max_example_tokens=work.row_tokens,
        compile_layers=work.compiled,
        warmup_share=0.0,
        final_share=1.0,
        checkpoint_seconds=1e9,
        precision="bfloat16",
    )
    ticks: list[float] = []

    def tick(event: dict[str, Any]) -> None:
        if "training_step" in event:
            ticks.append(time.perf_counter())

    file = home / "rows.json"
    file.write_text(json.dumps([[(m.role, m.content) for m in row.messages] for row in rows]), encoding="utf-8")
    with Run(home, name="accelerator", listeners=(tick,)) as run:
        dataset = rows_of(RowsConfig(texts=str(file)), run=run)
        began = time.perf_counter()
        made = sft(config, model=model, dataset=dataset, run=run)
        lengths, labels = [len(r.token_ids) for r in rendered], [sum(r.trained[1:]) for r in rendered]
        plan = plan_of(config, lengths, run.random, packed=True)
    facts = made.manifest.facts
    assert facts["packed"], "rows hold one example each"
    losses = [loss for _, loss in facts["curve"]]
    assert_falls(losses)
    assert len(plan) == len(ticks) > _WARM_UP and facts["ledger"]["real_tokens"] == sum(lengths)
    with torch.device("meta"):
        flops = flops_of(methods.attach(blueprint(model, torch.bfloat16), method, tokenizer=load_tokenizer(model)))
    tokens = [sum(lengths[i] for micro in step for i in micro) for step in plan]
    seconds = [end - start for start, end in itertools.pairwise(ticks)]  # of all updates but the first
    speeds = [number / took for number, took in zip(tokens[1:], seconds, strict=True)]
    speed = statistics.median(speeds[_WARM_UP - 1 :])
    flops_per_token = flops.of(lengths, num_labels=sum(labels)) / sum(lengths)
    device = preferred_device()
    limit = matmul_flops_per_second(device, torch.bfloat16 if device.type == "cuda" else preferred_dtype(device), home)
    sheet = next((rate for name, rate in _DATA_SHEET.items() if name in device_name()), None)
    give_back()
    return {
        "tokens_per_second": round(speed, 1),
        "share_of_limit": round(speed * flops_per_token / limit, 4),
        "share_of_data_sheet": round(speed * flops_per_token / sheet, 4) if sheet else None,
        "limit_flops_per_second": limit,
        "flops_per_token": flops_per_token,
        "peak_memory_bytes": facts["ledger"]["peak_memory_bytes"],
        "padding_share": facts["ledger"]["padding_share"],
        "trained_tokens": facts["ledger"]["trained_tokens"],
        "updates_done": len(ticks),
        "seconds_to_first_update": round(ticks[0] - began, 1),
        "seconds_of_updates": [round(took, 4) for took in seconds],
        "losses": losses,
    }


def give_back() -> None:
    """The device's memory, for who comes next."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


# -- trl ---------------------------------------------------------------------------------------------------------------------


def theirs(work: Work, model: Model, rendered: Sequence[Rendered], home: Path, *, seconds: float) -> dict[str, Any]:
    """By setting, {"tokens_per_second", "tokens", "losses", "peak_memory_bytes", "apart", ...} or {"failed"}."""
    data = home / "ids.json"
    data.write_text(json.dumps([{"input_ids": list(r.token_ids), "assistant_masks": [int(t) for t in r.trained]} for r in rendered]))
    asked = {"model": str(model.payload), "method": work.method, "learning_rate": work.learning_rate, "data": str(data)}
    asked |= {"row_tokens": work.row_tokens, "rows": work.pack_tokens // work.row_tokens, "compiled": work.compiled}
    asked |= {"update_rows": work.update_tokens // work.row_tokens, "warm_up": _WARM_UP, "seconds": seconds, "out": str(home / "trl")}
    script = Path(__file__).parent / "accelerator_trl_side.py"
    found: dict[str, Any] = trl().run(script, [json.dumps(asked)], timeout_seconds=max(seconds, 60) + 300)
    for name, one in found.items():
        say(f"trl, {name}: {one.get('failed') or round(one['tokens_per_second'])}")
    return found


def trl() -> Rival:
    """On a GPU with what makes it faster there."""
    return rival("trl-gpu" if torch.cuda.is_available() else "trl")


def trl_versions(environment: Rival | None = None) -> dict[str, str]:
    names = ("trl", "torch", "transformers", "peft", "accelerate", "liger-kernel", "flash-attn", "bitsandbytes")
    return {name: version for name, version in (environment or trl()).versions.items() if name.lower().replace("_", "-") in names}


if __name__ == "__main__":
    main()
