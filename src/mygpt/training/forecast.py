"""What a training will need, from config.json alone, before any weight is loaded: memory by part, and time.

    forecast = forecast_training(module, plan=plan, ...)     `module` without weights, the method attached
    require_fit(forecast, ...)                               raises Refused, with what to change, when this machine does not have it

Weights, gradients and optimiser state are counted; activations are what autograd keeps in the objective's own forward pass of the largest
micro-batch (`training/activations`). Three moments are compared: loading (the file beside the weights), the backward pass, and the update
(float32 gradients, when the activations are gone).
On a CPU, blocks that come and go between those that stay leave holes in the C library's heap: 0.6 of what they hold themselves, what
sampling held before an update too.
Time is the plan's operations over the measured product and the share of it that the last training of the kind reached on this machine.

Source  the parts: Rajbhandari et al. 2019, arXiv:1910.02054, section 3
"""

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mygpt.core.errors import Refused
from mygpt.training.activations import ForwardPass, activation_bytes
from mygpt.training.batches import Plan
from mygpt.training.flops import flops_of
from mygpt.training.machine import device_words, matmul_flops_per_second, reached_share
from mygpt.training.steps import Examples

_NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # of a weight: itself, a scale for each 64, a scale of these for each 256
STATE_BYTES = 12  # of AdamW for a trained weight: a float32 master and two moments
_HOLES = {"cpu": 0.6}  # of activations, logits and what sampling leaves, docs/training/forecast.md
_FIRST_SHARE = {"cpu": 0.1, "cuda": 0.35}  # of the limit, until a training of the kind has shown what it reaches


@dataclass(frozen=True)
class Forecast:
    weights_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int | None  # None: this architecture does not run without data
    logits_bytes: int
    holes_bytes: int
    process_bytes: int  # what the process held before
    seconds: float | None  # None: what is sampled meanwhile decides
    flops: float
    trained_weights: int
    steps: int
    tokens: int  # of all examples, each as often as it is seen; without padding
    kind: str  # of training and machine, for the share of the limit that it reaches
    copy_bytes: int = 0  # a frozen model beside the one that is trained
    sampling_bytes: int = 0  # between updates, where the model itself writes what it learns from

    @property
    def bytes(self) -> int:
        """The most at once."""
        held = self.weights_bytes + self.copy_bytes
        loading = held + max(self.weights_bytes, self.copy_bytes)
        backward = held + self.optimizer_bytes + self.gradient_bytes
        backward += (self.activation_bytes or 0) + self.logits_bytes + self.holes_bytes
        update = held + self.optimizer_bytes + 4 * self.trained_weights
        sampling = held + self.optimizer_bytes + self.sampling_bytes
        return self.process_bytes + max(loading, backward, update, sampling)

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "bytes": self.bytes}

    def told(self) -> str:
        """`about 1.4 GB (weights 0.27, optimiser 0.06, ...) and 3 minutes`"""
        parts: dict[str, int | None] = {"process": self.process_bytes, "weights": self.weights_bytes}
        parts |= {"reference": self.copy_bytes} if self.copy_bytes else {}
        parts |= {"gradients": self.gradient_bytes, "optimiser": self.optimizer_bytes, "activations": self.activation_bytes}
        parts |= {"logits": self.logits_bytes, "holes": self.holes_bytes}
        parts |= {"sampling, before it": self.sampling_bytes} if self.sampling_bytes else {}
        said = ", ".join(f"{name} {'unknown' if value is None else gigabytes(value)}" for name, value in parts.items())
        return f"about {gigabytes(self.bytes)} GB of memory ({said}) and {_time(self.seconds)}"


