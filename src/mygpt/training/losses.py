"""Cross-entropy of the trained tokens, with the vocabulary product only where a label is.

    summed_cross_entropy           the next token, of a decoder
    summed_masked_cross_entropy    the token in this place, of an encoder
    summed_target_cross_entropy    the target's tokens, of an encoder-decoder

The sum is returned, not the mean: the caller divides by the trained tokens of the whole step, so that any split into
micro-batches gives the same gradient.

Logits are many: 2,000 labels of a vocabulary of 49,152 take 393 MB in float32, and their gradient as much. Beyond `chunk_labels` they are
made, differentiated and dropped chunk by chunk, and never stand in memory together.

Source     the gradient of a chunk in the forward pass: Hsu et al. 2024, arXiv:2410.10989, section 3.2 (fused linear cross-entropy)
We differ  no kernel of our own: the head, whatever it does, is called and differentiated as it is; a trained head's gradients are
           summed in float32
Dims       B examples   T tokens   S tokens of a source   D hidden   N labels   V vocabulary
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from mygpt.core.errors import Refused
from mygpt.lm.attention import grouped_attention, packed_attention
from mygpt.lm.logits import logits_at, masked_logits_at
from mygpt.lm.varlen import PackedRow
from mygpt.training.batches import places_before_labels
from mygpt.training.head_kernels import in_kernels, summed_in_kernels

_NATS_APART = 0.02  # a token, beside 2 %: rounding of bfloat16 logits stays below, a head that scales or caps does not
_POSITIONS = 64  # at the beginning of a row, learnt or not, at which a model's own loss is compared
_CHUNK_BYTES = 403_000_000  # 512 labels of a vocabulary of 49,152
_BYTES_A_LOGIT = 16  # float32 and its gradient, the softmax, the product in bfloat16 and its gradient


def summed_cross_entropy(
    module: Any,
    ids_BT: torch.Tensor,
    trained_BT: torch.Tensor,
    *,
    positions_BT: torch.Tensor | None = None,
    packed_row: PackedRow | None = None,
    before_labels_N: torch.Tensor | None = None,
    chunk_labels: int | None = None,
) -> torch.Tensor:
    """A scalar in nats: the sum over tokens marked in `trained_BT` of -log p(token | what precedes it).

    `positions_BT`: of packed rows, in which the first token of an example must not be marked. `packed_row`, `before_labels_N`: as a batch
    knows them; without them a GPU is asked, and waited for.
    """
    places_N = places_before_labels(trained_BT) if before_labels_N is None else before_labels_N
    labels_N = ids_BT.flatten()[places_N + 1]
    hidden_ND = hidden_states(module, ids_BT, positions_BT, packed_row).flatten(0, 1).index_select(0, places_N)
    if (vocabulary := in_kernels(module, hidden_ND)) is not None:
        return summed_in_kernels(hidden_ND, vocabulary, labels_N, chunk_labels=chunk_labels)
    return _summed(module, logits_at, hidden_ND, labels_N, chunk_labels)


def summed_masked_cross_entropy(
    module: Any,
    ids_BT: torch.Tensor,
    real_BT: torch.Tensor,
    labels_BT: torch.Tensor,
    is_label_BT: torch.Tensor,
    *,
    chunk_labels: int | None = None,
) -> torch.Tensor:
    """A scalar in nats: the sum over places marked in `is_label_BT` of -log p(label | all that is real around it). Nothing is shifted.

    `real_BT` marks what is not padding: an encoder looks both ways, so padding must be hidden.
    """
    hidden_BTD = masked_states(module, ids_BT, real_BT)
    return _summed(module, masked_logits_at, hidden_BTD[is_label_BT], labels_BT[is_label_BT], chunk_labels)


def summed_target_cross_entropy(
    module: Any,
    source_BS: torch.Tensor,
    real_BS: torch.Tensor,
    target_BT: torch.Tensor,
    is_label_BT: torch.Tensor,
    *,
    chunk_labels: int | None = None,
) -> torch.Tensor:
    """A scalar in nats: the sum over tokens marked in `is_label_BT` of -log p(token | the source, the target before it).

    The decoder is given the target moved to the right behind the model's own start token.
    """
    hidden_BTD = target_states(module, source_BS, real_BS, target_BT)
    return _summed(module, logits_at, hidden_BTD[is_label_BT], target_BT[is_label_BT], chunk_labels)


def hidden_states(
    module: Any, ids_BT: torch.Tensor, positions_BT: torch.Tensor | None = None, packed_row: PackedRow | None = None
) -> torch.Tensor:
    """(B, T, D), what a decoder's head reads: the one forward pass of training. With positions: of packed rows."""
    if positions_BT is None:
        with grouped_attention(module):
            hidden_BTD: torch.Tensor = module.get_decoder()(input_ids=ids_BT, use_cache=False).last_hidden_state
        return hidden_BTD
    with packed_attention(module, positions_BT, packed_row) as told:
        packed = module.get_decoder()(input_ids=ids_BT, position_ids=positions_BT, use_cache=False, **told)
    packed_BTD: torch.Tensor = packed.last_hidden_state
    return packed_BTD


def masked_states(module: Any, ids_BT: torch.Tensor, real_BT: torch.Tensor) -> torch.Tensor:
    """(B, T, D), what the head of a masked language model reads."""
    with grouped_attention(module):
        hidden_BTD: torch.Tensor = without_head(module)(input_ids=ids_BT, attention_mask=real_BT).last_hidden_state
    return hidden_BTD


