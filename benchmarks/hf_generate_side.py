"""`transformers.generate` as anybody runs it: a process of its own that imports nothing of mygpt, so that no setting of ours helps it.

Reads {"model", "prompts", "lengths", "batch_sizes", "threads", "repeats"} from standard input, prints {batch size: seconds} of the fastest
of the repeats. Prompts sorted by length, left padding, answers of forced lengths, finished rows stop counting.
"""

import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, StoppingCriteriaList


def generate(module: Any, prompts: list[list[int]], lengths: list[int], batch_size: int) -> list[list[int]]:
    made: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        longest = max(len(prompts[i]) for i in batch)
        ids_BT = torch.zeros((len(batch), longest), dtype=torch.long)
        mask_BT = torch.zeros((len(batch), longest), dtype=torch.long)
        for b, i in enumerate(batch):
            ids_BT[b, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask_BT[b, longest - len(prompts[i]) :] = 1
        wanted_B = torch.tensor([lengths[i] for i in batch], device=module.device)
        most = int(wanted_B.max())
        config = GenerationConfig(do_sample=False, max_new_tokens=most, min_new_tokens=most, eos_token_id=2, pad_token_id=2)

        def done(ids: torch.Tensor, scores: Any, wanted: torch.Tensor = wanted_B, begin: int = longest, **_: Any) -> torch.Tensor:
            return ids.shape[1] - begin >= wanted

        with torch.inference_mode():
            made_BT = module.generate(
                input_ids=ids_BT.to(module.device),
                attention_mask=mask_BT.to(module.device),
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([done]),
            )
        for b, i in enumerate(batch):
            made[i] = made_BT[b, longest : longest + lengths[i]].tolist()
            assert len(made[i]) == lengths[i]
    return made


def main() -> None:
    asked = json.load(sys.stdin)
    torch.set_num_threads(asked["threads"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.bfloat16).to(device).eval()
    seconds = {}
    for size in asked["batch_sizes"]:
        runs = []
        for _ in range(asked["repeats"]):
            started = time.perf_counter()
            generate(module, asked["prompts"], asked["lengths"], size)
            if device == "cuda":
                torch.cuda.synchronize()
            runs.append(time.perf_counter() - started)
        seconds[str(size)] = min(runs)
    sys.stdout.write(json.dumps(seconds) + "\n")


if __name__ == "__main__":
    main()
