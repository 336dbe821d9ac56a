"""Every method of tuning on a module of a few thousand weights: attached, disturbed, trained for some steps, saved."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from mygpt.lm.adapters import methods
from mygpt.lm.adapters.bottleneck import Bottleneck
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.methods import Method
from mygpt.lm.adapters.p_tuning import PTuning
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.adapters.prompt import Prompt
from mygpt.training.losses import summed_cross_entropy
from mygpt.training.optimizers import MasterAdamW
from tests.infer.tiny_models import byte_tokenizer, tiny_module

TOKENIZER = byte_tokenizer()
IDS_BT = torch.randint(3, 259, (3, 14), generator=torch.Generator().manual_seed(5))
TRAINED_BT = torch.rand(IDS_BT.shape, generator=torch.Generator().manual_seed(6)) > 0.4
VIRTUAL: tuple[Any, ...] = (Prefix(num_tokens=5, text="Be brief."), Prompt(num_tokens=5), PTuning(num_tokens=5, hidden_size=16))
LORA_FAMILY: tuple[Any, ...] = (
    LoRA(rank=4, alpha=8),
    LoRA(rank=4, alpha=8, rank_stabilised=True, targets="attention-only"),
    LoRA(rank=4, alpha=8, weight_decomposed=True, targets="mlp-only"),
)
ADAPTERS: tuple[Any, ...] = (*LORA_FAMILY, IA3(), Bottleneck(size=4), *VIRTUAL)
METHODS: tuple[Any, ...] = (*ADAPTERS, Freeze(num_layers=1, layer_decay=0.5), Full())
BASE: Any = SimpleNamespace(id="model/tiny", manifest=SimpleNamespace(provenance={}))


def label(method: Any) -> str:
    kinds = "-rs" * getattr(method, "rank_stabilised", False) + "-dora" * getattr(method, "weight_decomposed", False)
    return f"{method.name}{kinds}"


def attached(method: Method, architecture: str = "llama", *, seed: int = 1) -> Any:
    """On the same base each time."""
    module = tiny_module(architecture)
    torch.manual_seed(seed)
    return methods.attach(module, method, tokenizer=TOKENIZER).eval()


def disturbed(method: Method, architecture: str = "llama", *, seed: int = 1) -> Any:
    """As after training: nothing that was learnt is zero."""
    module = attached(method, architecture, seed=seed)
    with torch.no_grad():
        for _, parameter in trained(module):
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return module


def trained(module: Any) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in module.named_parameters() if p.requires_grad]


def steps(module: Any, method: Method, num_steps: int, *, learning_rate: float) -> list[float]:
    """The loss before each of so many updates on the same batch, in nats a token."""
    factors = methods.rate_factors(module, method)
    optimizer = MasterAdamW(trained(module), learning_rate=learning_rate, weight_decay=0.0, betas=(0.9, 0.999), rate_factors=factors)
    losses = []
    for _ in range(num_steps):
        loss = summed_cross_entropy(module, IDS_BT, TRAINED_BT) / TRAINED_BT[:, 1:].sum()
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.update(learning_rate=learning_rate, max_grad_norm=1.0)
    return losses


def saved(module: Any, method: Method, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    methods.save(module, method, base=BASE, folder=folder)
    return folder


@torch.no_grad()
def logits(module: Any, ids_BT: torch.Tensor = IDS_BT) -> torch.Tensor:
    """Of the real tokens, by the module's own forward pass."""
    found: torch.Tensor = module(input_ids=ids_BT, use_cache=False).logits
    return found[:, -ids_BT.shape[1] :]