def target_states(module: Any, source_BS: torch.Tensor, real_BS: torch.Tensor, target_BT: torch.Tensor) -> torch.Tensor:
    """(B, T, D), what the head of an encoder-decoder reads in the places of the target."""
    encoded_BSD = module.get_encoder()(input_ids=source_BS, attention_mask=real_BS).last_hidden_state
    before_BT = module.prepare_decoder_input_ids_from_labels(target_BT)
    decoded = module.get_decoder()(input_ids=before_BT, encoder_hidden_states=encoded_BSD, encoder_attention_mask=real_BS, use_cache=False)
    hidden_BTD: torch.Tensor = decoded.last_hidden_state
    return hidden_BTD


def without_head(module: Any) -> Any:
    """The encoder of a masked language model; with peft's layers in it, where there are some."""
    return (module.get_base_model() if hasattr(module, "get_base_model") else module).base_model


# -- cross-entropy in chunks -------------------------------------------------------------------------------------------------


def chunk_labels_for(module: Any, *, device: torch.device | None = None) -> int:
    """So many labels that their logits, with all that a backward pass keeps of them, take 400 MB, or an eighth of what a GPU has free.

    `device`: where `module`, a blueprint, will be.
    """
    device = device or next(module.parameters()).device
    num_bytes = max(_CHUNK_BYTES, torch.cuda.mem_get_info(device)[0] // 8) if device.type == "cuda" else _CHUNK_BYTES
    return max(1, num_bytes // (_BYTES_A_LOGIT * module.get_output_embeddings().weight.shape[0]))


def _summed(
    module: Any,
    logits_of: Callable[[Any, torch.Tensor], torch.Tensor],
    hidden_ND: torch.Tensor,
    labels_N: torch.Tensor,
    chunk_labels: int | None,
) -> torch.Tensor:
    def loss_of(hidden_ND: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits_of(module, hidden_ND), labels_N, reduction="sum")

    if chunk_labels is None or len(labels_N) <= chunk_labels:
        return loss_of(hidden_ND, labels_N)
    if not torch.is_grad_enabled():
        parts = zip(hidden_ND.split(chunk_labels), labels_N.split(chunk_labels), strict=True)
        return torch.stack([loss_of(hidden, labels) for hidden, labels in parts]).sum()
    head = [p for p in module.parameters() if p.requires_grad]
    total: torch.Tensor = _InChunks.apply(loss_of, hidden_ND, labels_N, chunk_labels, *head)  # type: ignore[no-untyped-call]
    return total


class _InChunks(torch.autograd.Function):
    """The loss is a sum over labels: each chunk's gradient is known as soon as its logits are, up to one factor that backward brings."""

    @staticmethod
    def forward(
        ctx: Any,
        loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        hidden_ND: torch.Tensor,
        labels_N: torch.Tensor,
        chunk_labels: int,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        gradient_ND = torch.empty_like(hidden_ND)
        sums: list[torch.Tensor | None] = [None] * len(parameters)
        for start in range(0, len(labels_N), chunk_labels):
            own = slice(start, start + chunk_labels)
            with torch.enable_grad():
                chunk_ND = hidden_ND[own].detach().requires_grad_()
                loss = loss_of(chunk_ND, labels_N[own])
            gradient_ND[own], *others = torch.autograd.grad(loss, [chunk_ND, *parameters], allow_unused=True)
            sums = [old if new is None else new.float() if old is None else old.add_(new) for old, new in zip(sums, others, strict=True)]
            total += loss.detach()
        ctx.gradients = (gradient_ND, *(None if s is None else s.to(p.dtype) for s, p in zip(sums, parameters, strict=True)))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, *parameters = (None if g is None else g * factor.to(g.dtype) for g in ctx.gradients)
        return None, hidden, None, None, *parameters


# -- is the loss the model's own? --------------------------------------------------------------------------------------------


@torch.no_grad()
def require_own_loss(module: Any, ids_BT: torch.Tensor, trained_BT: torch.Tensor) -> None:
    """Raises Refused when a decoder's own forward pass gives another loss: its head does something that `logits_at` does not know."""
    logits_BTV = module(input_ids=ids_BT, use_cache=False).logits[:, -ids_BT.shape[1] :].float()  # peft gives a prompt's own ones too
    asked_BT = trained_BT.clone()
    asked_BT[:, :_POSITIONS] = True  # an answer of three tokens is known to 0.07 nats only: in bfloat16 a logit of 40 is rounded to 0.25
    own = F.cross_entropy(logits_BTV[:, :-1][asked_BT[:, 1:]], ids_BT[:, 1:][asked_BT[:, 1:]])
    require_same_loss(module, ours=float(summed_cross_entropy(module, ids_BT, asked_BT)) / int(asked_BT[:, 1:].sum()), own=float(own))


def require_same_loss(module: Any, *, ours: float, own: float) -> None:
    """Raises Refused when these two, in nats a token, are further apart than rounding. `own`: of the model's own forward pass."""
    if abs(ours - own) > _NATS_APART + 0.02 * own:
        raise Refused(
            f"{type(module).__name__} computes its logits in a way that is not known here (loss {own:.3f} by itself, {ours:.3f} here).",
            fix="Choose a model of another architecture.",
        )
