"""The pages on alignment say what `benchmarks/results/` holds."""

import json
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS

ALIGN = Path(__file__).parents[2] / "docs" / "align"


def record(name: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return made


def page(name: str) -> str:
    return " ".join((ALIGN / f"{name}.md").read_text(encoding="utf-8").split())


def test_reward_models() -> None:
    found = record("reward_models")
    for name in ("harmless", "gsm8k"):
        learnt, held_out, others = found[name]["rows"]["train"], found[name]["held_out"], found[name]["learnt_from_words"]
        low, high = held_out["accuracy_interval"]
        words, length = ("{:.3f} ({:.3f} to {:.3f})".format(*others[key]) for key in ("bag_of_words", "majority_length"))
        told = f"| {learnt:,}, {held_out['pairs']} | **{held_out['accuracy']:.3f}** ({low:.3f} to {high:.3f}) | {length} | {words} | "
        assert told + f"{held_out['calibration']['expected_error']:.3f} | {held_out['log_loss']:.3f} |" in page("reward_model")
        assert words in page("word_reward")


def test_the_ensemble() -> None:
    found = record("reward_models")["ensemble"]
    for name in ("mean", "lower_bound"):
        over = found[name]["over_one_alone"]
        told = f"{found[name]['estimate']:.3f} ({over['estimate']:+.3f}, {over['low']:+.3f} to {over['high']:+.3f})"
        assert told in page("reward_ensemble")
        assert over["low"] < 0 < over["high"]  # as the page says
    area = "area under the curve {estimate:.3f} ({low:.3f} to {high:.3f})".format(**found["disagreement_finds_wrong"])
    assert area in page("reward_ensemble")


def test_detoxification() -> None:
    found = record("detoxify")
    for name, one in found["toxicity"].items():
        judge, texts = name.split(", ")
        who = "the second" if judge == "second" else "the reward's classifier"
        cells = [texts.removeprefix("beginnings of "), who, *(f"{one[when]['estimate']:.3f}" for when in ("before", "after"))]
        change, limits = f"{one['change']['estimate']:+.3f}", "({low:+.3f} to {high:+.3f})".format(**one["change"])
        assert f"| {' | '.join(cells)} | {f'**{change}**' if one['falls'] else change} {limits}" in page("ppo")
    before, after = found["perplexity_of_continuations"].values()
    ratio, bound = found["perplexity_ratio"], found["perplexity_bound"]
    assert f"{before} before and {after} after, **{ratio:.2f} times** (bound {bound})" in page("ppo")
    assert f"KL {found['kl_nats']} nats a continuation, its target {found['kl_target']:g}." in page("ppo")
    assert found["kl_within_target"] and found["perplexity_within_bound"] and set(found["distinct_share"].values()) == {1.0}
