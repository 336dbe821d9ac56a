"""Prompt tuning over sizes: 5, 20, 50 and 100 virtual tokens against every weight, of one task and of several, a prompt for several tasks,
and examples in the prompt.

Three bases: two of our own, of about 1 and 8 million weights (`benchmarks/own_bases`), and the 135M model. All learn the same number of
tokens of the even rows of T0's qasc, each method at its usual rate; what is for several tasks learns as many tokens of four templates.
What is compared is the cost of the right answers to the odd rows, in bits per byte: models of a million weights answer nothing right.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.claim import FAILS, HOLDS, OPEN, Bits, Setting, answer_bits, limits, told
from benchmarks.own_bases import OwnBaseConfig, own_base
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.few_shot import choose_examples
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.methods import Method
from mygpt.lm.adapters.prompt import Prompt, tightness
from mygpt.lm.adapters.real_words import ids_of
from mygpt.lm.load import load_lm, load_tokenizer
from mygpt.metrics.bootstrap import bootstrap_mean
from mygpt.pipelines.race import Budget, RaceRowsConfig, equal_budget, num_tokens, race_rows

LENGTHS = (5, 20, 50, 100)
TASK = "qasc_qa_with_separated_facts_1"
SEVERAL = (TASK, "samsum_Generate_a_summary_for_this_dialogue", "ag_news_which_section_choices", "paws_labeled_final_Concatenation")
_TOKENS, _EPOCHS = 32_000, 3  # epochs at most
_SHAPES = {
    "1M": OwnBaseConfig(hidden_size=128, layers=3, tokens=4_000_000),
    "8M": OwnBaseConfig(hidden_size=256, layers=9, heads=8, tokens=1_500_000, learning_rate=1e-3),
}
_QUICK = OwnBaseConfig(vocabulary=384, hidden_size=32, layers=1, heads=2, tokens=16_384, batch_rows=8, row_tokens=64)


class TemplatesConfig(Config):
    templates: tuple[str, ...]


@recipe
def learnt_rows(config: TemplatesConfig, *, texts: Path, run: Run) -> Dataset:
    """The even rows of some T0 templates; the odd ones are asked."""
    splits = {"train": [row for name in config.templates for row in conversations(texts / f"{name}.jsonl")[::2]]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def conversations(file: Path) -> list[Conversation]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    said = [(str(row["prompt"]).strip(), str(row["completion"]).removesuffix("<|endoftext|>").strip()) for row in rows]
    return [Conversation((Message("user", q), Message("assistant", a)), f"{file.stem}/{n}") for n, (q, a) in enumerate(said) if a]


def bases(setting: Setting) -> dict[str, Model]:
    """By size, the smallest first."""
    shapes = {"tiny": _QUICK} if setting.quick else _SHAPES
    own: dict[str, Any] = {
        size: own_base(config, articles=setting.articles, texts=setting.texts, run=setting.run) for size, config in shapes.items()
    }
    return {**own, f"{setting.model.manifest.facts['parameters'] / 1e6:.3g}M": setting.model}


def prompt_sizes(setting: Setting) -> dict[str, Any]:
    sizes = {size: one_size(setting, model) for size, model in bases(setting).items()}
    first, last = next(iter(sizes.values())), list(sizes.values())[-1]
    gaps = {size: shown["best_prompt_over_full"] for size, shown in sizes.items()}
    narrower, wider = (a["best_prompt_over_full"]["high"] < b["best_prompt_over_full"]["low"] for a, b in ((last, first), (first, last)))
    listed = "; ".join(f"{size} {told(gap)}" for size, gap in gaps.items())
    return {
        "claim": "Prompt tuning closes on full fine-tuning as models grow (Lester et al. 2021, figure 1).",
        "found": HOLDS if narrower else FAILS if wider else OPEN,
        "said": f"Bits per byte that the best prompt of {', '.join(map(str, LENGTHS))} tokens is behind full fine-tuning: {listed}.",
        "n": last["n"],
        "seeds": 1,
        "train_tokens": last["train_tokens"],
        "sizes": sizes,
    }


def prompt_over_multi_task(sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Read off what `prompt_sizes` measured, as the next three are."""
    gaps = {size: shown["best_prompt_over_full_four_tasks"] for size, shown in sizes.items()}
    first, *_, last = gaps.values()
    return {
        "claim": "Prompt tuning closes on full fine-tuning for several tasks as models grow (Lester et al. 2021, figure 1: multi-task).",
        "found": HOLDS if last["high"] < first["low"] else FAILS if first["high"] < last["low"] else OPEN,
        "said": f"Bits per byte on qasc that its best prompt is behind full fine-tuning on four tasks, at equal tokens: {_listed(gaps)}.",
        **_about(sizes),
    }


