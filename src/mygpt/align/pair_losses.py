"""What may be asked of a policy that is shown pairs, against where it began: one loss a class, float32, a value a pair.

    r+ = log pi(chosen) - log ref(chosen)     r- likewise of the rejected answer: sums over an answer's tokens     margin = r+ - r-

    dpo           -log s(b margin)                                      Rafailov et al. 2023, arXiv:2305.18290, equation 7
    robust        ((1 - e) dpo - e flipped) / (1 - 2 e)                 Chowdhury et al. 2024, arXiv:2403.00409
    hinge         max(0, 1 - b margin)                                  Zhao et al. 2023, arXiv:2305.10425 (SLiC); arXiv:2309.06657
    ipo           (margin per token - 1 / (2 b))^2                      Azar et al. 2023, arXiv:2310.12036, equation 17
    exo           KL of (s(b margin), s(-b margin)) to (1 - e, e)       Ji et al. 2024, arXiv:2402.00856, equation 16
    nca           -log s(b r+) - log s(-b r+) / 2 - log s(-b r-) / 2    Chen et al. 2024, arXiv:2402.05369
    bco           -log s(b r+) - log s(-b r-)                           Jung et al. 2024, arXiv:2404.04656
    sppo          (r+ - 1 / (2 b))^2 + (r- + 1 / (2 b))^2               Wu et al. 2024, arXiv:2405.00675, equation 4.7
    apo_zero      1 - s(b r+) + s(b r-)                                 D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 7
    apo_down      s(b r+) + 1 - s(b margin)                             the same, equation 8
    discopop      (1 - m) dpo + m exp(-b margin), m = s(b margin / t)   Lu et al. 2024, arXiv:2406.08414, equation 5
    aot           dpo of the margins, sorted, with the reference's      Melnyk et al. 2024, arXiv:2406.05882
    aot_unpaired  dpo of r+ and r-, each sorted                         the same
    sigmoid_norm  -log s(b margin per token)                            Lambert et al. 2024, arXiv:2411.15124 (Tulu 3)

Labels that are not sure: where an answer is the better one with probability p only, the loss is p times that of the pair and 1 - p times
that of the pair with its answers exchanged. With `dpo` and one p for all that is cDPO (Mitchell 2023, "A note on DPO with noisy
preferences").

We differ  ipo takes averages over tokens, as its authors say that they meant it, not sums; bco has no reward shift (in its paper the mean
           reward); sppo has no win rates of another model: the answer that was preferred won
Defaults   the papers' settings
Dims       P pairs   s: the sigmoid   b: `beta`
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat

from mygpt.core.config import Config

Noise = Annotated[float, Field(ge=0, lt=0.5)]  # so many labels are taken to be wrong


@dataclass(frozen=True)
class Compared:
    """Pairs as a loss sees them: all (P) float32; log-probabilities are sums over an answer's tokens."""

    chosen_P: torch.Tensor
    rejected_P: torch.Tensor
    reference_chosen_P: torch.Tensor
    reference_rejected_P: torch.Tensor
    chosen_tokens_P: torch.Tensor
    rejected_tokens_P: torch.Tensor

    @property
    def ratio_chosen_P(self) -> torch.Tensor:
        return self.chosen_P - self.reference_chosen_P

    @property
    def ratio_rejected_P(self) -> torch.Tensor:
        return self.rejected_P - self.reference_rejected_P

    @property
    def margin_P(self) -> torch.Tensor:
        return self.ratio_chosen_P - self.ratio_rejected_P

    @property
    def margin_per_token_P(self) -> torch.Tensor:
        return self.ratio_chosen_P / self.chosen_tokens_P - self.ratio_rejected_P / self.rejected_tokens_P

    @property
    def exchanged(self) -> "Compared":
        """As if the rejected answers had been chosen."""
        return Compared(
            chosen_P=self.rejected_P,
            rejected_P=self.chosen_P,
            reference_chosen_P=self.reference_rejected_P,
            reference_rejected_P=self.reference_chosen_P,
            chosen_tokens_P=self.rejected_tokens_P,
            rejected_tokens_P=self.chosen_tokens_P,
        )


class DPO(Config):
    """Chosen answers become likelier than rejected ones, against where the model began."""

    name: Literal["dpo"] = "dpo"
    beta: PositiveFloat = 0.1
    label_smoothing: Noise = 0.0  # above 0: cDPO

    def __call__(self, pairs: Compared) -> torch.Tensor:
        return smoothed_logistic(self.beta * pairs.margin_P, self.label_smoothing)


