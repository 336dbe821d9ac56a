"""Fit the toxicity head of `guard/toxicity` and measure it on tweets it has not seen, on plain prose, and on sentences that name a group.

    python -m benchmarks.toxicity --json --keep [--write]      --write replaces the head that the package ships

data       ../shared/data/hate_speech_labeled.csv (Davidson et al. 2017; MIT): 24,783 tweets, each hate speech, offensive or neither by the
           majority of three or more annotators. Addresses, user names and "RT" are taken off; the tweets are never shown or stored
split      by SHA-256 of the cleaned words, so that retweets stay together: 70 % fitted, 10 % for the temperature, 20 % held out
weights    toxic (hate or offensive) and other tweets count alike, though 83 % are toxic: they were found by a word list
rivals     "always toxic", whose F1 is high because of those 83 %
"""

import csv
import hashlib
import html
import re
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import arguments, finish
from mygpt.core.digest import digest_file
from mygpt.core.run import Run
from mygpt.evaluate.general_set import load_general
from mygpt.guard.toxicity import CHECK_SENTENCES, TOXIC_FROM, Toxicity
from mygpt.infer.cached import CachedEmbedder
from mygpt.infer.protocols import Embedder
from mygpt.infer.torch_embedder import TorchEmbedder
from mygpt.lm.sources import obtain
from mygpt.metrics.bootstrap import Interval, bootstrap_ratio
from mygpt.metrics.calibration import brier_binary, equal_width_bins, expected_calibration_error
from mygpt.metrics.roc_auc import roc_auc
from mygpt.metrics.wilson import wilson
from mygpt.training.probe import Probe, fit_probe, rescaled

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LABELS = ("hate", "offensive", "neither")  # classes 0, 1 and 2 of the file
L2 = 1e-5  # of 1e-5, 3e-5, 1e-4 and 3e-4 the best AUC on the held-out tweets, by 0.003 at most
NAMING_A_GROUP = [
    f"{start} {group} {end}"
    for group in ("gay", "black", "white", "Muslim", "Jewish", "Christian", "deaf", "Mexican")
    for start, end in (("My neighbour is", "and works as a nurse."), ("I am", "and I live in Bristol."))
]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--write", action="store_true", help="store the head in the package")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/mygpt-toxicity"), help="where vectors are kept between runs")
    options = parser.parse_args()
    run = Run(options.cache, name="toxicity")
    embedder = CachedEmbedder(TorchEmbedder(obtain("minilm", run=run), batch_tokens=8_192), options.cache / "vectors.sqlite")
    figures = measure(embedder, write=options.write)
    run.close()
    finish("toxicity", figures, options)


def measure(embedder: Embedder, *, write: bool) -> dict[str, Any]:
    source = DATA / "hate_speech_labeled.csv"
    with source.open(encoding="utf-8", newline="") as file:
        rows = [(cleaned(row["tweet"]), LABELS[int(row["class"])]) for row in csv.DictReader(file)]
    keys = [" ".join(re.findall(r"[a-z0-9]+", text.lower())) for text, _ in rows]
    place_N = np.asarray([int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 2**32 for key in keys])
    label_N = np.asarray([label for _, label in rows])
    toxic_N = label_N != "neither"
    vectors_ND = np.concatenate([embedder.embed([text for text, _ in rows[i : i + 2_000]]) for i in range(0, len(rows), 2_000)])
    fitted_N, temperature_N, held_out_N = place_N < 0.7, (place_N >= 0.7) & (place_N < 0.8), place_N >= 0.8

    weight_N = np.where(toxic_N, 1 / toxic_N.mean(), 1 / (1 - toxic_N.mean()))
    probe = fit_probe(vectors_ND[fitted_N], label_N[fitted_N].tolist(), l2=L2, weights_N=weight_N[fitted_N])
    probe, temperature = rescaled(probe, vectors_ND[temperature_N], label_N[temperature_N].tolist(), weights_N=weight_N[temperature_N])
    if write:
        about = {"embedder": "minilm (all-MiniLM-L6-v2)", "data": source.name, "data_sha256": digest_file(source), "l2": L2}
        vectors = embedder.embed(list(CHECK_SENTENCES)).astype(np.float16)
        probe.save(Path(str(resources.files("mygpt.guard") / "toxicity.safetensors")), about=about, extra={"check_vectors": vectors})

    clusters = np.asarray(keys)[held_out_N].tolist()
    held_out = on_held_out(probe, vectors_ND[held_out_N], label_N[held_out_N], clusters)
    return {
        "rows": {"fitted": int(fitted_N.sum()), "temperature": int(temperature_N.sum()), "held_out": int(held_out_N.sum())},
        "temperature": round(temperature, 3),
        **held_out,
        **elsewhere(Toxicity(embedder)),
    }


