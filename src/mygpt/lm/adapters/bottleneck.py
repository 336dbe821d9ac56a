"""Bottleneck adapters: after the attention and after the feed-forward part of every layer, down to a few numbers, through GELU, up again,
and added to what went in.

    h + up(gelu(down(h)))        h: what the part is about to add to the stream

Begins as the base: `up` is zero. Several can stand on one base and be switched per row (`lm/adapter_rows`). Not in peft: an own
safetensors file and settings in JSON.

Source     Houlsby et al. 2019, arXiv:1902.00751, section 2.1 and figure 2
We differ  `up` is zero at the beginning, not near zero; the layer norms stay as they are
Dims       B rows   T tokens   D hidden   M bottleneck
Stored     adapter_model.safetensors: LAYER.{attention,mlp}.{down,up}.{weight,bias}, and what was trained whole (a new head) as head.NAME
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from mygpt.artifacts.model import Model
from mygpt.core.config import Config
from mygpt.core.errors import Damaged
from mygpt.lm.adapters.peft_model import is_within
from mygpt.lm.layers import layers, output_names

_ATTRIBUTE = "bottleneck_adapters"  # of the module that carries them
_HEAD = "head."


class Bottleneck(Config):
    """Small networks after the attention and after the feed-forward part of every layer."""

    name: Literal["bottleneck"] = "bottleneck"
    learning_rate: PositiveFloat = 1e-4
    size: PositiveInt = 64


class Adapter(nn.Module):
    """One residual bottleneck."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        nn.init.normal_(self.down.weight, std=width**-0.5)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, hidden_BTD: torch.Tensor) -> torch.Tensor:
        added_BTD: torch.Tensor = self.up(F.gelu(self.down(hidden_BTD)))
        return hidden_BTD + added_BTD


class Adapters(nn.Module):
    """All that a base carries, by name: adapter -> layer -> part. `rows` names the one of each row; without, `active` is every row's ("":
    the base's own way)."""

    def __init__(self) -> None:
        super().__init__()
        self.named = nn.ModuleDict()
        self.active = ""
        self.rows: Sequence[str] = ()

    def apply_at(self, layer: int, part: str, hidden_BTD: torch.Tensor) -> torch.Tensor:
        if not self.rows:
            return self._one(self.active, layer, part, hidden_BTD) if self.active else hidden_BTD
        assert len(self.rows) == len(hidden_BTD)
        made_BTD = hidden_BTD.clone()
        for name in dict.fromkeys(name for name in self.rows if name in self.named):
            own = torch.tensor([b for b, row in enumerate(self.rows) if row == name], device=hidden_BTD.device)
            made_BTD[own] = self._one(name, layer, part, hidden_BTD[own])
        return made_BTD

    def _one(self, name: str, layer: int, part: str, hidden_BTD: torch.Tensor) -> torch.Tensor:
        changed_BTD: torch.Tensor = self.named.get_submodule(f"{name}.{layer}.{part}")(hidden_BTD)
        return changed_BTD


def adapters_of(module: Any) -> Adapters | None:
    """Those that `module` carries."""
    found = getattr(module, _ATTRIBUTE, None)
    return found if isinstance(found, Adapters) else None


def attach(module: Any, method: Bottleneck, *, name: str = "default", whole: Sequence[str] = ()) -> Any:
    """`module` itself, frozen, with the adapters in it; a second one under another name."""
    carried = adapters_of(module)
    if carried is None:
        for parameter_name, parameter in module.named_parameters():
            parameter.requires_grad_(is_within(parameter_name, whole))
        carried = Adapters()
        carried.active = name
        for i, (_, layer) in enumerate(layers(module)):
            for part, end in zip(("attention", "mlp"), output_names(module, layer), strict=True):
                layer.get_submodule(end).register_forward_hook(partial(_changed, carried, i, part))
        module.add_module(_ATTRIBUTE, carried)
    width, reference = module.config.get_text_config().hidden_size, next(module.parameters())
    made = nn.ModuleDict()  # by number, not in a list: they are no layers of the model
    for i in range(len(layers(module))):
        made[str(i)] = nn.ModuleDict({part: Adapter(width, method.size) for part in ("attention", "mlp")})
    carried.named[name] = made.to(reference.device, module.dtype)
    return module


def _changed(carried: Adapters, layer: int, part: str, _: Any, __: Any, output_BTD: torch.Tensor) -> torch.Tensor:
    return carried.apply_at(layer, part, output_BTD)


def save(module: Any, method: Bottleneck, *, base: Model, folder: Path) -> None:
    from safetensors.torch import save_file

    carried = adapters_of(module)
    assert carried is not None
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in carried.named[carried.active].state_dict().items()}
    heads = [(name, p) for name, p in module.named_parameters() if p.requires_grad and not is_within(name, [_ATTRIBUTE])]
    tensors |= {_HEAD + name: p.detach().cpu().contiguous() for name, p in heads}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    named = base.manifest.provenance.get("repository") or base.id
    settings = {"method": method.name, "size": method.size, "base_model_name_or_path": named}
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True), encoding="utf-8")


def load(module: Any, folder: Path, *, name: str) -> Any:
    """Raises Damaged when the file does not hold what the base and the settings ask for."""
    from safetensors.torch import load_file

    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    attach(module, Bottleneck(size=settings["size"]), name=name)
    carried = adapters_of(module)
    assert carried is not None
    tensors = load_file(folder / "adapter_model.safetensors")
    heads = {key.removeprefix(_HEAD): tensors.pop(key) for key in list(tensors) if key.startswith(_HEAD)}
    try:
        carried.named[name].load_state_dict(tensors)
        module.load_state_dict(heads, strict=False)
    except RuntimeError as error:
        raise Damaged(f"{folder} does not hold bottleneck adapters for this base: {error}.", fix="Train the adapter again.") from error
    return module
