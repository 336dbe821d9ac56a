"""Supervised fine-tuning against trl, in one run: the same rows, tokens, trained positions, number of updates and learning rate.

    python -m benchmarks.sft_vs_trl --texts ../shared/data --json --keep

256 chats and worked problems, cut at 512 tokens, SmolLM2-135M in bfloat16, LoRA r=16 on all linear layers, then every
weight. trl runs in an environment of its own at several settings (padded 8, packed, grouped by length 4 and 8, one by one; the fastest of
these also under autocast), each on a part of the rows first; the fastest then learns all of them. `ratio`: real tokens/s against that;
`ratio_default`: against padded 8. Loss on 64 rows that neither saw, after one epoch, is computed by one function for both results, and must
be below the base's. Equal work: updates, tokens and labels are the same, as each side counted them in its own batches.
"""

import gc
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.record import arguments, finish
from benchmarks.rivals import rival
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.home import find_home
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, plan_of, sft
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.chat import ChatRenderer, Rendered
from mygpt.lm.load import load_lm, load_tokenizer
from mygpt.lm.sources import obtain

_TRAIN, _HELD_OUT, _LONGEST, _PROBE = 256, 64, 512, 64
_SETTINGS: dict[str, dict[str, Any]] = {
    "padded 8": {"per_device_train_batch_size": 8},
    "packed": {"per_device_train_batch_size": 8, "packing": True},
    "grouped 8": {"per_device_train_batch_size": 8, "train_sampling_strategy": "group_by_length"},
    "grouped 4": {"per_device_train_batch_size": 4, "train_sampling_strategy": "group_by_length"},
    "one by one": {"per_device_train_batch_size": 1},
}


@dataclass(frozen=True)
class Side:
    tokens_per_second: float
    losses: list[float]
    updates: int
    held_out: float
    ledger: dict[str, Any]


class RowsConfig(Config):
    texts: str


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--only", choices=("lora", "full"), help="leave the other out")
    options = parser.parse_args()
    model = obtain(options.model, run=Run(find_home(None), name="benchmark"))
    renderer = ChatRenderer(load_tokenizer(model))
    rows = conversations(options.texts, renderer)
    train, held_out = rows[:_TRAIN], [renderer.render(row) for row in rows[_TRAIN:]]
    rendered = [renderer.render(row) for row in train]
    figures: dict[str, Any] = {"model": model.id, "rows": len(train), "tokens": sum(len(r.token_ids) for r in rendered)}
    figures |= {"trained_tokens": sum(sum(r.trained) for r in rendered), "threads": torch.get_num_threads(), "dtype": "torch.bfloat16"}
    base_loss = loss_of(load_lm(model).module, held_out)
    for method, rate in (("lora", 5e-4), ("full", 3e-5)):
        if options.only in (None, method):
            figures[method] = compare(model, method, rate, train, rendered, held_out, base_loss=base_loss)
    if "lora" in figures:
        figures |= {key: figures["lora"][key] for key in ("ratio", "ratio_default", "held_out_ratio")}
    if "full" in figures:
        figures["ratio_full"] = figures["full"]["ratio"]
    finish("sft_vs_trl", figures, options)


def conversations(folder: Path, renderer: ChatRenderer) -> list[Conversation]:
    """Half of them chats of several turns, cut after a turn of the assistant so that they fit, half questions with worked answers."""
    chats = [chat["conversations"] for chat in json.loads((folder / "glaive_toolcall_demo.json").read_text(encoding="utf-8"))]
    lines = (folder / "gsm8k_train.jsonl").read_text(encoding="utf-8").splitlines()
    half = (_TRAIN + _HELD_OUT) // 2
    made = [row for chat in chats if (row := cut(turns(chat), renderer)) is not None][:half]
    problems = (json.loads(line) for line in lines)
    worked = (Conversation((Message("user", p["question"]), Message("assistant", p["answer"]))) for p in problems)
    made += islice((row for row in worked if len(renderer.render(row).token_ids) <= _LONGEST), 2 * half - len(made))
    random.Random(0).shuffle(made)
    return made


