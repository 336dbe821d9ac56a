"""DPO against trl, in one run: the same pairs, tokens, labels, number of updates, pairs in each, learning rate and beta.

    python -m benchmarks.dpo_vs_trl --texts ../shared/data --json --keep

Pairs of hh-rlhf (harmless), a prompt with its answer at most 512 tokens; SmolLM2-135M in bfloat16, LoRA r=16 on all linear layers, the
reference's log-probabilities computed beforehand on both sides and not timed. trl runs in an environment of its own at several settings
(pairs a batch, grouped by length, autocast), each on a part of the pairs first; the fastest then learns all of them, three times over as
we do and in turn with us. `ratio`: updates a second, median over the repeats. The loss on pairs that neither saw is computed by one
function for both results.
"""

import argparse
import gc
import gzip
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.record import arguments, finish
from benchmarks.rivals import rival
from mygpt.align.answers import Pair, rendered_answer
from mygpt.align.dpo import DPOConfig, dpo
from mygpt.align.pair_losses import DPO
from mygpt.artifacts.dataset import Dataset, Message, Preference, preference_facts, write_preferences
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.home import find_home
from mygpt.core.run import Run
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.chat import ChatRenderer, Rendered
from mygpt.lm.load import load_lm, load_tokenizer
from mygpt.lm.sources import obtain

_LONGEST, _STEP_PAIRS, _EPOCHS, _BETA, _RATE = 512, 8, 3, 0.1, 3e-4
_SPEAKERS = {"Human": "user", "Assistant": "assistant"}
# pairs a batch, grouped by length, autocast
_SETTINGS: dict[str, tuple[int, bool, bool]] = {
    "grouped 8, autocast": (8, True, True),
    "grouped 4, autocast": (4, True, True),
    "grouped 2, autocast": (2, True, True),
    "grouped 4": (4, True, False),
    "one by one, autocast": (1, True, True),
}


@dataclass(frozen=True)
class Work:
    model: Model
    train: list[Pair]
    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "pairs.json"


