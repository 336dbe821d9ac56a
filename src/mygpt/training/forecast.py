"""What a training will need, from config.json alone, before any weight is loaded: memory by part, and time.

    forecast = forecast_training(module, ...)   `module` from `lm/load.blueprint`, the method attached
    require_fit(forecast, ...)                  raises Refused, with what to change, when this machine does not have it

Weights, gradients and optimiser state are counted; activations are what autograd keeps for the backward pass, found by one forward pass
of the largest micro-batch on tensors without data, so that any architecture, method and attention counts as it is. Three moments are
compared: loading (the file beside the weights), the backward pass, and the update (float32 gradients, when the activations are gone).
On a CPU, blocks that come and go between those that stay leave holes in the C library's heap: 0.6 of what they hold themselves.
Time is the plan's operations over the measured product and the share of it that the last training of the kind reached on this machine.

Source  the parts: Rajbhandari et al. 2019, arXiv:1910.02054, section 3
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mygpt.core.digest import digest_value
from mygpt.core.errors import Refused
from mygpt.lm.attention import grouped_attention
from mygpt.training.batches import Plan
from mygpt.training.flops import flops_of
from mygpt.training.machine import device_words, matmul_flops_per_second, reached_share

_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # of a weight: itself, a scale for each 64, a scale of these for each 256
STATE_BYTES = 12  # of AdamW for a trained weight: a float32 master and two moments
_HOLES = {"cpu": 0.6}  # of activations and logits, docs/training/forecast.md
_FIRST_SHARE = {"cpu": 0.1, "cuda": 0.35}  # of the limit, until a training of the kind has shown what it reaches

_ACTIVATIONS: dict[str, int | None] = {}  # by everything that they depend on: half a second each


@dataclass(frozen=True)
class Forecast:
    weights_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int | None  # None: this architecture does not run without data
    logits_bytes: int
    holes_bytes: int
    process_bytes: int  # what the process held before
    seconds: float
    flops: float
    trained_weights: int
    kind: str  # of training and machine, for the share of the limit that it reaches

    @property
    def bytes(self) -> int:
        """The most at once."""
        loading = 2 * self.weights_bytes
        backward = self.weights_bytes + self.optimizer_bytes + self.gradient_bytes
        backward += (self.activation_bytes or 0) + self.logits_bytes + self.holes_bytes
        update = self.weights_bytes + self.optimizer_bytes + 4 * self.trained_weights
        return self.process_bytes + max(loading, backward, update)

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "bytes": self.bytes}

    def told(self) -> str:
        """`about 1.4 GB (weights 0.27, optimiser 0.06, ...) and 3 minutes`"""
        parts: dict[str, int | None] = {"process": self.process_bytes, "weights": self.weights_bytes, "gradients": self.gradient_bytes}
        parts |= {"optimiser": self.optimizer_bytes, "activations": self.activation_bytes, "logits": self.logits_bytes}
        parts["holes"] = self.holes_bytes
        said = ", ".join(f"{name} {'unknown' if value is None else gigabytes(value)}" for name, value in parts.items())
        time = f"{self.seconds:.0f} s" if self.seconds < 120 else f"{self.seconds / 60:.0f} minutes"
        return f"about {gigabytes(self.bytes)} GB of memory ({said}) and {time}"


def forecast_training(
    module: Any,
    *,
    plan: Plan,
    num_tokens: Sequence[int],
    num_trained: Sequence[int],
    device: torch.device,
    home: Path,
    process_bytes: int,
    packed: bool = False,
    four_bits: bool = False,
) -> Forecast:
    """Of the `plan` with a `module` from `lm/load.blueprint`, whose `requires_grad` says what is trained. Its tensors are replaced.

    `packed`: a micro-batch is one row, whose examples do not see one another. `four_bits`: how frozen linear layers are held (NF4).
    """
    parameters = list(module.parameters())
    trained = [p for p in parameters if p.requires_grad]
    flops = flops_of(module)
    in_four_bits = {id(p) for p in _frozen_linear(module)} if four_bits else set()
    micro_batches = [micro for step in plan for micro in step]
    shapes = {_shape([num_tokens[i] for i in micro], packed=packed) for micro in micro_batches}
    rows, tokens = max(shapes, key=lambda shape: (shape[0] * shape[1], shape[1]))
    labels = max(sum(num_trained[i] for i in micro) for micro in micro_batches)
    total = sum(flops.of([num_tokens[i] for i in micro], num_labels=sum(num_trained[i] for i in micro)) for micro in micro_batches)
    config, dtype = module.config.get_text_config(), parameters[0].dtype
    share_trained = sum(p.numel() for p in trained) / sum(p.numel() for p in parameters)
    shape = f"{config.model_type} {config.num_hidden_layers} x {config.hidden_size}"
    kind = f"{device_words(device, dtype)}, {shape}, {share_trained:.1%} trained"
    limit = matmul_flops_per_second(device, dtype, home) * (reached_share(kind, home) or _FIRST_SHARE.get(device.type, 0.1))
    activations = activation_bytes(module, rows=rows, tokens=tokens, device=device)
    logits = labels * config.vocab_size * (dtype.itemsize + 3 * 4)  # as computed; float32, its log-softmax, its gradient
    return Forecast(
        weights_bytes=round(sum(p.numel() * (_NF4_BYTES if id(p) in in_four_bits else p.element_size()) for p in parameters)),
        gradient_bytes=sum(p.numel() * p.element_size() for p in trained),
        optimizer_bytes=STATE_BYTES * sum(p.numel() for p in trained),
        activation_bytes=activations,
        logits_bytes=logits,
        holes_bytes=round(_HOLES.get(device.type, 0.0) * ((activations or 0) + logits)),
        process_bytes=process_bytes,
        seconds=total / limit,
        flops=total,
        trained_weights=sum(p.numel() for p in trained),
        kind=kind,
    )


def _frozen_linear(module: Any) -> list[torch.Tensor]:
    head = module.get_output_embeddings()
    linear = [part for part in module.modules() if isinstance(part, torch.nn.Linear) and part is not head]
    return [part.weight for part in linear if not part.weight.requires_grad]


def _shape(lengths: Sequence[int], *, packed: bool) -> tuple[int, int]:
    """(rows, tokens) of a micro-batch. A packed one holds no more attention weights than as many tokens in rows of its longest example."""
    longest = max(lengths)
    return (math.ceil(sum(lengths) / longest) if packed else len(lengths)), longest


def activation_bytes(module: Any, *, rows: int, tokens: int, device: torch.device) -> int | None:
    """What a forward pass of this shape keeps for the backward pass. `module` is on the meta device; its tensors are replaced."""
    shapes = [(name, list(p.shape), str(p.dtype), p.requires_grad) for name, p in module.named_parameters()]
    asked = digest_value([module.config.to_json_string(use_diff=False), shapes, rows, tokens, str(device)])
    if asked not in _ACTIVATIONS:
        _ACTIVATIONS[asked] = _kept_for_backward(module, rows=rows, tokens=tokens, device=device)
    return _ACTIVATIONS[asked]


def _kept_for_backward(module: Any, *, rows: int, tokens: int, device: torch.device) -> int | None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    without_data = FakeTensorMode()
    _replace_tensors(module, without_data, device)
    weights = {p.untyped_storage()._cdata for p in module.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that its address is not used again
        return tensor

    try:
        with without_data, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), grouped_attention(module):
            ids_BT = torch.zeros((rows, tokens), dtype=torch.long, device=device)
            module.get_decoder()(input_ids=ids_BT, use_cache=False)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError):
        return None  # its forward pass looks at values
    return sum(storage.nbytes() for storage in kept.values())


def _replace_tensors(module: Any, without_data: Any, device: torch.device) -> None:
    """Meta tensors by ones that claim to lie on `device`, where the attention of that device is chosen."""
    made: dict[int, torch.Tensor] = {}
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    with without_data:
                        empty = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    is_weight = isinstance(tensor, torch.nn.Parameter)
                    made[id(tensor)] = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_weight else empty
                table[name] = made[id(tensor)]


def require_fit(forecast: Forecast, *, limit_bytes: int, changes: Iterable[tuple[str, Forecast]]) -> None:
    """Raises Refused when the training does not fit; `changes` are what to set instead, the least first, and the forecast with each."""
    if forecast.bytes <= limit_bytes:
        return
    helps = (f"{text} ({gigabytes(changed.bytes)} GB)" for text, changed in changes if changed.bytes <= limit_bytes)
    fitting = list(itertools.islice(helps, 2))  # no more are tried
    fix = f"Try {', or '.join(fitting)}." if fitting else "Choose a smaller model, or a machine with more memory."
    raise Refused(f"Training needs {forecast.told()}, and this machine has {gigabytes(limit_bytes)} GB.", fix=fix)


def gigabytes(number: float) -> str:
    return f"{number / 1e9:.2f}" if number < 1e10 else f"{number / 1e9:.1f}"
