"""Given answers as rows of a batch, and their log-probabilities. Two answers to one prompt share a row, and the prompt is read once.

    tokens      prompt | chosen answer | rejected answer
    positions   both answers go on where the prompt ended
    attention   causal, but the second answer does not see the first
    labels      an answer's first token is predicted where the prompt ends, for both

So a pair costs prompt + chosen + rejected tokens instead of twice the prompt, forwards and backwards. A model that does not take such rows
(a recurrent state, a sliding window that is too short, positions that it counts for itself) is found by comparing numbers before the first
step; each of its answers is a row of its own. Beyond an answer's last label nothing is computed.

On a GPU such rows stand one behind the other in one packed row (`lm/varlen`), without padding or mask.

Source  ours; several continuations of one beginning in one row: Miao et al. 2023, arXiv:2305.09781, section 4.2 (tree attention)
Dims    B rows   T tokens, padded   A answers   P pairs   N labels   D hidden
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from typing import Any

import torch

from mygpt.core.run import Run
from mygpt.lm.attention import grouped_attention
from mygpt.lm.chat import Rendered
from mygpt.lm.memory import on_device
from mygpt.lm.varlen import PackedRow, varlen_suits
from mygpt.lm.virtual_tokens import has_virtual_tokens
from mygpt.training.label_logprobs import logprobs_of
from mygpt.training.losses import hidden_states

_APART = {torch.float32: 1e-3, torch.float64: 1e-6}  # nats a label: what rounding may do
_APART_IN_HALF = 0.1  # SmolLM2-135M in bfloat16: 0.03 to 0.05 by rounding, 0.14 to 1.7 where the second answer sees the first
_WINDOWS = ("sliding_window", "attention_chunk_size")  # settings of architectures in which a token sees only so many before it


@dataclass(frozen=True)
class AnswerRows:
    ids_BT: torch.Tensor
    positions_BT: torch.Tensor | None  # with `seen_B1TT`, of rows in which two answers share a prompt
    seen_B1TT: torch.Tensor | None  # bool: the token in the third place sees the one in the fourth
    rows_N: torch.Tensor
    places_N: torch.Tensor  # in its row: where the label is predicted
    labels_N: torch.Tensor
    answers_N: torch.Tensor  # whose label it is: those of an answer stand together, in the order of the answers
    num_labels_A: torch.Tensor  # float32
    forked: PackedRow | None = None  # of one packed row that holds all pairs

    @property
    def num_computed(self) -> int:
        """Tokens, with padding."""
        return self.ids_BT.numel()


def answer_logprobs(module: Any, rows: AnswerRows, *, chunk_labels: int | None = None) -> torch.Tensor:
    """(A) float32, in nats: the sum over an answer's labels of log p(label | what precedes it)."""
    logprobs_N = each_logprob(module, rows, chunk_labels=chunk_labels)
    if not logprobs_N.is_cuda:
        return logprobs_N.new_zeros(len(rows.num_labels_A)).index_add(0, rows.answers_N, logprobs_N)
    return torch.segment_reduce(logprobs_N, "sum", lengths=rows.num_labels_A.long(), unsafe=True)  # always in one order, unlike index_add


def each_logprob(module: Any, rows: AnswerRows, *, chunk_labels: int | None = None) -> torch.Tensor:
    """(N) float32, in nats."""
    if rows.forked is not None:
        hidden_BTD = hidden_states(module, rows.ids_BT, rows.positions_BT, rows.forked)
    elif rows.seen_B1TT is None:
        hidden_BTD = hidden_states(module, rows.ids_BT)
    else:
        hidden_BTD = _forked_states(module, rows.ids_BT, rows.positions_BT, rows.seen_B1TT)
    return logprobs_of(module, hidden_BTD[rows.rows_N, rows.places_N], rows.labels_N, chunk_labels=chunk_labels)


def _forked_states(module: Any, ids_BT: torch.Tensor, positions_BT: torch.Tensor | None, seen_B1TT: torch.Tensor) -> torch.Tensor:
    with grouped_attention(module):
        given = {"attention_mask": seen_B1TT, "position_ids": positions_BT, "use_cache": False}
        hidden_BTD: torch.Tensor = module.get_decoder()(input_ids=ids_BT, **given).last_hidden_state
    return hidden_BTD


