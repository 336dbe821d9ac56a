"""Batched generation against transformers, in one run: 64 prompts of mixed length, greedy, answers of lengths fixed by seed.

    python -m benchmarks.generate_vs_hf --texts ../shared/data --json --keep

Rivals: `transformers.generate` at the best of several batch sizes (prompts sorted by length, left padding, finished rows stop
counting), in a process of its own, and transformers' own continuous batching. Lengths are forced alike in all three. `ratio`: answers of 8
to 128 tokens; `ratio_equal`: all of 128. Beside it, `ratio_with_our_memory_setting`: the rival in our process, which keeps freed memory
(lm/memory.py); where the system's memory is slow to map, that alone makes it several times faster. The share of the machine's limits:
products of the weights against a measured matrix product, weights read per step against measured bandwidth. In float32 the greedy ids of
both are compared.
"""

import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.hf_generate_side import generate
from benchmarks.large import paragraphs
from benchmarks.record import arguments, finish
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.core.home import find_home
from mygpt.core.run import Run
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.load import Loaded, load_lm
from mygpt.lm.sources import obtain

_PROMPTS, _SHORTEST, _LONGEST = 64, 8, 128
_BATCH_SIZES = (16, 32, 64)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--texts", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--repeats", type=int, default=2, help="of every timing; the best counts")
    parser.add_argument("--without-continuous", action="store_true", help="leave transformers' continuous batching out")
    options = parser.parse_args()
    model = obtain(options.model, run=Run(find_home(None), name="benchmark"))
    loaded = load_lm(model)
    engine = TorchEngine(model, loaded=loaded)
    conversations = questions(paragraphs(options.texts))
    prompts = [engine.renderer.prompt(c) for c in conversations]
    order = random.Random(0)
    mixed = [order.randint(_SHORTEST, _LONGEST) for _ in prompts]
    equal = [_LONGEST] * len(prompts)

    figures: dict[str, Any] = {"model": model.id, "prompts": len(prompts), "prompt_tokens": sum(map(len, prompts))}
    figures |= {"dtype": str(loaded.module.dtype), "device": str(loaded.device), "threads": torch.get_num_threads()}
    for name, lengths in (("mixed", mixed), ("equal", equal)):
        own = best_of(options.repeats, lambda n=lengths: ours(engine, conversations, n), loaded)
        helped = {
            size: best_of(options.repeats, lambda n=lengths, b=size: generate(loaded.module, prompts, n, b), loaded)
            for size in _BATCH_SIZES
        }
        theirs = as_installed(loaded, prompts, lengths, options.repeats)
        best = min(theirs, key=lambda size: theirs[size])
        tokens = sum(lengths)
        figures[name] = {
            "tokens": tokens,
            "tokens_per_second": round(tokens / own, 1),
            "transformers_tokens_per_second": {str(size): round(tokens / seconds, 1) for size, seconds in theirs.items()},
            "transformers_best_batch": best,
            "ratio": round(theirs[best] / own, 2),
            "transformers_tokens_per_second_with_our_memory_setting": {str(size): round(tokens / s, 1) for size, s in helped.items()},
            "ratio_with_our_memory_setting": round(min(helped.values()) / own, 2),
            **limits(loaded, prompts, lengths, own),
        }
        if name == "mixed" and not options.without_continuous:
            seconds = best_of(options.repeats, lambda n=lengths: continuous(loaded, prompts, n), loaded)
            figures[name]["continuous_batching_tokens_per_second"] = round(tokens / seconds, 1)
            figures[name]["ratio_continuous"] = round(seconds / own, 2)
    figures["ratio"], figures["ratio_equal"] = figures["mixed"]["ratio"], figures["equal"]["ratio"]
    figures["float32_greedy_ids_equal"] = (same := equal_ids(model, conversations, prompts, mixed)) == len(prompts)
    figures["float32_prompts_with_equal_ids"] = same
    finish("generate_vs_hf", figures, options)


def questions(pool: Sequence[str]) -> list[Conversation]:
    """Prompts of 10 to about 300 words: a question, or a question about a text."""
    order = random.Random(1)
    asked = []
    for number in range(_PROMPTS):
        words = " ".join(order.sample(list(pool), 4)).split()[: order.randint(5, 280)]
        asked.append(Conversation((Message("user", f"{' '.join(words)}\n\nSay in a few sentences what this is about ({number})."),)))
    return asked


