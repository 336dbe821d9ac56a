"""Task: it comes back as it went in, and what cannot be scored is refused with the item's name."""

from typing import Any

import pytest

from mygpt.artifacts.kinds import KINDS
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.task import Example, Item, Task, TaskSettings, commonest_label, metrics_of, template_fields, write_task
from mygpt.core.config import Config
from mygpt.core.errors import UsageError
from mygpt.core.run import Run

CHOICES = ("low", "high")
ITEMS = (
    Item("a", "Is {x} low?", CHOICES, 0, facts={"cluster": "page 1", "place": "the quay"}),
    Item("b", "Is it high?", CHOICES, 1, ("high",), {"place": "the pier"}),
    Item("c", "And now?", CHOICES, 1, facts={"place": "the mole"}),
)
SETTINGS = TaskSettings(
    name="tides",
    version="2",
    form="choice",
    primary="acc_norm",
    prompt="At {place}. {question}",
    examples=(Example(question="Is it dry?", answer="low", facts={"place": "the beach"}),),
    chance=0.5,
)


class NoConfig(Config):
    pass


@recipe
def tides(config: NoConfig, *, run: Run) -> Task:
    return publish(Task, run, lambda folder: write_task(folder, ITEMS, SETTINGS))


def test_back_as_it_went_in(run: Run) -> None:
    made = tides(NoConfig(), run=run)
    assert isinstance(made, Task) and KINDS["task"] is Task
    assert (tuple(made.items), made.settings) == (ITEMS, SETTINGS)
    assert (made.version, made.form, made.primary) == ("2", "choice", "acc_norm")
    assert [item.cluster for item in made.items] == ["page 1", "b", "c"]
    facts = {"task": "tides", "version": "2", "form": "choice", "primary": "acc_norm", "chance": 0.5, "items": 3, "examples": 1}
    assert made.manifest.facts == {**facts, "commonest_label": 2 / 3}
    assert sorted(made.manifest.files) == ["items.parquet", "task.json"]


def test_metrics_of_each_form() -> None:
    def of(**changed: Any) -> dict[str, bool]:
        return metrics_of(SETTINGS.model_copy(update=changed), ITEMS)

    assert list(of()) == ["acc", "acc_norm", "acc_bytes"]
    assert list(of(mutual_information=True))[-1] == "acc_mutual_info"
    assert of(form="rolling") == {"bits_per_byte": False}  # lower is better
    assert list(of(form="generate", answer="number")) == ["numeric", "exact_match_flexible", "exact_match_strict"]


def test_the_commonest_label() -> None:
    assert commonest_label(ITEMS) == 2 / 3
    assert commonest_label([ITEMS[0], Item("d", "?", ("yes", "no"), 0)]) is None


@pytest.mark.parametrize(
    ("changed", "items", "what"),
    [
        ({"version": " "}, ITEMS, "The task `tides` has an empty version."),
        ({}, ITEMS[:1], "The task `tides` has 1 item."),
        ({}, (*ITEMS, ITEMS[1]), "The task `tides` has 1 ids more than once: `b`."),
        ({"primary": "f1"}, ITEMS, "The task `tides` is to be decided by `f1`, which a task of this form does not have."),
        ({"prompt": "{colour}"}, ITEMS, "Item `a` of the task `tides` has no field `colour`, which the prompt names."),
        ({"prompt": "{question.__class__}"}, ITEMS, "`{question.__class__}` of the prompt of `tides` is more than a field's name."),
        ({"prompt": "{question!r}"}, ITEMS, "`{question}` of the prompt of `tides` is more than a field's name."),
        ({"prompt": "{"}, ITEMS, "Braces of the prompt of `tides` do not match"),
        ({}, (ITEMS[0], Item("x", "?", CHOICES, 2, facts={"place": ""})), "Item `x` of the task `tides` has 2 as index of the right"),
        ({}, (ITEMS[0], Item("x", "?", ("one",), 0, facts={"place": ""})), "Item `x` of the task `tides` has 1 choices."),
        ({}, (ITEMS[0], Item("x", "?", ("one", " "), 0, facts={"place": ""})), "Item `x` of the task `tides` has an empty choice."),
        ({"form": "generate", "primary": "f1"}, ITEMS, "Item `a` of the task `tides` has no right answer."),
        ({"form": "rolling", "primary": "bits_per_byte", "prompt": ""}, (ITEMS[0], Item("x", " ")), "Item `x` of the task `tides` has no"),
    ],
)
def test_refused(changed: dict[str, Any], items: tuple[Item, ...], what: str, tmp_path: Any) -> None:
    with pytest.raises(UsageError) as error:
        write_task(tmp_path, items, SETTINGS.model_copy(update=changed))
    assert error.value.what.startswith(what)
    assert error.value.fix and not list(tmp_path.iterdir())


def test_template_fields() -> None:
    assert template_fields("{a} {{not}} {b}", where="it") == ["a", "b"]