def prompt_length(sizes: Mapping[str, Any]) -> dict[str, Any]:
    longest = max((name for name in next(iter(sizes.values()))["over_full"] if name.removeprefix("prompt_").isdigit()), key=_length)
    over = {size: shown["over_prompt_20"][longest] for size, shown in sizes.items()}
    under = {size: shown["over_prompt_20"]["prompt_5"] for size, shown in sizes.items()}
    fails = any(i["low"] > 0.02 or i["high"] < -0.02 for i in over.values())
    listed = f"5 minus 20 tokens: {_listed(under)}. {_length(longest)} minus 20: {_listed(over)}"
    return {
        "claim": "Beyond 20 virtual tokens a longer prompt gains little (Lester et al. 2021, section 3.2): within 0.02 bits per byte.",
        "found": HOLDS if all(max(abs(i["low"]), abs(i["high"])) <= 0.02 for i in over.values()) else FAILS if fails else OPEN,
        "said": f"Bits per byte, {listed}.",
        **_about(sizes),
    }


def prompt_four_tasks(sizes: Mapping[str, Any]) -> dict[str, Any]:
    over = {size: shown["over_prompt_20"]["prompt_20_four_tasks"] for size, shown in sizes.items()}
    return {
        "claim": "One prompt for four tasks costs a task something, at equal tokens: a prompt of its own is better.",
        "found": _all_above_zero(over),
        "said": f"Bits per byte on qasc, a prompt for four tasks minus a prompt for one, 20 tokens each: {_listed(over)}.",
        **_about(sizes),
    }


def prompt_engineering(sizes: Mapping[str, Any]) -> dict[str, Any]:
    over = {size: shown["over_prompt_20"]["few_shot"] for size, shown in sizes.items()}
    return {
        "claim": "A learnt prompt beats examples in the prompt (Lester et al. 2021, figure 1: prompt design).",
        "found": _all_above_zero(over),
        "said": f"Bits per byte, three examples in the prompt minus a learnt prompt of 20 tokens: {_listed(over)}.",
        **_about(sizes),
    }