def best_of(repeats: int, work: Callable[[], None], loaded: Loaded) -> float:
    """Seconds of the fastest run."""
    seconds = []
    for _ in range(repeats):
        gc.collect()
        synchronise(loaded)
        started = time.perf_counter()
        work()
        synchronise(loaded)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def synchronise(loaded: Loaded) -> None:
    if loaded.device.type == "cuda":
        torch.cuda.synchronize()


def ours(engine: TorchEngine, conversations: Sequence[Conversation], lengths: Sequence[int]) -> list[tuple[int, ...]]:
    answers = engine.complete_each(conversations, [Sampling(max_tokens=n, min_tokens=n) for n in lengths])
    assert [len(a.token_ids) for a in answers] == list(lengths)
    return [a.token_ids for a in answers]


def as_installed(loaded: Loaded, prompts: Sequence[Sequence[int]], lengths: Sequence[int], repeats: int) -> dict[int, float]:
    """Seconds of `transformers.generate` by batch size, in a process that has nothing of ours."""
    asked = {"model": str(loaded.model.payload), "prompts": [list(p) for p in prompts], "lengths": list(lengths), "repeats": repeats}
    asked |= {"batch_sizes": _BATCH_SIZES, "threads": torch.get_num_threads()}
    script = Path(__file__).parent / "hf_generate_side.py"
    done = subprocess.run([sys.executable, "-P", str(script)], input=json.dumps(asked), capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    return {int(size): seconds for size, seconds in json.loads(done.stdout.splitlines()[-1]).items()}


def continuous(loaded: Loaded, prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
    from transformers import GenerationConfig

    before = loaded.module.config._attn_implementation
    config = GenerationConfig(do_sample=False, max_new_tokens=max(lengths), eos_token_id=-1, pad_token_id=2)
    counted = 0
    try:
        with loaded.module.continuous_batching_context_manager(generation_config=config) as manager:
            for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
                manager.add_request(list(prompts[i]), request_id=f"r{i}", max_new_tokens=lengths[i], eos_token_id=-1)
            finished = 0
            while finished < len(prompts):
                result = manager.get_result(timeout=300)
                assert result is not None, "continuous batching gave no answer for 300 s"
                if result.is_finished():
                    finished += 1
                    counted += len(result.generated_tokens)
    finally:
        loaded.module.set_attn_implementation(before)
    assert counted == sum(lengths), (counted, sum(lengths))


def equal_ids(model: Any, conversations: Sequence[Conversation], prompts: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Of how many prompts."""
    loaded = load_lm(model, dtype=torch.float32)
    engine = TorchEngine(model, loaded=loaded)
    alone = [tuple(generate(loaded.module, [list(p)], [n], 1)[0]) for p, n in zip(prompts, lengths, strict=True)]
    return sum(one == other for one, other in zip(ours(engine, conversations, lengths), alone, strict=True))


def limits(loaded: Loaded, prompts: Sequence[Sequence[int]], lengths: Sequence[int], seconds: float) -> dict[str, float]:
    """Shares of a measured bf16 matrix product and of measured bandwidth (weights once a step of a full batch)."""
    weights = sum(p.numel() for p in loaded.module.parameters())
    product = 2 * weights * (sum(map(len, prompts)) + sum(lengths))
    size = 2_048
    a, b = (torch.randn(size, size, dtype=loaded.module.dtype, device=loaded.device) for _ in range(2))
    flops = 2 * size**3 / best_of(5, lambda: torch.mm(a, b), loaded)
    long = torch.ones(256_000_000 // 4, dtype=torch.float32, device=loaded.device)
    bandwidth = 256e6 / best_of(5, lambda: long.sum(), loaded)
    read = max(lengths) * weights * loaded.module.dtype.itemsize
    return {
        "matmul_gflops": round(flops / 1e9),
        "bandwidth_gb_per_s": round(bandwidth / 1e9, 1),
        "share_of_matmul_limit": round(product / seconds / flops, 3),
        "share_of_bandwidth_limit": round(read / seconds / bandwidth, 3),
    }


if __name__ == "__main__":
    main()