def shared_pass(module: Any, rows: int, tokens: int) -> torch.Tensor:
    """(B, T, D), of rows in which two answers share a prompt, without data (`training/activations`)."""
    device = next(module.parameters()).device
    ids_BT, seen_B1TT = torch.zeros((rows, tokens), dtype=torch.long, device=device), torch.ones((rows, 1, tokens, tokens), device=device)
    return _forked_states(module, ids_BT, ids_BT, seen_B1TT.bool())


def single_rows(examples: Sequence[Rendered], *, padding_id: int, device: torch.device) -> AnswerRows:
    """One answer a row."""
    cut = [example.token_ids[: _end(example)] for example in examples]
    labels = [(b, t - 1, ids[t], b) for b, ids in enumerate(cut) for t in range(1, len(ids)) if examples[b].trained[t]]
    return _rows(cut, labels, len(examples), None, padding_id=padding_id, device=device)


def packs_pairs(module: Any) -> bool:
    """Whether rows with two answers each stand in one packed row, of which no token is padding."""
    device = next(module.parameters()).device
    return device.type == "cuda" and not has_virtual_tokens(module) and varlen_suits(module, torch.empty((1, 0), device=device))


def shared_rows(
    pairs: Sequence[tuple[Rendered, Rendered]], *, padding_id: int, device: torch.device, packed: bool = False
) -> AnswerRows:
    """Two answers a row, or all in one that is `packed`; of the answers the first pair's two come first."""
    tokens, labels, forks = [], [], []
    for b, pair in enumerate(pairs):
        shared = shared_tokens(*pair)
        ids = list(pair[0].token_ids[:shared])
        forks.append((shared, _end(pair[0])))
        for a, example in enumerate(pair):
            moved = len(ids) - shared  # an answer's tokens stand so much further right in the row
            for t in range(max(1, shared), _end(example)):
                if example.trained[t]:
                    labels.append((b, t - 1 if t == shared else moved + t - 1, example.token_ids[t], 2 * b + a))
            ids += example.token_ids[shared : _end(example)]
        tokens.append(ids)
    if packed:
        return _packed(tokens, labels, forks, device)
    longest = max(_end(example) for pair in pairs for example in pair)
    return _rows(tokens, labels, 2 * len(pairs), forks, longest_answer=longest, padding_id=padding_id, device=device)


def separate_rows(pairs: Sequence[tuple[Rendered, Rendered]], *, padding_id: int, device: torch.device) -> AnswerRows:
    """As `shared_rows`, with a row for each answer."""
    return single_rows([example for pair in pairs for example in pair], padding_id=padding_id, device=device)


def shared_tokens(one: Rendered, other: Rendered) -> int:
    """How many tokens of the two are alike before either's answer begins."""
    alike = takewhile(lambda both: both[0] == both[1], zip(one.token_ids, other.token_ids, strict=False))
    return min(sum(1 for _ in alike), one.trained.index(True), other.trained.index(True))


def row_tokens(pair: tuple[Rendered, Rendered], *, shared: bool) -> int:
    """Without padding: of the row that the two share, or of the two rows, each as long as the longer."""
    ends = [_end(example) for example in pair]
    return sum(ends) - shared_tokens(*pair) if shared else 2 * max(ends)


def _end(example: Rendered) -> int:
    """Behind the last label."""
    return len(example.trained) - example.trained[::-1].index(True)


