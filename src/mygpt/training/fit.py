"""Whether a training fits this machine, before its weights are loaded; and what to change where it does not.

    forecast = require_memory(config, work_of, home=run.home)
    run.note(f"Training needs {forecast.told()}.")
    ...                                                          training
    facts |= compared(forecast, steps, home=run.home)            what was said, kept beside what was measured (`ledger`)

`work_of(config)` is the training as it would be with these settings or others.

Source  ours; the arithmetic: `training/forecast`
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

from mygpt.artifacts.model import Model
from mygpt.core.errors import MygptError
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.load import preferred_device
from mygpt.lm.memory import give_back_freed_memory
from mygpt.training.activations import ForwardPass, answer_pass, answers_of
from mygpt.training.batches import Plan
from mygpt.training.forecast import Forecast, forecast_training, require_fit
from mygpt.training.machine import memory_limit_bytes, remember_share, resident_bytes
from mygpt.training.steps import Examples, Steps
from mygpt.training.tuning import TuningConfig, module_for, plan_epochs

C = TypeVar("C", bound=TuningConfig)
_SMALLEST = 64  # tokens of a micro-batch that is worth trying


class Work(NamedTuple):
    module: Any  # on the meta device, the method attached
    plan: Plan
    examples: Examples
    forward: ForwardPass
    copy_bytes: int = 0  # of a frozen model beside it
    sampling_bytes: int | None = None  # between updates, beside the weights, where answers are sampled; None: none are


def require_memory(
    config: C,
    work_of: Callable[[C], Work],
    *,
    size: tuple[str, int] | None = None,
    others: Sequence[Mapping[str, Any]] = (),
    home: Path,
) -> Forecast:
    """What training will need. Raises Refused when this machine does not have it, with what to change.

    `size`: the setting that bounds a forward pass, and what it comes to; without, `micro_batch_tokens`. `others`: settings that would need
    less besides, the least change first.
    """
    device = preferred_device()
    give_back_freed_memory()  # of earlier work of this process: it does not count
    limit_bytes, process_bytes = memory_limit_bytes(device), resident_bytes(device)

    def with_settings(changed: C) -> Forecast:
        work = work_of(changed)
        return forecast_training(
            work.module,
            plan=work.plan,
            examples=work.examples,
            forward=work.forward,
            device=device,
            home=home,
            process_bytes=process_bytes,
            four_bits=methods.base_weights(changed.method) == "nf4",
            copy_bytes=work.copy_bytes,
            sampling_bytes=work.sampling_bytes,
        )

    def changes() -> Iterator[tuple[str, Forecast]]:
        name, most = size or ("micro_batch_tokens", config.micro_batch_tokens)
        tried: list[Mapping[str, Any]] = [{"method": LoRA()}] if isinstance(config.method, Full) else []
        tried += [{name: most >> n} for n in range(1, 12) if most >> n >= _SMALLEST]
        tried += [{"recompute": True}] if not config.recompute else []
        for change in (*tried, *others):
            try:
                yield _said(change), with_settings(config.model_copy(update=change))
            except MygptError:  # what this model or head does not take
                continue

    forecast = with_settings(config)
    require_fit(forecast, limit_bytes=limit_bytes, changes=changes())
    return forecast


def require_rows_memory(
    head: str,
    config: C,
    model: Model,
    examples: Examples,
    forward: ForwardPass,
    *,
    labels: Sequence[str] = (),
    step_tokens: int,
    order: Callable[[str], Random],
    home: Path,
) -> Forecast:
    """`require_memory` of `model` with a head, learning `examples` in rows of one each (`tuning.plan_epochs`)."""

    def work_of(changed: C) -> Work:
        plan = plan_epochs(examples.num_tokens, changed, step_tokens=step_tokens, order=order)
        return Work(module_for(head, model, changed, labels=labels), plan, examples, forward)

    return require_memory(config, work_of, home=home)


def require_answers_memory(
    config: C, model: Model, sizes: Sequence[tuple[int, int]], *, step_tokens: int, order: Callable[[str], Random], home: Path
) -> Forecast:
    """The same of an encoder-decoder. `sizes`: tokens that are read and written, of each example."""
    known = Examples((), num_tokens=[sum(size) for size in sizes], num_trained=[written for _, written in sizes])
    forward = ForwardPass(answer_pass, answers_of(sizes))
    return require_rows_memory("seq2seq_lm", config, model, known, forward, step_tokens=step_tokens, order=order, home=home)


def foreseen(forecast: Forecast, *, examples: int, longer_than_allowed: int = 0) -> dict[str, Any]:
    """What `--dry-run` says of a training."""
    counted = {"examples": examples, "longer_than_allowed": longer_than_allowed}
    return {"needs": forecast.told(), **counted, **forecast.facts()}


def nothing_to_learn() -> dict[str, Any]:
    return {"needs": "nothing: the training set is empty, which is refused", "examples": 0}


def compared(forecast: Forecast, steps: Steps, *, home: Path) -> dict[str, Any]:
    """The forecast as a fact. The share of the limit that was reached, as the forecast counts operations, is remembered for the next of its
    kind: it may know of heads that the ledger leaves out."""
    took = steps.ledger
    remember_share(forecast.kind, forecast.flops / max(took.seconds, 1e-9) / took.limit_flops_per_second, home)
    return {"forecast": forecast.facts()}


def _said(change: Mapping[str, Any]) -> str:
    """As it is written on the command line."""
    values = {key: value.name if isinstance(value, LoRA) else str(value).lower() for key, value in change.items()}
    return " ".join(f"`--set {key}={value}`" for key, value in values.items())
