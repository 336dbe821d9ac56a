"""Prompt tuning: a few vectors before the text, in the place of words, are all that moves.

They begin as the vectors of real words. What they have become can be read: the words nearest to each by cosine, and whether those words
are closer to one another than the neighbours of random vectors are (`tightness`).

Source     Lester et al. 2021, arXiv:2104.08691, sections 2 and 7 (neighbours of learnt prompts form tight clusters)
Dims       N virtual tokens   V vocabulary   D hidden   K neighbours
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt

from mygpt.core.config import Config
from mygpt.lm.adapters.imported_peft import imported_peft
from mygpt.lm.adapters.peft_model import require_virtual_tokens, task_type, wrapped
from mygpt.lm.adapters.real_words import INSTRUCTION, ids_of, words


class Prompt(Config):
    """Learnt vectors in place of words, before every text."""

    name: Literal["prompt"] = "prompt"
    learning_rate: PositiveFloat = 1e-2
    num_tokens: PositiveInt = 20
    text: str = INSTRUCTION  # whose words they begin as; empty: common words, drawn


def attach(module: Any, method: Prompt, *, tokenizer: Any, whole: Sequence[str] = ()) -> Any:
    require_virtual_tokens(module, method="Prompt tuning")
    task = task_type(module)
    one: dict[str, Any] = {"num_transformer_submodules": 1} if task == "SEQ_2_SEQ_LM" else {}  # before the encoder's text only
    settings = imported_peft().PromptTuningConfig(task_type=task, num_virtual_tokens=method.num_tokens, **one)
    made = wrapped(module, settings, whole)
    ids = torch.tensor(ids_of(method.text, tokenizer, num_tokens=method.num_tokens), device=module.device)
    with torch.no_grad():
        made.prompt_encoder["default"].embedding.weight.copy_(module.get_input_embeddings()(ids))
    return made


@torch.no_grad()
def facts(module: Any, tokenizer: Any) -> dict[str, Any]:
    """What the learnt prompt of a peft model (prompt or p-tuning) is near to, for its manifest."""
    prompt_ND = module.get_prompt_embedding_to_save("default").float()
    words_VD = module.get_input_embeddings().weight.float().cpu()
    near = nearest_words(prompt_ND, words_VD, num_neighbours=5)
    rows = [[[*words([i], tokenizer), round(cosine, 3)] for i, cosine in row] for row in near]
    generator = torch.Generator().manual_seed(0)
    random_ND = torch.randn(prompt_ND.shape, generator=generator)
    tight = {name: round(float(tightness(v, words_VD).mean()), 4) for name, v in (("learnt", prompt_ND), ("random", random_ND))}
    return {"nearest_words": rows, "tightness": tight}


def nearest_words(vectors_ND: torch.Tensor, words_VD: torch.Tensor, *, num_neighbours: int) -> list[list[tuple[int, float]]]:
    """Of each vector the rows of `words_VD` with the highest cosine, best first: (row, cosine)."""
    cosines_NV = F.normalize(vectors_ND, dim=-1) @ F.normalize(words_VD, dim=-1).T
    found = cosines_NV.topk(min(num_neighbours, len(words_VD)), dim=-1)
    return [list(zip(ids, values, strict=True)) for ids, values in zip(found.indices.tolist(), found.values.tolist(), strict=True)]


def tightness(vectors_ND: torch.Tensor, words_VD: torch.Tensor, *, num_neighbours: int = 10) -> torch.Tensor:
    """(N): of each vector, the mean cosine between two of the words nearest to it."""
    words_VD = F.normalize(words_VD, dim=-1)
    near_NK = (F.normalize(vectors_ND, dim=-1) @ words_VD.T).topk(num_neighbours, dim=-1).indices
    near_NKD = words_VD[near_NK]
    cosines_NKK = near_NKD @ near_NKD.transpose(1, 2)
    return (cosines_NKK.sum((1, 2)) - num_neighbours) / (num_neighbours * (num_neighbours - 1))
