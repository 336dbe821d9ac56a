"""lm-eval's half of `eval_vs_lm_eval`: run in its own environment, it knows nothing of mygpt.

Reads requests as JSON, gives them to lm-eval's Hugging Face backend, prints results and seconds as JSON on the last line. The batch size
is the fastest of a few on the first requests. Loading the model, building the task and bootstrapping are not timed.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

EXACT = 16  # texts whose sum is also taken in float64
PROBE_SHARE = 5  # one in five requests, at least eight, for each batch size


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    lm = HFLM(pretrained=given["model"], device="cpu", dtype=given["dtype"], batch_size=1)
    calls: dict[str, Callable[[list[Instance]], Any]] = {
        "loglikelihood": lambda requests: [float(r[0]) for r in lm.loglikelihood(requests, disable_tqdm=True)],
        "loglikelihood_rolling": lambda requests: [float(r) for r in lm.loglikelihood_rolling(requests, disable_tqdm=True)],
        "generate_until": lambda requests: lm.generate_until(requests, disable_tqdm=True),
    }
    found: dict[str, Any] = {}
    for kind, arguments in given["requests"].items():
        requests = [Instance(kind, {}, tuple(a), i, ("bench", i, 1)) for i, a in enumerate(arguments)]
        calls[kind](requests[:2])
        some, sizes = requests[: max(8, len(requests) // PROBE_SHARE)], given["batch_sizes"]
        probes = {size: timed(lm, size, calls[kind], some)[1] for size in sizes} if len(sizes) > 1 else {sizes[0]: 0.0}
        fastest = min(probes, key=lambda size: probes[size])
        results, seconds = timed(lm, fastest, calls[kind], requests)
        found[kind] = {"results": results, "seconds": seconds, "batch_size": fastest, "probe_seconds": probes}
        if kind == "loglikelihood_rolling":
            lm.softmax_dtype = torch.float64  # its float32 sum over hundreds of tokens is off by some 3e-3; this is for equality, not timed
            found[kind]["exact"] = calls[kind](requests[:EXACT])
            lm.softmax_dtype = None
    raw = {  # for equality, not timed
        kind: [Instance(kind, {}, tuple(a), i, ("bench", i, 1)) for i, a in enumerate(arguments)]
        for kind, arguments in given["raw"].items()
    }
    found["raw"] = {
        "texts": lm.generate_until(raw["generate_until"], disable_tqdm=True),
        "greedy": [bool(r[1]) for r in lm.loglikelihood(raw["loglikelihood"], disable_tqdm=True)],
    }
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def timed(lm: HFLM, batch_size: int, call: Callable[[list[Instance]], Any], requests: list[Instance]) -> tuple[Any, float]:
    lm.batch_size_per_gpu = batch_size
    started = time.perf_counter()
    results = call(requests)
    return results, time.perf_counter() - started


if __name__ == "__main__":
    main()