class Robust(Config):
    """Its mean is that of the loss on clean labels, when a share `label_smoothing` of the labels is wrong."""

    name: Literal["robust"] = "robust"
    beta: PositiveFloat = 0.1
    label_smoothing: Noise = 0.1

    def __call__(self, pairs: Compared) -> torch.Tensor:
        logits_P, noise = self.beta * pairs.margin_P, self.label_smoothing
        return (-(1 - noise) * F.logsigmoid(logits_P) + noise * F.logsigmoid(-logits_P)) / (1 - 2 * noise)


class Hinge(Config):
    """Nothing more is learnt of a pair once its margin is wide enough."""

    name: Literal["hinge"] = "hinge"
    beta: PositiveFloat = 0.05

    def __call__(self, pairs: Compared) -> torch.Tensor:
        return torch.relu(1 - self.beta * pairs.margin_P)


class IPO(Config):
    """The margin strives for a fixed width, so that certain labels are not over-learnt."""

    name: Literal["ipo"] = "ipo"
    beta: PositiveFloat = 0.1  # the paper's tau: the margin per token strives for 1 / (2 beta) nats

    def __call__(self, pairs: Compared) -> torch.Tensor:
        return (pairs.margin_per_token_P - 1 / (2 * self.beta)) ** 2


class EXO(Config):
    """The reverse KL between the policy's choice and the label, where DPO has the forward one."""

    name: Literal["exo"] = "exo"
    beta: PositiveFloat = 0.1
    label_smoothing: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3

    def __call__(self, pairs: Compared) -> torch.Tensor:
        logits_P, noise = self.beta * pairs.margin_P, torch.tensor(self.label_smoothing)
        chosen_P = logits_P.sigmoid() * (F.logsigmoid(logits_P) - torch.log1p(-noise))
        return chosen_P + (-logits_P).sigmoid() * (F.logsigmoid(-logits_P) - noise.log())


class NCA(Config):
    """Each answer against a fixed level, too, so that chosen ones do not become less likely."""

    name: Literal["nca"] = "nca"
    beta: PositiveFloat = 0.01

    def __call__(self, pairs: Compared) -> torch.Tensor:
        chosen_P, rejected_P = self.beta * pairs.ratio_chosen_P, self.beta * pairs.ratio_rejected_P
        return -F.logsigmoid(chosen_P) - 0.5 * F.logsigmoid(-chosen_P) - 0.5 * F.logsigmoid(-rejected_P)


class BCO(Config):
    """A classifier of single answers: chosen ones above the reference, rejected ones below."""

    name: Literal["bco"] = "bco"
    beta: PositiveFloat = 0.01

    def __call__(self, pairs: Compared) -> torch.Tensor:
        return -F.logsigmoid(self.beta * pairs.ratio_chosen_P) - F.logsigmoid(-self.beta * pairs.ratio_rejected_P)


class SPPO(Config):
    """Self-play: each answer's log ratio strives for a value of its own, plus or minus 1 / (2 beta)."""

    name: Literal["sppo"] = "sppo"
    beta: PositiveFloat = 0.001

    def __call__(self, pairs: Compared) -> torch.Tensor:
        return (pairs.ratio_chosen_P - 0.5 / self.beta) ** 2 + (pairs.ratio_rejected_P + 0.5 / self.beta) ** 2


class APOZero(Config):
    """For chosen answers that are better than the model's own: they become likelier, rejected ones less likely."""

    name: Literal["apo_zero"] = "apo_zero"
    beta: PositiveFloat = 0.1

    def __call__(self, pairs: Compared) -> torch.Tensor:
        return 1 - (self.beta * pairs.ratio_chosen_P).sigmoid() + (self.beta * pairs.ratio_rejected_P).sigmoid()


class APODown(Config):
    """For chosen answers that are worse than the model's own: both become less likely, rejected ones more so."""

    name: Literal["apo_down"] = "apo_down"
    beta: PositiveFloat = 0.1

    def __call__(self, pairs: Compared) -> torch.Tensor:
        return (self.beta * pairs.ratio_chosen_P).sigmoid() + 1 - (self.beta * pairs.margin_P).sigmoid()


class DiscoPOP(Config):
    """DPO and an exponential loss, mixed by the margin; found by a search that a language model led."""

    name: Literal["discopop"] = "discopop"
    beta: PositiveFloat = 0.05
    tau: PositiveFloat = 0.05

    def __call__(self, pairs: Compared) -> torch.Tensor:
        logits_P = self.beta * pairs.margin_P
        mixed_P = (logits_P / self.tau).sigmoid()
        return -(1 - mixed_P) * F.logsigmoid(logits_P) + mixed_P * (-logits_P).exp()


