"""Cards say what was recorded, and "not recorded" where nothing was: figures of the reports, worst items, lineage."""

import json
import re
from pathlib import Path

import pytest

from mygpt.artifacts.dataset import Dataset
from mygpt.artifacts.deployment import Deployment
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.store import Store
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run
from mygpt.evaluate.cards import card_of, reports_about
from mygpt.evaluate.compare_models import CompareConfig, compare_models
from mygpt.evaluate.gate import GateConfig, gate
from tests.evaluate.made_up import MadeUpConfig, made_up_corpus, made_up_dataset
from tests.evaluate.made_up_predictions import Engine, MeasuredConfig, flipped, made, measured, shares
from tests.evaluate.test_before_after import full_report
from tests.evaluate.test_compare_models import CheckedConfig, checked

HALF = shares(60, 30)


class ToyConfig(Config):
    name: str = "toy"


@recipe
def toy_model(config: ToyConfig, *, run: Run) -> Model:
    facts = {"head": "lm", "parameters": 135_000_000, "context_tokens": 2048}
    return publish(
        Model,
        run,
        lambda folder: (folder / "config.json").write_text("{}"),
        facts=facts,
        provenance={"licence": "apache-2.0"},
        name=config.name,
    )


@recipe
def toy_adapter(config: ToyConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter:
    facts = {"base": model.digest, "method": "lora", "trainable": 1234}
    return publish(
        Adapter, run, lambda folder: (folder / "adapter_config.json").write_text("{}"), facts=facts, provenance={"licence": "apache-2.0"}
    )


class Family:
    """A base, an adapter on made-up data, their predictions on two tasks, one comparison, one gate."""

    def __init__(self, run: Run, tmp_path: Path):
        self.base = toy_model(ToyConfig(), run=run)
        self.dataset = made_up_dataset(MadeUpConfig(), run=run)
        self.adapter = toy_adapter(ToyConfig(), model=self.base, dataset=self.dataset, run=run)
        self.store = Store(run.home, cache=False)
        values = {
            "skill": (HALF, flipped(HALF, lost=0, won=20)),
            "rules": (flipped(HALF, lost=0, won=10), flipped(HALF, lost=10, won=0)),
            "few": (HALF[20:40], [1.0] * 20),
        }
        predictions = []
        for number, adapter in enumerate((None, self.adapter)):
            for name, pair in values.items():
                identity = {"engine": "torch", "model": self.base.digest, "adapter": adapter.digest if adapter else None}
                settings = MeasuredConfig(model="x", task=name, values=tuple(pair[number]))
                one = measured(settings, completer=Engine(identity), run=run)
                predictions.append(one)
        found = checked(CheckedConfig(dirty=(True,) * 24 + (False,) * 36, of_task="skill"), run=run)
        self.comparison = compare_models(
            CompareConfig(num_resamples=500), predictions=tuple(predictions), contamination=(found,), run=run
        )
        policy = tmp_path / "policy.yaml"
        policy.write_text("rules:\n  - {task: skill, better_by: 0}\n")
        self.gate = gate(
            GateConfig(num_resamples=500), policy=policy, candidate=tuple(predictions[3:]), baseline=tuple(predictions[:3]), run=run
        )


@pytest.fixture
def family(run: Run, tmp_path: Path) -> Family:
    return Family(run, tmp_path)


def section(card: str, title: str) -> str:
    return card.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_model_card(family: Family) -> None:
    card = card_of(
        family.store, family.adapter.manifest, intended_uses=["Sorting our own mail."], limits=["No medical questions."]
    ).markdown
    assert f"- Base model: `{family.base.id}` (135000000 parameters, window 2048 tokens)" in card
    assert "- Method: lora" in card and "- Trained weights: 1234" in card and "- Licence: apache-2.0" in card
    assert section(card, "Intended uses").strip() == "- Sorting our own mail."
    assert "- No medical questions." in section(card, "Limits")
    assert "intervals are unreliable: few." in section(card, "Limits")
    figures = section(card, "Figures")
    tuned = next(m for m in family.comparison.figures["tasks"][0]["models"] if m["difference"])
    found = tuned["difference"]
    assert f"| skill v1 | acc | 60 | {50 / 60:.3f} |" in figures
    assert f"| +{20 / 60:.3f} | +{found['low']:.3f} to +{found['high']:.3f} | better |" in figures
    # of the 24 dirty items all were right before; of the 36 clean ones 6, and 26 after
    assert re.search(rf"\| skill \| 36 \| {26 / 36:.3f} \| 0.\d+ to 0.\d+ \| 24 \| 1.000 \| 0.\d+ to 1.000 \| 0 \|", figures)
    assert "Ship: the rule holds." in figures and family.gate.id in figures and family.comparison.id in figures
    failures = section(card, "Known failures")
    assert re.search(r"- rules, acc: −0.333 against toy \(−0.\d+ to −0.\d+\)", failures)
    assert "**rules, item rules-0** (acc 0.00, 1.00 before)" in failures and "- Answer: x says something about 0" in failures
    assert "Forgetting: not recorded." in failures
    assert family.dataset.id in section(card, "Training data") and "train 12, knowledge 30, generalisation 15" in section(
        card, "Training data"
    )
    assert "seed 0" in section(card, "How it was made") and "energy: not recorded" in section(card, "How it was made")
    assert family.base.id in section(card, "Where it comes from")


def test_card_of_the_base_tells_its_own_figures(family: Family) -> None:
    card = card_of(family.store, family.base.manifest).markdown
    assert "| skill v1 | acc | 60 | 0.500 |" in section(card, "Figures") and "0.833" not in card
    assert "Ship" not in card  # the gate was about another
    assert section(card, "Intended uses").strip().startswith("Not recorded: only the owner can say.")
    assert "- Base model: not recorded" in card and "Worst items: not recorded." in card


@recipe
def toy_deployment(config: ToyConfig, *, model: Model, adapter: Adapter, run: Run) -> Deployment:
    text = json.dumps({"model": model.digest, "adapter": adapter.digest, "index": None, "report": None})
    return publish(Deployment, run, lambda folder: (folder / "deployment.json").write_text(text))


def test_a_deployment_has_the_card_of_what_answers(family: Family, run: Run) -> None:
    deployment = toy_deployment(ToyConfig(), model=family.base, adapter=family.adapter, run=run)
    card = card_of(family.store, deployment.manifest).markdown
    assert f"- Artefact: `{deployment.id}`" in card and f"- Answers with: `{family.adapter.id}`" in card
    assert "| skill v1 | acc | 60 | 0.833 |" in card and "- Trained weights: 1234" in card


def test_reports_are_found_by_lineage(family: Family) -> None:
    assert {r.id for r in reports_about(family.store, family.adapter.digest)} == {family.comparison.id, family.gate.id}
    assert reports_about(family.store, "0" * 64) == []


def test_card_from_a_report_of_up(run: Run) -> None:
    """0.914 = (24 + 6 * 4/7) / 30, as `test_before_after` works out by hand; forgetting 0.02 bits per byte."""
    full_report(run)
    store = Store(run.home, cache=False)
    card = card_of(store, store.find("adapter/test")).markdown
    assert "| knowledge, tuned | token F1 | 30 | 0.914 |" in card
    assert "| generalisation, tuned | token F1 | 15 |" in card and "interval unreliable |" in card
    assert "Forgetting: +0.020 bits per byte on general text (+0.020 to +0.020)" in card
    assert "Tuning paid off" in section(card, "Figures")
    assert "token F1 0.57, 0.00 before" in section(card, "Known failures")


def test_data_card(run: Run) -> None:
    dataset, corpus = made_up_dataset(MadeUpConfig(), run=run), made_up_corpus(MadeUpConfig(), run=run)
    store = Store(run.home, cache=False)
    card = card_of(store, dataset.manifest).markdown
    assert f"| `{dataset.id}` | sft | train 12, knowledge 30, generalisation 15 |" in card
    assert "- duplicate: 1" in card and "- not grounded: 3" in card and "- Licence: not recorded" in card
    of_corpus = card_of(store, corpus.manifest).markdown
    assert f"| `{corpus.id}` | not recorded | not recorded | 2 | 2 |" in of_corpus
    assert "Not recorded: only the owner can say." in of_corpus


def test_what_has_no_card(run: Run) -> None:
    one = made(run, "a", "t", HALF)
    with pytest.raises(UsageError, match="There is no card for a predictions") as error:
        card_of(one.store, one.manifest)
    assert error.value.fix == "Name one of: model, adapter, deployment, dataset, corpus."
