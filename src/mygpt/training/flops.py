"""Floating-point operations of training, by what has to be computed and not by what happens to be.

A weight of a matrix costs 2 for each token that passes it forwards, 2 more where the gradient goes on to what lies before it, and 2 more
where it is trained itself: 6 when all is trained, 4 for a frozen weight among adapters, 2 for a frozen weight below the first trained one.
Attention costs 4 S H forwards for each token of a layer (S tokens in its sequence), and twice that backwards.
The vocabulary product counts where a label is. Padding and recomputed activations are no useful work and do not count.

Source     6 N + 12 L H S: Chowdhery et al. 2022, arXiv:2204.02311, appendix B
We differ  4 N and 2 N for frozen weights; the head only where a label is; S is each sequence's own length, not the batch's. As there, the
           half of the scores that a causal mask hides counts; norms, activations and embeddings do not. Matrices that stand side by side
           at the very bottom (k, v beside an adapter of q) count as if the gradient passed the first of them. Of an encoder-decoder the
           labels pass the decoder and the other tokens the encoder; keys and values of its cross attention count with the labels, and
           its pairs as if one stack had read both
Dims       H heads x head size   L layers   S tokens of a sequence
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Flops:
    per_token: float
    per_label: float  # of the vocabulary product; of an encoder-decoder, of its decoder in place of its encoder, too
    per_pair: float  # a sequence of S tokens has S^2 pairs

    def of(self, lengths: Iterable[int], *, num_labels: int) -> float:
        lengths = list(lengths)
        return self.per_token * sum(lengths) + self.per_label * num_labels + self.per_pair * sum(s * s for s in lengths)


def flops_of(module: Any) -> Flops:
    """Of a transformers model as it stands: `requires_grad` says what is trained. Its weights may be on the meta device."""
    config = module.config.get_text_config()
    head = module.get_output_embeddings()
    in_head = {id(p) for p in head.parameters()} if head is not None else set()
    body = [(owner, p) for owner, p in _parameters(module) if id(p) not in in_head]
    lowest = _lowest_trained(module, body)

    writes = getattr(module.config, "is_encoder_decoder", False) and head is not None  # a classifier's decoder reads what its encoder reads
    in_decoder = {id(p) for p in module.get_decoder().parameters()} if writes else set()
    per_token = per_written = 0.0
    for place, (owner, p) in enumerate(body):
        operations = _matrix_weights(owner, p, config) * (2.0 + 2.0 * (place > lowest) + 2.0 * p.requires_grad)
        if id(p) in in_decoder:
            per_written += operations
        else:
            per_token += operations
    per_label = sum((4.0 + 2.0 * p.requires_grad) * p.numel() for p in head.parameters() if p.ndim == 2) if head is not None else 0.0
    if writes:
        per_label += per_written - per_token
    places = {id(p): place for place, (_, p) in enumerate(body)}
    above = sum(max(places.get(id(p), -1) for p in layer.parameters()) >= lowest for layer in _layers(module, config))
    heads = getattr(config, "num_attention_heads", None)  # none: a running state, no pairs (Mamba)
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads) if heads else 0
    return Flops(per_token, per_label, 4.0 * width * (config.num_hidden_layers + 2 * above))


def _parameters(module: Any) -> Iterator[tuple[Any, torch.nn.Parameter]]:
    """(the module that holds it, parameter) in the order in which a model defines its parts, which is that of its forward pass."""
    seen: set[int] = set()
    for owner in module.modules():
        for p in owner.parameters(recurse=False):
            if id(p) not in seen:
                seen.add(id(p))
                yield owner, p


def _lowest_trained(module: Any, body: list[tuple[Any, torch.nn.Parameter]]) -> int:
    """Place of the first trained parameter, where the gradient ends on its way down; -1 where the model's input itself is trained."""
    if any(p.requires_grad and "prompt_encoder" in name for name, p in module.named_parameters()):
        return -1  # peft's name for trained tokens before the text: defined last, they come in first
    if any(p.requires_grad for p in module.get_input_embeddings().parameters()):
        return -1  # a tied one stands with the head
    return next((place for place, (_, p) in enumerate(body) if p.requires_grad), len(body))


def _matrix_weights(owner: Any, weight: torch.nn.Parameter, config: Any) -> float:
    """Weights that one token is multiplied with; of a mixture of experts those of the chosen ones."""
    if isinstance(owner, torch.nn.Embedding) or weight.ndim < 2:
        return 0.0
    if weight.ndim == 2:
        packed = not weight.dtype.is_floating_point and hasattr(owner, "in_features")  # 4-bit weights: two in a byte
        return float(owner.in_features * owner.out_features if packed else weight.numel())
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    chosen = getattr(config, "num_experts_per_tok", None)
    return weight.numel() * (chosen / experts if experts and chosen else 1.0)


def _layers(module: Any, config: Any) -> list[Any]:
    lists = [part for part in module.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == config.num_hidden_layers]
    return list(lists[0]) if lists else []
