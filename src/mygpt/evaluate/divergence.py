"""How far tuning moved the model where it should not have moved: KL(base || tuned) per token on general text.

    KL per token = sum over tokens of sum_v p_base(v) (ln p_base(v) - ln p_tuned(v)) / tokens        in nats; 0: not moved at all

Beside it, on how many tokens both models would say the same (the likeliest token is one). Bits per byte on the same text (see `forgetting`)
says whether the text became less likely; KL also sees what moved without this text paying for it.

Source: KL against the model before tuning as the price of tuning: Ouyang et al. 2022, arXiv:2203.02155, equation 2, where it is a penalty.
We differ: it is measured on given text, in the direction base || tuned: where the base model is sure, the tuned one should be.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.report import Predictions, write_predictions
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.core.spread import spread
from mygpt.evaluate.behaviour_set import Row, behaviour_facts, limits
from mygpt.evaluate.forgetting import pieces
from mygpt.evaluate.general_set import load_general
from mygpt.infer.protocols import Identity
from mygpt.metrics.bootstrap import bootstrap_ratio
from mygpt.metrics.continual import kl_divergence


class Distributions(Protocol):
    """`infer/distributions` has one for models in memory."""

    @property
    def identity(self) -> Identity: ...

    def token_distributions(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """(T, V) natural log-probabilities of each text, in order."""


class DivergenceConfig(Config):
    piece_characters: int = 1_000
    max_pieces: int = 60  # each costs a forward pass of both models
    num_resamples: int = 10_000


@recipe
def divergence(config: DivergenceConfig, *, base: Distributions, tuned: Distributions, run: Run) -> Predictions:
    """One row per piece of the general text. Both models stay in memory; of the distributions, those of one piece."""
    cut = [(n, piece) for n, text in enumerate(load_general()[1]) for piece in pieces(text, config.piece_characters)]
    cut = spread(cut, config.max_pieces)
    texts = [piece for _, piece in cut]
    progress = run.progress(len(texts), "texts")
    rows = []
    distributions = zip(texts, base.token_distributions(texts), tuned.token_distributions(texts), strict=True)
    for number, ((of, text), (_, base_TV, tuned_TV)) in enumerate(zip(cut, distributions, strict=True)):
        if base_TV.shape != tuned_TV.shape:
            raise UsageError(
                f"The two models cut one text into {base_TV.shape[0]} and {tuned_TV.shape[0]} tokens of {base_TV.shape[1]} and "
                f"{tuned_TV.shape[1]}.",
                fix="KL divergence compares models with one vocabulary; across vocabularies compare bits per byte.",
            )
        rows.append(_row(number, of, text, base_TV, tuned_TV))
        progress.advance()
    facts = behaviour_facts("divergence", "kl_per_token", {"kl_per_token": False, "same_token": True}, tuned.identity)
    facts |= {"form": "rolling", "base": base.identity, **_figures(rows, config, run.seed_for("bootstrap"))}
    return publish(Predictions, run, lambda folder: write_predictions(folder, rows), facts=facts)


def _row(number: int, of: int, text: str, base_TV: np.ndarray, tuned_TV: np.ndarray) -> Row:
    name, cluster, num_tokens = f"general_text-{number}", f"general_text {of}", len(base_TV)
    row = {"item_id": name, "task": "divergence", "form": "rolling", "question": text, "cluster": cluster, "num_tokens": num_tokens}
    try:
        kl = float(kl_divergence(base_TV, tuned_TV).mean()) if num_tokens else math.nan
    except ValueError:  # no distributions
        kl = math.nan
    if not math.isfinite(kl):
        return {**row, "parsed": False, "kl_per_token": None, "same_token": None}
    same = float((base_TV.argmax(-1) == tuned_TV.argmax(-1)).mean())
    return {**row, "parsed": True, "kl_per_token": kl, "same_token": same}


def _figures(rows: Sequence[Row], config: DivergenceConfig, seed: int) -> dict[str, Any]:
    """Weighted by tokens; intervals over whole texts."""
    read = [row for row in rows if row["parsed"]]
    weights = [row["num_tokens"] for row in read]
    clusters = [row["cluster"] for row in read]

    def per_token(column: str) -> dict[str, Any] | None:
        if not read:
            return None
        sums = [row[column] * row["num_tokens"] for row in read]
        return limits(bootstrap_ratio(sums, weights, clusters=clusters, num_resamples=config.num_resamples, seed=seed), len(set(clusters)))

    shares = {"kl_per_token": per_token("kl_per_token"), "same_token": per_token("same_token")}
    return {**shares, "tokens": sum(weights), "pieces": len(rows), "unparsed": len(rows) - len(read)}