class AOT(Config):
    """The margins of a step as a whole shall be larger than the reference's: a pair has no value of its own, only a rank has."""

    name: Literal["aot"] = "aot"
    beta: PositiveFloat = 0.01
    label_smoothing: Noise = 0.0

    def __call__(self, pairs: Compared) -> torch.Tensor:
        own_P = (pairs.chosen_P - pairs.rejected_P).sort().values
        references_P = (pairs.reference_chosen_P - pairs.reference_rejected_P).sort().values
        return smoothed_logistic(self.beta * (own_P - references_P), self.label_smoothing)


class AOTUnpaired(Config):
    """The same of the chosen answers of a step against its rejected ones, whosever they are."""

    name: Literal["aot_unpaired"] = "aot_unpaired"
    beta: PositiveFloat = 0.01
    label_smoothing: Noise = 0.0

    def __call__(self, pairs: Compared) -> torch.Tensor:
        chosen_P, rejected_P = pairs.ratio_chosen_P.sort().values, pairs.ratio_rejected_P.sort().values
        return smoothed_logistic(self.beta * (chosen_P - rejected_P), self.label_smoothing)


class SigmoidNorm(Config):
    """DPO of margins per token, so that length earns nothing."""

    name: Literal["sigmoid_norm"] = "sigmoid_norm"
    beta: PositiveFloat = 5.0

    def __call__(self, pairs: Compared) -> torch.Tensor:
        return -F.logsigmoid(self.beta * pairs.margin_per_token_P)


OfOnePair = DPO | Robust | Hinge | IPO | EXO | NCA | BCO | SPPO | APOZero | APODown | DiscoPOP | SigmoidNorm
PairLoss = Annotated[OfOnePair | AOT | AOTUnpaired, Field(discriminator="name")]


def smoothed_logistic(logits: torch.Tensor, noise: float) -> torch.Tensor:
    """-log sigmoid, as if a share `noise` of the labels were wrong."""
    return -(1 - noise) * F.logsigmoid(logits) - noise * F.logsigmoid(-logits)


def expected(loss: PairLoss, pairs: Compared, probability_P: torch.Tensor | None) -> torch.Tensor:
    """(P), over which of the two is the better answer. `probability_P`: that the chosen one is; None: it is sure."""
    if probability_P is None:
        return loss(pairs)
    return probability_P * loss(pairs) + (1 - probability_P) * loss(pairs.exchanged)


@dataclass(frozen=True)
class Tangent:
    """A loss that knows its pairs only together, where a step begins: each pair's value, and how the sum changes with its two answers.

    So the step can still be computed in micro-batches: the log-probabilities of all pairs first, without gradients, then pair by pair.
    """

    places: dict[int, int]  # of a pair, by its number
    losses_S: torch.Tensor
    slopes_S2: torch.Tensor

    @classmethod
    def at(cls, loss: PairLoss, pairs: Compared, numbers: Sequence[int]) -> "Tangent":
        with torch.enable_grad():
            chosen_S, rejected_S = (part.detach().requires_grad_() for part in (pairs.chosen_P, pairs.rejected_P))
            losses_S = loss(replace(pairs, chosen_P=chosen_S, rejected_P=rejected_S))
            slopes_S2 = torch.stack(torch.autograd.grad(losses_S.sum(), [chosen_S, rejected_S]), dim=1)
        return cls({number: place for place, number in enumerate(numbers)}, losses_S.detach(), slopes_S2)

    def __call__(self, pairs: Compared, numbers: Sequence[int]) -> torch.Tensor:
        """(P), with the value and the gradient of the loss."""
        places = [self.places[number] for number in numbers]
        moved_P2 = torch.stack([pairs.chosen_P, pairs.rejected_P], dim=1)
        return self.losses_S[places] + ((moved_P2 - moved_P2.detach()) * self.slopes_S2[places]).sum(1)


def is_of_whole_steps(loss: PairLoss) -> bool:
    return isinstance(loss, AOT | AOTUnpaired)


def negative_log_likelihood(pairs: Compared) -> torch.Tensor:
    """(P), nats a token of the chosen answer: added to a loss, it keeps that answer from becoming less likely.

    Source: Pang et al. 2024, arXiv:2404.19733, equation 1 (IRPO, weight 1.0); Liu et al. 2024, arXiv:2405.16436 (RPO, 0.005).
    """
    return -pairs.chosen_P / pairs.chosen_tokens_P
