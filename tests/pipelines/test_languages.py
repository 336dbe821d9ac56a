"""Languages that a model does not know are named before any training; mostly foreign text is not trained on unless forced."""

from types import SimpleNamespace
from typing import Any

import pytest

from mygpt.core.run import Run
from mygpt.pipelines.languages import KNOWN, languages_to_train


def corpus(**characters: int) -> Any:
    """A corpus by its characters in each language; `unsure` is text whose language is not told."""
    return SimpleNamespace(characters_by_language={language.replace("unsure", ""): number for language, number in characters.items()})


@pytest.fixture
def said(run: Run) -> dict[str, list[str]]:
    heard: dict[str, list[str]] = {"warning": [], "note": []}
    run.listeners.append(lambda event: heard.get(event["event"], []).append(event.get("text", "")))
    return heard


def chosen(documents: Any, run: Run, *, model: str = "smollm2-135m", embedder: str = "minilm", force: bool = False) -> Any:
    return languages_to_train(documents, model=model, embedder=embedder, force=force, run=run)


def test_all_known(run: Run, said: dict[str, list[str]]) -> None:
    assert chosen(corpus(en=90, unsure=10), run) == ()
    assert chosen(corpus(), run) == ()
    assert said == {"warning": [], "note": []}


def test_some_foreign(run: Run, said: dict[str, list[str]]) -> None:
    """60 of 100 characters are English: train on those, name the others with their share, the largest first."""
    assert chosen(corpus(en=60, fr=10, de=25, unsure=5), run) == ("en",)
    assert said["warning"] == [
        f"The {role} does not know the language of some documents: de (25%), fr (10%) of the text."
        for role in ("model smollm2-135m", "embedder minilm")
    ]
    assert said["note"] == ["Questions are made from the text in en only; `--force` takes all."]


def test_mostly_foreign(run: Run, said: dict[str, list[str]]) -> None:
    assert chosen(corpus(en=50, de=50), run) == ("en",)  # not more than half
    assert chosen(corpus(en=49, de=51), run) is None
    assert "index and chat only" in said["warning"][-1] and "--force" in said["warning"][-1]


def test_forced(run: Run, said: dict[str, list[str]]) -> None:
    assert chosen(corpus(de=100), run, force=True) == ()
    assert any("de (100%)" in text for text in said["warning"])  # still said


def test_a_model_of_unknown_languages_is_not_checked(run: Run, said: dict[str, list[str]]) -> None:
    assert chosen(corpus(de=100), run, model="./my-model") == ()
    assert [text.split(" does")[0] for text in said["warning"]] == ["The embedder minilm"]
    assert chosen(corpus(de=100), run, model="./my-model", embedder="./mine") == ()
    assert len(said["warning"]) == 1


def test_default_models_are_listed() -> None:
    from mygpt.lm.sources import ALIASES

    assert set(KNOWN) == set(ALIASES)