def _about(sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {"n": next(iter(sizes.values()))["n"], "seeds": 1, "sizes": list(sizes)}


def _all_above_zero(over: Mapping[str, Mapping[str, float]]) -> str:
    return HOLDS if all(i["low"] > 0 for i in over.values()) else FAILS if any(i["high"] < 0 for i in over.values()) else OPEN


def _listed(over: Mapping[str, Any]) -> str:
    return "; ".join(f"{size} {told(interval)}" for size, interval in over.items())


def _length(name: str) -> int:
    return int(name.removeprefix("prompt_"))


def one_size(setting: Setting, model: Model) -> dict[str, Any]:
    rows, several, budget = data_of(setting, model)
    asked = conversations(setting.texts / f"{TASK}.jsonl")[1::2][: setting.few(80, 4)]
    examples = choose_examples(rows.split("train"), 3)
    shown = [Conversation((*(m for e in examples for m in e.messages), *row.messages), row.id) for row in asked]
    found = {"base": bits_of(model, None, asked), "few_shot": bits_of(model, None, shown)}
    for n in lengths_of(setting):
        found[f"prompt_{n}"] = bits_of(model, trained(setting, model, Prompt(num_tokens=n), rows, budget.epochs), asked)
    found["prompt_20_four_tasks"] = bits_of(model, trained(setting, model, Prompt(), *several), asked)
    found["full"] = bits_of(model, trained(setting, model, Full(), rows, budget.epochs), asked)
    found["full_four_tasks"] = bits_of(model, trained(setting, model, Full(), *several), asked)
    best = min((name for name in found if name.startswith("prompt_") and "tasks" not in name), key=lambda name: found[name].per_byte)
    return {
        "n": len(asked),
        "train_tokens": budget.tokens,
        "parameters": model.manifest.facts.get("parameters"),
        "bits_per_byte": {name: round(bits.per_byte, 4) for name, bits in found.items()},
        "over_full": {name: limits(bits.over(found["full"])) for name, bits in found.items() if name != "full"},
        "over_few_shot": {name: limits(bits.over(found["few_shot"])) for name, bits in found.items() if name != "few_shot"},
        "over_prompt_20": {name: limits(bits.over(found["prompt_20"])) for name, bits in found.items() if name != "prompt_20"},
        "best_prompt": best,
        "best_prompt_over_full": limits(found[best].over(found["full"])),
        "best_prompt_over_full_four_tasks": limits(found[best].over(found["full_four_tasks"])),
    }


def lengths_of(setting: Setting) -> tuple[int, ...]:
    return (5, 20, 50) if setting.quick else LENGTHS


def data_of(setting: Setting, model: Model) -> tuple[Dataset, tuple[Dataset, int], Budget]:
    """The rows of one task; those of several with their epochs, as many tokens; and the budget of the one."""
    tokenizer, wanted = load_tokenizer(model), setting.few(_TOKENS, 1_500)
    made: list[tuple[Any, Budget]] = []
    for names in ((TASK,), SEVERAL):
        rows: Any = learnt_rows(TemplatesConfig(templates=names), texts=setting.texts, run=setting.run)
        budget = equal_budget(num_tokens(rows.split("train"), tokenizer), wanted, _EPOCHS)
        if budget.rows < len(rows.split("train")):
            rows = race_rows(RaceRowsConfig(rows=budget.rows), dataset=rows, run=setting.run)
        made.append((rows, budget))
    (rows, budget), (several, wider) = made
    return rows, (several, wider.epochs), budget


def trained(setting: Setting, model: Model, method: Method, rows: Dataset, epochs: int) -> Adapter | Model:
    config = SFTConfig(method=method, epochs=epochs, step_tokens=setting.few(1024, 256))
    made: Adapter | Model = sft(config, model=model, dataset=rows, run=setting.run)
    return made


def bits_of(model: Model, tuned: Adapter | Model | None, rows: list[Conversation]) -> Bits:
    if isinstance(tuned, Model):
        engine = TorchEngine(tuned)
    else:
        engine = TorchEngine(model, adapter=tuned)
    return answer_bits(engine.loaded.module, engine.renderer, rows)  # type: ignore[arg-type]


# -- what learnt vectors are near to ----------------------------------------------------------------------------------------


def prompt_tightness(setting: Setting) -> dict[str, Any]:
    sizes = {size: tight(setting, model) for size, model in bases(setting).items()}
    tighter = [shown["learnt_over_random"]["low"] > 0 for shown in sizes.values()]
    looser = [shown["learnt_over_random"]["high"] < 0 for shown in sizes.values()]
    listed = "; ".join(f"{size} {told(shown['learnt_over_random'])}" for size, shown in sizes.items())
    return {
        "claim": "Words near learnt soft tokens are closer to one another than words near random vectors (Lester et al. 2021, section 7).",
        "found": HOLDS if all(tighter) else FAILS if any(looser) else OPEN,
        "said": f"Mean cosine among the ten nearest words, learnt minus random: {listed}.",
        "n": next(iter(sizes.values()))["n"],
        "sizes": sizes,
    }


def tight(setting: Setting, model: Model) -> dict[str, Any]:
    """Of the longest learnt prompt, token by token; of as many random vectors; and of the words that it began as."""
    longest = lengths_of(setting)[-1]
    rows, _, budget = data_of(setting, model)
    method = Prompt(num_tokens=longest)
    adapter = trained(setting, model, method, rows, budget.epochs)
    learnt_ND = load_file(adapter.payload / "adapter_model.safetensors")["prompt_embeddings"].float()
    loaded = load_lm(model)
    words_VD = loaded.module.get_input_embeddings().weight.detach().float().cpu()
    began_ND = words_VD[ids_of(method.text, loaded.tokenizer, num_tokens=longest)]
    random_ND = torch.randn(learnt_ND.shape, generator=torch.Generator().manual_seed(0))
    vectors_of = {"learnt": learnt_ND, "random": random_ND, "began": began_ND}
    values: dict[str, list[float]] = {name: tightness(vectors, words_VD).tolist() for name, vectors in vectors_of.items()}
    differences = [a - b for a, b in zip(values["learnt"], values["random"], strict=True)]
    means = {name: round(sum(own) / len(own), 4) for name, own in values.items()}
    return {"n": longest, **means, "learnt_over_random": limits(bootstrap_mean(differences))}