def turns(chat: Sequence[dict[str, str]]) -> list[Message]:
    """User and assistant in turn; calls of tools and what they gave are left out."""
    found: list[Message] = []
    for turn in chat:
        role: Literal["user", "assistant"] = "user" if turn["from"] == "human" else "assistant"
        if turn["from"] not in ("human", "gpt"):
            continue
        if found and found[-1].role == role:
            found[-1] = Message(role, f"{found[-1].content}\n{turn['value']}")
        else:
            found.append(Message(role, turn["value"]))
    return found


def cut(messages: list[Message], renderer: ChatRenderer) -> Conversation | None:
    """None where nothing that fits has an answer."""
    while messages and (messages[-1].role == "user" or len(renderer.render(Conversation(tuple(messages))).token_ids) > _LONGEST):
        messages.pop()
    return Conversation(tuple(messages)) if messages else None


def compare(
    model: Model,
    method: str,
    rate: float,
    train: Sequence[Conversation],
    rendered: Sequence[Rendered],
    held_out: Sequence[Rendered],
    *,
    base_loss: float,
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.json"
        data.write_text(json.dumps([{"input_ids": list(r.token_ids), "assistant_masks": [int(t) for t in r.trained]} for r in rendered]))
        ours = own(model, method, rate, train, rendered, held_out)
        say(f"{method}: {ours.tokens_per_second:.0f} tokens/s")
        probes: dict[str, float] = {}

        def probe(name: str, *, autocast: bool) -> None:
            done = theirs(model, method, rate, _SETTINGS[name], data, _PROBE, autocast, Path(folder) / "out", ours.updates)
            called = f"{name}{', autocast' * autocast}"
            probes[called] = round(done["tokens_per_second"], 1)
            say(f"trl, {called}: {probes[called]} tokens/s")

        for setting in _SETTINGS:
            probe(setting, autocast=False)
        probe(max(probes, key=lambda name: probes[name]), autocast=True)
        best = max(probes, key=lambda name: probes[name])
        name, _, autocast = best.partition(", ")
        out = Path(folder) / "best"
        whole = theirs(model, method, rate, _SETTINGS[name], data, _TRAIN, bool(autocast), out, ours.updates)
        their_loss = held_out_loss(model, method, out, held_out)
    require_equal_work(ours, whole, rendered, packed="packing" in _SETTINGS[name])
    for losses in (ours.losses, whole["losses"]):
        assert sum(losses[-8:]) < sum(losses[:8]), losses
    for loss in (ours.held_out, their_loss):
        assert loss < base_loss, (loss, base_loss)
    default = max(speed for name, speed in probes.items() if name.startswith("padded 8"))
    return {
        "updates": ours.updates,
        "learning_rate": rate,
        "tokens_per_second": round(ours.tokens_per_second, 1),
        "share_of_matmul_limit": ours.ledger["share_of_limit"],
        "padding_share": ours.ledger["padding_share"],
        "trl_tokens_per_second": round(whole["tokens_per_second"], 1),
        "trl_best": best,
        "trl_probes": probes,
        "ratio": round(ours.tokens_per_second / whole["tokens_per_second"], 2),
        "ratio_default": round(ours.tokens_per_second / default, 2),
        "held_out_loss": round(ours.held_out, 4),
        "trl_held_out_loss": round(their_loss, 4),
        "held_out_ratio": round(ours.held_out / their_loss, 4),
        "base_held_out_loss": round(base_loss, 4),
    }


def require_equal_work(ours: Side, theirs: dict[str, Any], rendered: Sequence[Rendered], *, packed: bool) -> None:
    """As many updates on the same tokens and labels, as each side counted them in its batches. One epoch of trl's packed rows has fewer
    updates, so there it sees some rows again, none too few."""
    asked = [sum(len(r.token_ids) for r in rendered), sum(sum(r.trained[1:]) for r in rendered)]
    done = [ours.ledger["real_tokens"], ours.ledger["trained_tokens"]]
    their_done = [theirs["tokens"], theirs["trained_tokens"]]
    assert theirs["updates"] == ours.updates and done == asked, (theirs["updates"], ours.updates, done, asked)
    enough = all(n >= m for n, m in zip(their_done, asked, strict=True))
    assert enough if packed else their_done == asked, (their_done, asked)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


@recipe
def rows_of(config: RowsConfig, *, run: Run) -> Dataset:
    lines = json.loads(Path(config.texts).read_text(encoding="utf-8"))
    splits = {"train": [Conversation(tuple(Message(*turn) for turn in turns), str(n)) for n, turns in enumerate(lines)]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def own(
    model: Model, method: str, rate: float, train: Sequence[Conversation], rendered: Sequence[Rendered], held_out: Sequence[Rendered]
) -> Side:
    """One epoch by the recipe, in as many updates as trl makes of rows by 8."""
    lengths = [len(r.token_ids) for r in rendered]
    settings: dict[str, Any] = {"method": LoRA() if method == "lora" else Full(), "learning_rate": rate, "epochs": 1}
    settings |= {"warmup_share": 0.0, "final_share": 1.0, "checkpoint_seconds": 1e9}
    with tempfile.TemporaryDirectory() as home, Run(Path(home), name="benchmark") as run:
        texts = Path(home) / "rows.json"
        texts.write_text(json.dumps([[(m.role, m.content) for m in row.messages] for row in train]), encoding="utf-8")
        dataset = rows_of(RowsConfig(texts=str(texts)), run=run)
        configs = (SFTConfig(**settings, step_tokens=size) for size in range(512, 8192, 16))
        config = next(c for c in configs if len(plan_of(c, lengths, run.random, packed=True)) == -(-len(train) // 8))
        made = sft(config, model=model, dataset=dataset, run=run)
        facts = made.manifest.facts
        loaded = load_lm(model, adapter=made) if isinstance(made, Adapter) else load_lm(made)
        curve = facts["curve"]
        side = Side(facts["tokens_per_second"], [loss for _, loss in curve], len(curve), loss_of(loaded.module, held_out), facts["ledger"])
    del loaded
    gc.collect()
    return side


def theirs(
    model: Model, method: str, rate: float, setting: dict[str, Any], data: Path, rows: int, autocast: bool, out: Path, updates: int
) -> dict[str, Any]:
    """{"tokens_per_second", "losses", "updates"} of trl's SFTTrainer on the first `rows` rows. Its speed counts real tokens too."""
    asked = {"model": str(model.payload), "method": method, "learning_rate": rate, "data": str(data), "rows": rows, "out": str(out)}
    asked |= {"setting": setting, "autocast": autocast, "updates": updates if rows == _TRAIN else 0, "threads": torch.get_num_threads()}
    found: dict[str, Any] = rival("trl").run(Path(__file__).parent / "trl_side.py", [json.dumps(asked)])
    return found


def held_out_loss(model: Model, method: str, folder: Path, rows: Sequence[Rendered]) -> float:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    if method == "lora":
        module: Any = PeftModel.from_pretrained(load_lm(model).module, str(folder)).to(torch.bfloat16)
    else:
        module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return loss_of(module.eval(), rows)


@torch.no_grad()
def loss_of(module: Any, rows: Sequence[Rendered]) -> float:
    """Nats per trained token, by the model's own forward pass in the same number format for everybody."""
    total, count = 0.0, 0
    for row in rows:
        ids_1T = torch.tensor([row.token_ids])
        logprobs_TV = module(input_ids=ids_1T, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        own_T = logprobs_TV.gather(1, ids_1T[0, 1:, None])[:, 0]
        trained_T = torch.tensor(row.trained[1:])
        total, count = total - float(own_T[trained_T].sum()), count + int(trained_T.sum())
    return total / count


if __name__ == "__main__":
    main()
