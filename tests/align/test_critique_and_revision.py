"""Critique and revision with scripted models, every path by hand; and at demonstration size with the real 135M model as its own critic."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from mygpt.align.constitution import open_constitution, read_constitution
from mygpt.align.critique_and_revision import (
    CritiqueAndRevisionConfig,
    asking_critique,
    asking_revision,
    critique_and_revision,
)
from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.model import Model
from mygpt.artifacts.store import Store
from mygpt.cli.recipe_call import open_inputs, recipe_inputs
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.infer.torch_engine import TorchEngine
from tests.align import sites
from tests.align.test_constitution import SMALL
from tests.finetune import toys

ONE_ROUND = CritiqueAndRevisionConfig(rounds=1, helpful_prompts=0)
ANSWERS = {
    "Who founded the museum?": "Shut up!",
    "What does a ticket cost?": "It costs 24 euros.",
    "Where are the logs?": "Find them yourself!",
}


def answering(conversation: Conversation) -> str:
    return ANSWERS.get(conversation.question, "")


def critic(critiques: dict[str, str], revisions: Callable[[str], str]) -> ScriptedCompleter:
    """A critique by the answer that stands in the question; a revision by the critique before it."""

    def reply(conversation: Conversation) -> str:
        asked = conversation.messages[-1].content
        if "\nCritique: " in asked:
            return revisions(asked)
        return next((text for answer, text in critiques.items() if f"Answer: {answer}" in asked), "No change needed.")

    return ScriptedCompleter(reply, name="critic")


def made_by(run: Run, judge: ScriptedCompleter, config: CritiqueAndRevisionConfig = ONE_ROUND, file: Path | None = None) -> Dataset:
    asked = sites.prompts(sites.PromptsConfig(), run=run)
    return critique_and_revision(
        config, completer=ScriptedCompleter(answering), critic=judge, prompts=asked, constitution_file=file, run=run
    )


def test_one_round_by_hand(run: Run) -> None:
    """Four requests: one answer is revised, one left alone, one revision is an echo, one request has no answer."""
    judge = critic(
        {"Shut up!": "Critique: It is rude.", "Find them yourself!": "It is rude, too."},
        lambda asked: "Revision: Clara Voss did." if "founded" in asked else asked.split("\n\n")[1],
    )
    made = made_by(run, judge)
    rows = made.split("train")
    assert [(row.question, row.answer, row.facts["depth"]) for row in rows] == [
        ("Who founded the museum?", "Clara Voss did.", "1"),
        ("What does a ticket cost?", "It costs 24 euros.", "0"),
    ]
    assert rows[0].facts["before"] == "Shut up!" and rows[0].facts["made"] == "critique and revision"
    [told] = json.loads(rows[0].facts["critiques"])
    assert (told["critique"], told["outcome"], told["principle"]) == ("It is rude.", "revised", rows[0].facts["principle"])
    facts = made.manifest.facts
    assert facts["dropped"] == {"echoes the instructions": 1, "never approved and never revised": 1, "no answer": 1}
    wanted = {"requests": 3, "critiques": 3, "no_change_needed": 1, "revisions": 1, "left_alone": 1, "requests_revised": 1}
    assert {name: facts[name] for name in wanted} == wanted and facts["rows_by_depth"] == {"0": 1, "1": 1}
    assert facts["constitution"]["id"] == "harmless_and_helpful"
    echo = next(one for one in made.dropped if one.reason == "echoes the instructions")
    assert echo.detail == "It is rude, too." and echo.row.question == "Where are the logs?"


def test_all_depths_are_kept(run: Run) -> None:
    """Three rounds: revised, left alone, revised again. Both revisions are rows and know all that was said."""
    seen: list[str] = []

    def reply(conversation: Conversation) -> str:
        asked = conversation.messages[-1].content
        seen.append(asked)
        if "\nCritique: " in asked:
            return "Clara Voss founded it." if "Shut up!" in asked else "It was Clara Voss, in 1921."
        rounds = sum("Critique: " not in one for one in seen if "Who founded" in one)
        return "No change needed. Fine." if rounds == 2 else "Something is missing."

    config = CritiqueAndRevisionConfig(rounds=3, helpful_prompts=0, prompts=1)
    made = made_by(run, ScriptedCompleter(reply), config)
    rows = made.split("train")
    assert [(row.answer, row.facts["depth"], row.facts["before"]) for row in rows] == [
        ("Clara Voss founded it.", "1", "Shut up!"),
        ("It was Clara Voss, in 1921.", "2", "Clara Voss founded it."),
    ]
    rounds = json.loads(rows[0].facts["critiques"])
    assert [told["outcome"] for told in rounds] == ["revised", "no change needed", "revised"]
    assert rows[1].facts["critiques"] == rows[0].facts["critiques"]
    assert len({told["principle"] for told in rounds}) == 3  # none twice before all were drawn
    assert "Answer: Clara Voss founded it." in seen[2]  # the second round reads the revision


def test_the_seed_draws_the_principles(tmp_path: Path) -> None:
    def drawn(seed: int) -> list[str]:
        with Run(tmp_path / str(seed), name="t", seed=seed) as run:
            config = CritiqueAndRevisionConfig(rounds=4, helpful_prompts=0)
            rows = made_by(run, critic({}, str), config).split("train")
            return [told["principle"] for row in rows for told in json.loads(row.facts["critiques"])]

    with Run(tmp_path / "again", name="t", seed=1) as run:
        rows = made_by(run, critic({}, str), CritiqueAndRevisionConfig(rounds=4, helpful_prompts=0)).split("train")
    again = [told["principle"] for row in rows for told in json.loads(row.facts["critiques"])]
    assert drawn(1) == again != drawn(2) and len(again) == 12


def test_cut_and_missing(run: Run) -> None:
    """An answer cut at the limit may be revised and never stays; a critique that is an echo counts for nothing."""

    class Cut(ScriptedCompleter):
        def complete(self, conversations, sampling):  # type: ignore[no-untyped-def]
            return [Answer("It costs", "length") for _ in conversations]

    principle = open_constitution("harmless_and_helpful").principles
    asked = sites.prompts(sites.PromptsConfig(questions=("A?", "B?")), run=run)

    def reply(conversation: Conversation) -> str:
        text = conversation.messages[-1].content
        return next(p.critique for p in principle if text.endswith(p.critique)) if "B?" in text else "No change needed."

    with pytest.raises(UsageError, match="none was revised or approved") as told:
        critique_and_revision(ONE_ROUND, completer=Cut(answering), critic=ScriptedCompleter(reply), prompts=asked, run=run)
    assert "1 no critique" in told.value.what and "2 never approved" in told.value.what and "--critic" in told.value.fix


def test_helpful_answers_are_mixed_in(run: Run) -> None:
    """Without a dataset our own requests are asked; the answerer is its own critic. Harmless ones meet no critic."""
    asked: list[str] = []

    def reply(conversation: Conversation) -> str:
        asked.append(conversation.question)
        return "No change needed." if "\nAnswer: " in conversation.question else f"About: {conversation.question}"

    config = CritiqueAndRevisionConfig(rounds=1, prompts=3, helpful_prompts=2)
    made = critique_and_revision(config, completer=ScriptedCompleter(reply), run=run)
    rows = made.split("train")
    assert [row.facts["made"] for row in rows] == ["critique and revision"] * 3 + ["helpful answer"] * 2
    assert made.manifest.facts["helpful_rows"] == 2 and len(asked) == 8
    assert critique_and_revision(config, completer=ScriptedCompleter(reply), run=run).digest == made.digest and len(asked) == 8


def test_ones_own_constitution_is_part_of_the_lineage(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "tone.yaml"
    file.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    first = made_by(run, critic({}, str), file=file)
    assert first.manifest.facts["constitution"]["id"] == "tone"
    assert first.manifest.inputs["constitution_file"][0].name == "tone.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "name": "Changed"}), encoding="utf-8")
    assert made_by(run, critic({}, str), file=file).digest != first.digest


def test_what_the_critic_reads(tmp_path: Path) -> None:
    """All its turns in a question for a critique are critiques, and in one for a revision revisions; the beginning is the same for all."""
    file = tmp_path / "tone.yaml"
    file.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    tone = read_constitution(file)
    first = asking_critique(tone, "Hi?", "Yo.", tone.principles[0])
    assert [m.content for m in first.messages if m.role == "assistant"] == ["It is rude.", "No change needed. It is calm."]
    assert first.messages[-1].content == "Request: Hi?\nAnswer: Yo.\n\nWhere is it angry?"
    other = asking_critique(tone, "Bye?", "No.", tone.principles[0])
    assert first.messages[:-1] == other.messages[:-1]
    second = asking_revision(tone, "Hi?", "Yo.", "Too short.", tone.principles[0])
    assert [m.content for m in second.messages if m.role == "assistant"] == ["Hello."]
    assert second.messages[-1].content == "Bad answer: Yo.\nCritique: Too short.\n\nMake it calm.\n\nRequest: Hi?\nGood answer:"
    third = asking_revision(tone, "Hi?", "Yo.", None, tone.principles[0])
    assert third.messages[-1].content == "Rule: The answer stays calm.\nBad answer: Yo.\n\nRequest: Hi?\nGood answer:"
    assert "rude" not in "".join(m.content for m in third.messages)


def test_requests_of_the_user_stay_here(run: Run) -> None:
    """A critic is any address by one option; text of a dataset goes there only when the user says so."""
    inputs = recipe_inputs(critique_and_revision)
    assert {name: inputs[name].protocol for name in ("completer", "critic")} == {"completer": "Completer", "critic": "Completer"}
    assert inputs["constitution_file"].is_path and inputs["critic"].optional
    asked, store = sites.prompts(sites.PromptsConfig(), run=run), Store(run.home)
    given = {"completer": [toys.base(toys.BaseConfig(), run=run).id], "critic": ["http://critic.example/v1#big"], "prompts": [asked.id]}
    with pytest.raises(Refused, match=r"4 passages .*critic\.example"):
        open_inputs(store, run, inputs, given, share_documents=False)


@pytest.mark.slow
def test_the_real_model_as_its_own_critic(smollm2: Model, run: Run) -> None:
    """Twelve of our requests, one round: it revises a share worth learning from."""
    small = {"reads_critique": False, "frequency_penalty": 0.3, "temperature": 0.5, "max_answer_tokens": 80, "max_critique_tokens": 40}
    config = CritiqueAndRevisionConfig(prompts=12, rounds=1, helpful_prompts=4, **small)
    made = critique_and_revision(config, completer=TorchEngine(smollm2), run=run)
    facts = made.manifest.facts
    assert facts["requests"] >= 11 and facts["critiques"] == facts["requests"]
    assert facts["requests_revised"] >= 3  # a quarter
    assert all(row.answer and json.loads(row.facts["critiques"]) for row in made.split("train") if "critiques" in row.facts)
