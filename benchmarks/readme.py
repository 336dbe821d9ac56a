"""Write the README's table of figures from `benchmarks/results/` (`make docs`; a test holds the README to it)."""

import json
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- figures: made by `make docs` from benchmarks/results/ -->\n", "<!-- /figures -->"


def main() -> None:
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(readme: str) -> str:
    before, _, rest = readme.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{after}"


def table() -> str:
    rows = [
        row for name, make in _ROWS.items() if (file := RESULTS / f"{name}.json").exists() for row in make(json.loads(file.read_text()))
    ]
    lines = ["| what | measured | aim |", "|---|---|---|", *(f"| {what} | {figure} | {aim} |" for what, figure, aim in rows)]
    machines = {f"{m['processor']}, {m['cores']} cores, {m['memory_gib']} GiB, {_gpu(m)}" for m in (_machine(n) for n in _ROWS) if m}
    return "\n".join(lines) + "\n\nOn " + "; ".join(sorted(machines)) + "."


def _gpu(machine: dict[str, Any]) -> str:
    return "no GPU" if machine["gpu"] == "none" else str(machine["gpu"])


def _machine(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    found: dict[str, Any] | None = json.loads(file.read_text())["machine"] if file.exists() else None
    return found


def _up(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    up = r["up"]
    interval = "{0[0]:+.3f} to {0[1]:+.3f}".format
    return [
        (f"`mygpt up` on {up['documents']} files of a real product's documentation", f"{r['wall_seconds']:.0f} s", "480 s, better 300 s"),
        ("its peak memory", f"{r['peak_memory_gib']:.1f} GiB", "6 GiB"),
        (
            "pairs kept: train / knowledge / generalisation",
            f"{up['pairs_train']} / {up['pairs_knowledge']} / {up['pairs_generalisation']}",
            "120 / 60 / 30",
        ),
        ("training speed", f"{up['tokens_per_second']:.0f} real tokens/s", ""),
        ("`mygpt up` again, unchanged", f"{r['unchanged_seconds']:.1f} s", "15 s"),
        ("`mygpt add FILE`, then an answer that cites it", f"{r['add_and_cited_answer_seconds']:.1f} s", "15 s"),
        (
            "token F1, closed book: base / with 3 examples / tuned",
            f"{up['f1_base']:.3f} / {up['f1_fewshot']:.3f} / {up['f1_tuned']:.3f}",
            "",
        ),
        ("tuned minus base, 95 % interval", interval(up["f1_ci"]), "above 0"),
        ("tuned minus base with 3 examples, 95 % interval", interval(up["f1_ci_fewshot"]), ""),
        ("token F1 with retrieval: base / tuned", f"{up['f1_retrieval']:.3f} / {up['f1_tuned_retrieval']:.3f}", ""),
        ("forgetting, bits per byte of general text", f"{up['forgetting_bpb']:+.3f}", "at most +0.05"),
    ]


def _startup(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        ("`import mygpt`", f"{r['import_ms']:.0f} ms", "200 ms"),
        ("`mygpt --help`", f"{r['help_ms']:.0f} ms", "500 ms"),
        (
            "first token of a chat answer with retrieval, median / worst of 8",
            f"{r['first_token_ms']} / {r['first_token_ms_worst']} ms",
            "1,000 ms",
        ),
    ]


def _demo(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [("`make demo` from nothing, all installs and downloads", f"{r['wall_seconds'] / 60:.1f} min", "12 min")]


def _large(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    size = f"{r['files']:,} files, {r['megabytes'] / 1000:.1f} GB, {r['up']['passages'] / 1e6:.1f} million passages"
    asked = f"{r['up']['passages_asked_about']} passages asked about"
    return [(f"`mygpt up` on {size}", f"{r['wall_seconds'] / 60:.0f} min, {r['peak_memory_gib']:.1f} GiB, {asked}", "")]


def _rag(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    held_out, model = r["held_out"], r["held_out"]["model"]
    silent = held_out["abstention"]
    return [
        ("citations that support their sentence: right answers, reworded", f"{held_out['citations']['answers']['precision']:.2f}", "0.80"),
        ("the same, sentences of the untuned 135M model, judged by hand", f"{model['precision']:.2f} of {model['judged']}", "0.80"),
        ("off-topic questions not answered", f"{silent['off_topic_abstained']} of {silent['off_topic']}", "27"),
        ("the same, a second set written when all rules stood, half of it near the topic", _second_abstained(r["second"]), ""),
        ("answerable questions not answered", f"{silent['answerable_abstained']} of {silent['answerable']}", "at most 6"),
    ]


def _second_abstained(second: dict[str, str]) -> str:
    """Of "9 of 10" and "5 of 10": "14 of 20"."""
    parts = [second[name].split(" of ") for name in ("abstained_general", "abstained_near_topic")]
    return " of ".join(str(sum(map(int, column))) for column in zip(*parts, strict=True))


def _generate(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    mixed, equal = r["mixed"], r["equal"]
    rows = [
        (
            "64 prompts, answers of 8 to 128 tokens: tokens/s, against `transformers.generate` at its best batch size",
            f"{mixed['tokens_per_second']:.0f} against {max(mixed['transformers_tokens_per_second'].values()):.0f}: {r['ratio']:.2f} times",
            "2.5 times",
        ),
        (
            "the same, all answers 128 tokens",
            f"{equal['tokens_per_second']:.0f} against {max(equal['transformers_tokens_per_second'].values()):.0f}: "
            f"{r['ratio_equal']:.2f} times",
            "1.3 times",
        ),
    ]
    if "ratio_with_our_memory_setting" in mixed:
        helped = " and ".join(f"{one['ratio_with_our_memory_setting']:.2f}" for one in (mixed, equal))
        rows.append(("the same two, the rival in our process, whose memory setting makes it faster", f"{helped} times", ""))
    if "ratio_continuous" in mixed:
        rows.append(("against its continuous batching, 8 to 128 tokens", f"{mixed['ratio_continuous']:.1f} times", "8 times"))
    return rows


def _sft_vs_trl(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for method, words in (("lora", "LoRA r=16 on all linear layers"), ("full", "every weight")):
        if method not in r:
            continue
        one = r[method]
        speeds = f"{one['tokens_per_second']:.0f} against {one['trl_tokens_per_second']:.0f}: {one['ratio']:.2f} times"
        aims = {"lora": "2.2 times, better 3", "full": "2 times, better 3"}
        rows.append((f"training, {words}: real tokens/s, against trl at its fastest ({one['trl_best']})", speeds, aims[method]))
        told = f"{one['held_out_loss']:.3f} against {one['trl_held_out_loss']:.3f} (base {one['base_held_out_loss']:.3f})"
        why = {"full": "; at its fastest trl trains bfloat16 weights without float32 masters, which lose small updates"}.get(method, "")
        rows.append((f"loss on rows held out, after as many updates{why}", told, "at most 1.01 times trl's"))
    return rows


def _accelerator(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows, words = [], {"1.2b_full": "1.2B, every weight", "1.2b_lora": "1.2B, LoRA", "8b_lora": "8B, LoRA", "8b_qlora": "8B, QLoRA"}
    for name, shape in words.items():
        if name not in r:
            continue
        one = r[name]
        memory = f"{one['peak_memory_bytes'] / 2**30:.0f} GiB"
        told = f"{one['tokens_per_second']:,.0f}, {one['share_of_limit']:.0%} of its fastest product, {memory}"
        aims = "45 %"
        if one.get("ratio"):
            tried = [setting for setting, found in one["trl"].items() if "failed" not in found]
            best = f"at its fastest of {len(tried)} settings ({one['trl_best']})"
            told += f"; trl {best} {one['trl_tokens_per_second']:,.0f}: {one['ratio']:.2f} times"
            aims = "45 %, 1.5 times"
        rows.append((f"training on one {one['device'].removeprefix('NVIDIA ')}, {shape}: real tokens/s", told, aims))
    return rows


def _align_accelerator(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows, aims = [], {"grpo": "2.5 times", "dpo": "1.8 times"}
    words = {"grpo": "GRPO, 64 answers of 256 tokens: seconds a step", "dpo": "DPO, 16 pairs of 2 x 512 tokens: seconds an update"}
    for name, aim in aims.items():
        if name not in r:
            continue
        one = r[name]
        tried = sum("failed" not in found for found in one["trl"].values())
        best = f"at its fastest of {tried} settings ({one['trl_best']}{', without vLLM' if name == 'grpo' else ''})"
        told = f"{one['seconds_an_update']:.2f}; trl {best} {one['trl_seconds_an_update']:.2f}: {one['ratio']:.2f} times"
        rows.append((f"on one {one['device'].removeprefix('NVIDIA ')}, 1.2B, LoRA, {words[name]}", told, aim))
    return rows


def _dpo(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    speeds = f"{r['updates_per_second']:.3f} against {r['trl_updates_per_second']:.3f}: {r['ratio']:.2f} times"
    return [(f"DPO, LoRA: updates a second, against trl at its fastest ({r['trl_best']})", speeds, "1.8 times")]


def _ppo(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    speeds = f"{r['seconds_a_rollout']:.1f} against {r['trl_seconds_a_rollout']:.1f}: {r['ratio']:.2f} times"
    memory = f"{r['peak_memory_bytes'] / 2**30:.1f} GiB"
    return [
        (f"PPO, LoRA: seconds a rollout, against trl 1.12 at its fastest ({r['trl_best']})", speeds, "2.5 times"),
        ("its peak memory", memory, "3 GiB"),
    ]


def _grpo(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    speeds = f"{r['ours']['seconds_a_step']:.1f} against {r['trl']['seconds_a_step']:.1f}: {r['ratio']:.2f} times"
    return [(f"GRPO, LoRA, 16 answers: seconds a step, against trl at its fastest ({r['trl_best']})", speeds, "2.5 times")]


def _lm_eval(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    largest = max(r["logprob_difference"].values())
    return [
        (f"multiple choice ({r['items']} items), wall time against lm-eval", f"{r['ratio']:.2f} times as fast", "3 times"),
        (f"greedy answers ({r['items']} items), wall time against lm-eval", f"{r['ratio_generation']:.2f} times as fast", "1.5 times"),
        (
            "largest difference of a log-likelihood; items with another verdict; equal greedy texts",
            f"{largest:.1g}; {r['items_with_another_verdict']}; {r['texts_equal']} of {r['texts']}",
            "0.001; 0; all",
        ),
    ]


def _statistics(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    outside = f"; above: {', '.join(f'{p:.1%} ({name})' for name, p in r['coverage_outside_94_to_97'].items())}"
    share = f"{r['coverage_at_exact_shares']:.1%}"
    return [
        ("lowest coverage of a stated 95 % interval, 60 items or more", f"{r['coverage']:.1%}{outside}", "94 to 97 %"),
        ("the same of Wilson's at one exact share (counts are whole: it jumps)", share, ""),
        ("a gate's rule holds where it should, at the size called enough", f"{r['gate_power']:.1%} or more", "80 %"),
    ]


def _contamination(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [("GSM8K's test items looked for in 100 MB of text", f"{r['seconds']:.1f} s", "20 s")]


def _toxicity(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [("toxicity head (6.6 kB), area under the ROC curve, held out", f"{r['auc']['estimate']:.3f}", "")]


def _sandbox(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    rival = f"; bubblewrap {r['bubblewrap_ms']:.0f} ms, plain Python {r['plain_python_ms']:.0f} ms" if "bubblewrap_ms" in r else ""
    return [
        ("ways out of the sandbox tried, and contained", f"{r['escapes_contained']} of {r['escapes']}", "40, all"),
        ("a program in the sandbox, cold / warm", f"{r['cold_ms']:.0f} / {r['warm_ms']:.1f} ms{rival}", "30 / 5 ms"),
        (f"processes, mounts, descriptors, files left by {r['runs']:,} runs", str(r["left_behind"]), "0"),
    ]


def _unit_tests(r: dict[str, Any]) -> list[tuple[str, str, str]]:
    (lowered, of), right = r["lowered_in_all"], r["reference_solutions_given_1"]
    whole = f"{right['estimate'] * right['of']:.0f} of {right['of']}"
    figure = f"{lowered:,} of {of:,}; {whole}"
    return [("unit-test reward on HumanEval: programs given less with one place spoilt; reference solutions given 1", figure, "")]


_ROWS = {
    "up": _up,
    "large": _large,
    "rag": _rag,
    "startup": _startup,
    "demo": _demo,
    "sft_vs_trl": _sft_vs_trl,
    "accelerator": _accelerator,
    "align_accelerator": _align_accelerator,
    "dpo_vs_trl": _dpo,
    "ppo_vs_trl": _ppo,
    "grpo_vs_trl": _grpo,
    "generate_vs_hf": _generate,
    "eval_vs_lm_eval": _lm_eval,
    "statistics": _statistics,
    "contamination": _contamination,
    "toxicity": _toxicity,
    "sandbox": _sandbox,
    "unit_test_reward": _unit_tests,
}


if __name__ == "__main__":
    main()