class RowsConfig(Config):
    rows: str


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--held-out", type=int, default=24)
    parser.add_argument("--probe-pairs", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--settings", nargs="+", choices=_SETTINGS, default=list(_SETTINGS), help="of trl, that are tried")
    options = parser.parse_args()
    model = obtain(options.model, run=Run(find_home(None), name="benchmark"))
    pairs = compared(options.texts / "hh_rlhf_harmless.jsonl.gz", ChatRenderer(load_tokenizer(model)), options.pairs + options.held_out)
    train, held_out = pairs[: options.pairs], pairs[options.pairs :]
    figures: dict[str, Any] = {"model": model.id, "pairs": len(train), "tokens": sum(pair.num_tokens for pair in train)}
    figures |= {"labels": sum(sum(p.chosen.trained) + sum(p.rejected.trained) for p in train), "threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        work = Work(model, train, Path(folder))
        work.data.write_text(json.dumps([ids_of(pair) for pair in train]))
        figures |= compare(work, held_out, options)
    finish("dpo_vs_trl", figures, options)


def compared(path: Path, renderer: ChatRenderer, number: int) -> list[Pair]:
    """The first ones in which two different answers, both of the assistant and none empty, stand behind the same turns."""
    found: list[Pair] = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            chosen, rejected = (turns(json.loads(line)[key]) for key in ("chosen", "rejected"))
            if chosen[:-1] != rejected[:-1] or len(chosen) < 2 or {chosen[-1].role, rejected[-1].role} != {"assistant"}:
                continue
            if chosen[-1].content == rejected[-1].content or not chosen[-1].content or not rejected[-1].content:
                continue
            row = Preference(tuple(chosen[:-1]), chosen[-1].content, rejected[-1].content)
            pair = Pair(row, *(rendered_answer(renderer, row.prompt, text) for text in (row.chosen, row.rejected)))
            if max(len(pair.chosen.token_ids), len(pair.rejected.token_ids)) <= _LONGEST:
                found.append(pair)
            if len(found) == number:
                return found
    raise ValueError(f"{path} has {len(found)} such pairs, and {number} are asked for")


def turns(text: str) -> list[Message]:
    found: list[Message] = []
    for part in text.split("\n\n"):
        speaker, colon, said = part.partition(": ") if part.partition(":")[0] in _SPEAKERS else ("", "", part)
        if colon:
            found.append(Message(_SPEAKERS[speaker], said.strip()))  # type: ignore[arg-type]
        elif part.strip().rstrip(":") in _SPEAKERS:
            found.append(Message(_SPEAKERS[part.strip().rstrip(":")], ""))  # type: ignore[arg-type]
        elif found:
            found[-1] = Message(found[-1].role, f"{found[-1].content}\n\n{part}".strip())
    return found


def ids_of(pair: Pair) -> dict[str, list[int]]:
    """As trl wants them: what comes before the labels, and the labels."""
    begin, end = span(pair.chosen)
    other_begin, other_end = span(pair.rejected)
    assert pair.chosen.token_ids[:begin] == pair.rejected.token_ids[:other_begin]
    parts = {"prompt_ids": pair.chosen.token_ids[:begin], "chosen_ids": pair.chosen.token_ids[begin:end]}
    return {name: list(ids) for name, ids in {**parts, "rejected_ids": pair.rejected.token_ids[other_begin:other_end]}.items()}


def span(example: Rendered) -> tuple[int, int]:
    """Labels are the last answer's tokens, one after another."""
    begin = example.trained.index(True)
    end = begin + sum(example.trained)
    assert all(example.trained[begin:end])
    return begin, end


def compare(work: Work, held_out: Sequence[Pair], options: argparse.Namespace) -> dict[str, Any]:
    probes: dict[str, float] = {}
    for name in options.settings if len(options.settings) > 1 else ():
        done = theirs(work, name, options.probe_pairs, epochs=1)
        probes[name] = round(done["updates_per_second"], 4)
        say(f"trl, {name}: {probes[name]} updates/s")
    best = max(probes, key=lambda name: probes[name], default=options.settings[0])
    our_runs, their_runs = [], []
    for repeat in range(options.repeats):
        our_runs.append(own(work, held_out if repeat == 0 else ()))
        say(f"ours: {our_runs[-1]['updates_per_second']:.3f} updates/s")
        their_runs.append(theirs(work, best, len(work.train), epochs=_EPOCHS, keep=repeat == 0))
        say(f"trl, {best}: {their_runs[-1]['updates_per_second']:.3f} updates/s")
    ours, trl = our_runs[0], their_runs[0]
    their_loss = held_out_loss(work.model, work.folder / "out", held_out)
    assert {run["updates"] for run in our_runs + their_runs} == {_EPOCHS * -(-len(work.train) // _STEP_PAIRS)}
    for losses in (ours["losses"], trl["losses"]):  # of the first update both are log 2
        third = len(losses) // 3
        assert abs(losses[0] - 0.693) < 0.06, losses  # log 2, but for bfloat16: with and without gradients, products round differently
        assert statistics.mean(losses[-third:]) < statistics.mean(losses[:third]), losses
    assert abs(ours["held_out"] - their_loss) < 0.1, (ours["held_out"], their_loss)
    speeds = [statistics.median(run["updates_per_second"] for run in runs) for runs in (our_runs, their_runs)]
    return {
        "updates": ours["updates"],
        "pairs_an_update": _STEP_PAIRS,
        "epochs": _EPOCHS,
        "learning_rate": _RATE,
        "beta": _BETA,
        "updates_per_second": round(speeds[0], 4),
        "trl_updates_per_second": round(speeds[1], 4),
        "each": [round(run["updates_per_second"], 4) for run in our_runs],
        "trl_each": [round(run["updates_per_second"], 4) for run in their_runs],
        "trl_best": best,
        "trl_probes": probes,
        "ratio": round(speeds[0] / speeds[1], 2),
        "share_of_matmul_limit": ours["ledger"]["share_of_limit"],
        "losses": ours["losses"],
        "trl_losses": trl["losses"],
        "held_out_pairs": len(held_out),
        "held_out_loss": round(ours["held_out"], 4),
        "trl_held_out_loss": round(their_loss, 4),
        "base_held_out_loss": 0.6931,
    }


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


@recipe
def rows_of(config: RowsConfig, *, run: Run) -> Dataset:
    lines = json.loads(Path(config.rows).read_text(encoding="utf-8"))
    rows = [Preference(tuple(Message(*turn) for turn in prompt), *answers, id=str(n)) for n, (prompt, *answers) in enumerate(lines)]
    splits = {"train": rows}
    return publish(Dataset, run, lambda folder: write_preferences(folder, splits), facts=preference_facts(splits))


def own(work: Work, held_out: Sequence[Pair]) -> dict[str, Any]:
    """By the recipe, in a home of its own, so that nothing is found made before."""
    config = DPOConfig(
        loss=DPO(beta=_BETA),
        method=LoRA(),
        learning_rate=_RATE,
        epochs=_EPOCHS,
        step_pairs=_STEP_PAIRS,
        warmup_share=0.0,
        final_share=1.0,
        checkpoint_seconds=1e9,
        precision="bfloat16",
    )
    with tempfile.TemporaryDirectory() as home, Run(Path(home), name="benchmark") as run:
        texts = Path(home) / "rows.json"
        rows = [[[(m.role, m.content) for m in p.row.prompt], p.row.chosen, p.row.rejected] for p in work.train]
        texts.write_text(json.dumps(rows), encoding="utf-8")
        made = dpo(config, model=work.model, dataset=rows_of(RowsConfig(rows=str(texts)), run=run), run=run)
        facts = made.manifest.facts
        assert facts["prompts_shared"]
        found = {"losses": [loss for _, loss in facts["curve"]], "updates": len(facts["curve"]), "ledger": facts["ledger"]}
        found["updates_per_second"] = found["updates"] / facts["ledger"]["seconds"]
        if held_out:
            found["held_out"] = held_out_loss(work.model, made.payload, held_out)
    gc.collect()
    return found


def theirs(work: Work, setting: str, pairs: int, *, epochs: int, keep: bool = False) -> dict[str, Any]:
    """{"updates_per_second", "losses", "updates"} of trl's DPOTrainer on the first pairs."""
    batch, grouped, autocast = _SETTINGS[setting]
    asked = {"model": str(work.model.payload), "data": str(work.data), "pairs": pairs, "out": str(work.folder / "out"), "keep": keep}
    asked |= {"batch": batch, "grouped": grouped, "autocast": autocast, "step_pairs": _STEP_PAIRS, "epochs": epochs, "beta": _BETA}
    asked |= {"learning_rate": _RATE, "threads": torch.get_num_threads()}
    found: dict[str, Any] = rival("trl").run(Path(__file__).parent / "dpo_trl_side.py", [json.dumps(asked)])
    return found


@torch.no_grad()
def held_out_loss(model: Model, adapter: Path, pairs: Sequence[Pair]) -> float:
    """Mean DPO loss of an adapter, by plain forward passes of peft's own model in bfloat16, the same for everybody."""
    from peft import PeftModel

    module = PeftModel.from_pretrained(load_lm(model).module, str(adapter)).to(torch.bfloat16).eval()

    def ratio(example: Rendered) -> torch.Tensor:
        own = logprob(module, example)
        with module.disable_adapter():
            return own - logprob(module, example)

    margins = torch.stack([ratio(pair.chosen) - ratio(pair.rejected) for pair in pairs])
    return float(-F.logsigmoid(_BETA * margins).mean())


def logprob(module: Any, example: Rendered) -> torch.Tensor:
    begin, end = span(example)
    ids_1T = torch.tensor([example.token_ids[:end]])
    logprobs_TV = module(input_ids=ids_1T, use_cache=False, logits_to_keep=end - begin + 1).logits[0, :-1].float().log_softmax(-1)
    return logprobs_TV.gather(1, ids_1T[0, begin:, None]).sum()


if __name__ == "__main__":
    main()