def forecast_training(
    module: Any,
    *,
    plan: Plan,
    examples: Examples,
    forward: ForwardPass,
    device: torch.device,
    home: Path,
    process_bytes: int,
    four_bits: bool = False,
    copy_bytes: int = 0,
    sampling_bytes: int | None = None,
) -> Forecast:
    """Of the `plan` with a `module` without weights, whose `requires_grad` says what is trained. Its tensors are replaced.

    `four_bits`: how frozen linear layers are held (NF4). With `sampling_bytes` lengths are what they may be at most, and time is unknown.
    """
    parameters = list(module.parameters())
    trained = [p for p in parameters if p.requires_grad]
    in_four_bits = {id(p) for p in _frozen_linear(module)} if four_bits else set()
    config, dtype = module.config.get_text_config(), parameters[0].dtype
    micro_batches = [micro for step in plan for micro in step]
    labels = [sum(examples.num_trained[i] for i in micro) for micro in micro_batches]
    flops = flops_of(module)
    total = sum(flops.of([examples.num_tokens[i] for i in micro], num_labels=n) for micro, n in zip(micro_batches, labels, strict=True))
    share_trained = sum(p.numel() for p in trained) / sum(p.numel() for p in parameters)
    shape = f"{config.model_type} {config.num_hidden_layers} x {config.hidden_size}"
    kind = f"{device_words(device, dtype)}, {shape}, {share_trained:.1%} trained, {forward.run.__name__.replace('_', ' ')}"
    limit = matmul_flops_per_second(device, dtype, home) * (reached_share(kind, home) or _FIRST_SHARE.get(device.type, 0.1))
    weights = sum(p.numel() * (_NF4_BYTES if id(p) in in_four_bits else p.element_size()) for p in parameters)
    largest = max({forward.shape_of(micro) for micro in micro_batches}, key=lambda shape: (shape[0] * sum(shape[1:]), sum(shape[1:])))
    activations = activation_bytes(module, forward.run, largest, device=device)
    most_labels = min(max(labels), forward.most_labels or max(labels))
    logits = max(map(forward.logits_of, micro_batches)) if forward.logits_of else most_labels * config.vocab_size
    logits *= dtype.itemsize + 3 * 4  # as computed; float32, its log-softmax, its gradient
    return Forecast(
        weights_bytes=round(weights),
        gradient_bytes=sum(p.numel() * p.element_size() for p in trained),
        optimizer_bytes=STATE_BYTES * sum(p.numel() for p in trained),
        activation_bytes=activations,
        logits_bytes=logits,
        holes_bytes=round(_HOLES.get(device.type, 0.0) * ((activations or 0) + logits + (sampling_bytes or 0))),
        process_bytes=process_bytes,
        seconds=total / limit if sampling_bytes is None else None,
        flops=total,
        trained_weights=sum(p.numel() for p in trained),
        steps=len(plan),
        tokens=sum(examples.num_tokens[i] for micro in micro_batches for i in micro),
        kind=kind,
        copy_bytes=copy_bytes,
        sampling_bytes=sampling_bytes or 0,
    )


def _frozen_linear(module: Any) -> list[torch.Tensor]:
    head = module.get_output_embeddings()
    linear = [part for part in module.modules() if isinstance(part, torch.nn.Linear) and part is not head]
    return [part.weight for part in linear if not part.weight.requires_grad]


def require_fit(forecast: Forecast, *, limit_bytes: int, changes: Iterable[tuple[str, Forecast]]) -> None:
    """Raises Refused when the training does not fit; `changes` are what to set instead, the least first, and the forecast with each."""
    if forecast.bytes <= limit_bytes:
        return
    helps = (f"{text} ({gigabytes(changed.bytes)} GB)" for text, changed in changes if changed.bytes <= limit_bytes)
    fitting = list(itertools.islice(helps, 2))  # no more are tried
    fix = f"Try {', or '.join(fitting)}." if fitting else "Choose a smaller model, or a machine with more memory."
    raise Refused(f"Training needs {forecast.told()}, and this machine has {gigabytes(limit_bytes)} GB.", fix=fix)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "a time that the answers decide"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def gigabytes(number: float) -> str:
    return f"{number / 1e9:.2f}" if number < 1e10 else f"{number / 1e9:.1f}"