def _rows(
    tokens: Sequence[Sequence[int]],
    labels: Sequence[tuple[int, int, int, int]],
    num_answers: int,
    forks: Sequence[tuple[int, int]] | None,
    *,
    longest_answer: int = 0,
    padding_id: int,
    device: torch.device,
) -> AnswerRows:
    """`labels`: (row, place, token, answer). `forks`, of rows with two answers: (where the first begins, where it ends)."""
    longest = max(map(len, tokens))
    ids_BT = torch.tensor([[*ids, *[padding_id] * (longest - len(ids))] for ids in tokens])
    rows_N, places_N, labels_N, answers_N = torch.tensor(labels).unbind(1)
    num_labels_A = torch.bincount(answers_N, minlength=num_answers).float()
    positions_BT = seen_B1TT = None
    if forks is not None:
        begins_B1, ends_B1 = torch.tensor(forks)[:, :, None].unbind(1)
        places_T = torch.arange(longest)
        positions_BT = places_T - (places_T >= ends_B1) * (ends_B1 - begins_B1)
        positions_BT = positions_BT.clamp_max(longest_answer - 1)  # of padding, which may stand beyond the model's window
        first_BT = (places_T >= begins_B1) & (places_T < ends_B1)
        hidden_BTT = (places_T >= ends_B1)[:, :, None] & first_BT[:, None, :]
        seen_B1TT = (places_T[:, None] >= places_T) & ~hidden_BTT
        seen_B1TT, positions_BT = seen_B1TT[:, None].to(device), positions_BT.to(device)
    places = (rows_N, places_N, labels_N, answers_N)
    rows_N, places_N, labels_N, answers_N, num_labels_A = (part.to(device) for part in (*places, num_labels_A))
    return AnswerRows(ids_BT.to(device), positions_BT, seen_B1TT, rows_N, places_N, labels_N, answers_N, num_labels_A)


def _packed(
    tokens: Sequence[Sequence[int]], labels: Sequence[tuple[int, int, int, int]], forks: Sequence[tuple[int, int]], device: torch.device
) -> AnswerRows:
    """As `_rows`."""
    firsts = [0, *accumulate(map(len, tokens))]
    ids_1T = torch.tensor([[token for ids in tokens for token in ids]])
    positions = [p for ids, (begin, end) in zip(tokens, forks, strict=True) for p in (*range(end), *range(begin, begin + len(ids) - end))]
    rows_N, places_N, labels_N, answers_N = torch.tensor(labels).unbind(1)
    places_N = places_N + torch.tensor(firsts)[rows_N]
    num_labels_A = torch.bincount(answers_N, minlength=2 * len(tokens)).float()
    forked = PackedRow.forked([(begin, (end - begin, len(ids) - end)) for ids, (begin, end) in zip(tokens, forks, strict=True)], device)
    parts = (ids_1T, torch.tensor([positions]), torch.zeros_like(rows_N), places_N, labels_N, answers_N, num_labels_A)
    ids_1T, positions_1T, rows_N, places_N, labels_N, answers_N, num_labels_A = (on_device(part, device) for part in parts)
    return AnswerRows(ids_1T, positions_1T, None, rows_N, places_N, labels_N, answers_N, num_labels_A, forked)


# -- does the model take rows with two answers? -----------------------------------------------------------------------------


def takes_shared_rows(module: Any, pair: tuple[Rendered, Rendered], *, padding_id: int, run: Run) -> bool:
    """Whether `module` gives this pair, the longest that there is, the same log-probabilities in one row as in two. Where not, says why."""
    fault = sharing_fault(module, pair, padding_id=padding_id)
    if fault:
        name = type(module.get_base_model() if hasattr(module, "get_base_model") else module).__name__
        run.warn(f"The two answers of a pair do not share a row in {name}, so each prompt is read twice: {fault}.")
    return not fault


def sharing_fault(module: Any, pair: tuple[Rendered, Rendered], *, padding_id: int) -> str:
    """ "" where there is none."""
    config = module.config.get_text_config()
    longest = max(len(example.token_ids) for example in pair)
    for name in _WINDOWS:
        if (window := getattr(config, name, None)) and window < longest:
            return f"a token sees only {window} before it, and an answer with its prompt has {longest}"
    device = next(module.parameters()).device
    with torch.enable_grad():  # with a backward pass ahead, other kernels are chosen
        try:
            shared = shared_rows([pair], padding_id=padding_id, device=device, packed=packs_pairs(module))
            shared_N = each_logprob(module, shared).detach()
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:  # no mask or positions among its arguments
            return f"its forward pass does not take such a row: {str(error).partition(chr(10))[0]}"
        separate_N = each_logprob(module, separate_rows([pair], padding_id=padding_id, device=device)).detach()
    apart_N = (shared_N - separate_N).abs()
    apart = max(float(apart_N[shared.answers_N == a].mean()) for a in (0, 1))
    if not apart <= _APART.get(module.dtype, _APART_IN_HALF):
        return f"its answers are read differently there, by {apart:.3f} nats a token"
    return ""