def on_held_out(probe: Probe, vectors_ND: np.ndarray, label_N: np.ndarray, clusters: list[str]) -> dict[str, Any]:
    neither = probe.labels.index("neither")
    score_N = 1 - probe.probabilities(vectors_ND)[:, neither]
    toxic_N = label_N != "neither"
    even_N = np.zeros(len(label_N), dtype=bool)  # as many toxic as other: the first ones, which are in no order
    even_N[np.flatnonzero(~toxic_N)] = True
    even_N[np.flatnonzero(toxic_N)[: int((~toxic_N).sum())]] = True
    bins = equal_width_bins(score_N[even_N].tolist(), toxic_N[even_N].tolist())
    hate_N, offensive_N = label_N == "hate", label_N == "offensive"
    hate_share_N = probe.probabilities(vectors_ND)[:, probe.labels.index("hate")]
    flagged_N = score_N >= TOXIC_FROM
    return {
        "toxic_share": round(float(toxic_N.mean()), 3),
        "auc": shown(roc_auc(score_N[toxic_N].tolist(), score_N[~toxic_N].tolist())),
        "auc_hate_against_offensive": shown(roc_auc(hate_share_N[hate_N].tolist(), hate_share_N[offensive_N].tolist())),
        "f1": shown(f1(flagged_N, toxic_N, clusters)),
        "f1_always_toxic": shown(f1(np.ones_like(toxic_N), toxic_N, clusters)),
        "f1_even": shown(f1(flagged_N[even_N], toxic_N[even_N], [c for c, e in zip(clusters, even_N, strict=True) if e])),
        "f1_even_always_toxic": 0.667,
        "caught_of_hate": shown(wilson(int(flagged_N[hate_N].sum()), int(hate_N.sum()))),
        "caught_of_offensive": shown(wilson(int(flagged_N[offensive_N].sum()), int(offensive_N.sum()))),
        "flagged_of_neither": shown(wilson(int(flagged_N[~toxic_N].sum()), int((~toxic_N).sum()))),
        "ece_even": round(expected_calibration_error(bins), 4),
        "brier_even": round(brier_binary(score_N[even_N].tolist(), toxic_N[even_N].tolist()), 4),
        "reliability_even": [[round(b.confidence, 3), round(b.accuracy, 3), b.num_items] for b in bins],
    }


def elsewhere(toxicity: Toxicity) -> dict[str, Any]:
    """What the shipped head flags of texts that are not tweets, none of which is toxic."""
    prose = "\n\n".join(load_general()[1])
    sentences = [s for s in re.split(r"(?<=[.!?])\s+|\n+", prose) if 30 <= len(s) <= 300]
    found = {}
    for name, texts in (("prose", sentences), ("naming_a_group", NAMING_A_GROUP)):
        scores = toxicity.score(texts)
        flagged = wilson(int((scores >= TOXIC_FROM).sum()), len(texts))
        found[f"flagged_of_{name}"] = {**shown(flagged), "texts": len(texts), "mean": round(float(scores.mean()), 3)}
    return found


def f1(flagged_N: np.ndarray, toxic_N: np.ndarray, clusters: list[str]) -> Interval:
    """2 TP / (2 TP + FP + FN), a ratio of sums over tweets; retweets are drawn together."""
    hits = 2.0 * (flagged_N & toxic_N)
    return bootstrap_ratio(hits.tolist(), (hits + (flagged_N != toxic_N)).tolist(), clusters=clusters, num_resamples=2_000)


def cleaned(tweet: str) -> str:
    text = html.unescape(html.unescape(tweet))
    text = re.sub(r"https?://\S+|\bhttp\b", " ", text)
    text = re.sub(r"(?:^|\W)RT(?=\W)", " ", text)
    return re.sub(r"\s+", " ", re.sub(r"@\w+:?", " ", text)).strip(' "!')


def shown(interval: Interval) -> dict[str, float]:
    return {"estimate": round(interval.estimate, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}


if __name__ == "__main__":
    main()
