"""Causal language modelling: every token once, transformers' own loss, bits per byte as the engine scores them, and exact resume."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.artifacts.model import Adapter, Model
from mygpt.cli.main import main
from mygpt.core.config import resolve
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.run import Run
from mygpt.finetune import causal_lm as module_under_test
from mygpt.finetune.causal_lm import CausalLMConfig, causal_lm, held_out_scores, named_windows, windows
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.freeze import Freeze
from mygpt.lm.adapters.ia3 import IA3
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.adapters.prefix import Prefix
from mygpt.lm.adapters.prompt import Prompt
from mygpt.lm.load import load_lm, load_tokenizer
from mygpt.lm.plain_text import inner_ids
from mygpt.metrics.bits_per_byte import bits_per_byte
from mygpt.training.batches import batch_of
from mygpt.training.losses import summed_cross_entropy
from tests.finetune import label_data, shapes, toys
from tests.finetune.conftest import Killed
from tests.finetune.test_sft_methods import label

WINDOW = 48
FAST: dict[str, Any] = {"precision": "float32", "checkpoint_seconds": 0, "max_example_tokens": WINDOW, "step_tokens": 128}


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return label_data.prose(label_data.Nothing(), run=run)


@pytest.fixture
def model(run: Run) -> Model:
    return base("llama", run)


def base(shape: str, run: Run) -> Model:
    return shapes.base(shapes.BaseConfig(shape=shape), run=run)


def tuned(model: Model, dataset: Dataset, run: Run, **changes: Any) -> Any:
    return causal_lm(CausalLMConfig(**{**FAST, **changes}), model=model, dataset=dataset, run=run)


# -- windows -----------------------------------------------------------------------------------------------------------------


def test_windows_by_hand() -> None:
    assert list(windows("_abcdefg.", 4)) == [tuple("_abc"), tuple("cdef"), tuple("fg.")]
    assert list(windows("_abc", 4)) == [tuple("_abc")]
    assert list(windows("_abcd", 4)) == [tuple("_abc"), tuple("cd")]
    assert list(windows("_abc", 2)) == [("_", "a"), ("a", "b"), ("b", "c")]


@pytest.mark.parametrize("size", [2, 3, WINDOW, 1000])
def test_every_token_is_a_label_once(size: int, dataset: Dataset, model: Model) -> None:
    """Behind the token that begins texts, with the one that ends them: what a window reads again is no label."""
    tokenizer = load_tokenizer(model)
    made = list(named_windows(dataset, "train", tokenizer, size, closed=True))
    labels = [token for _, w in made for token, trained in zip(w.token_ids, w.trained, strict=True) if trained]
    assert labels == [token for text in dataset.texts("train") for token in (*inner_ids(tokenizer, text), 2)]
    assert all(len(w.token_ids) <= size and w.trained[0] is False for _, w in made)
    assert [w.token_ids[0] for name, w in made if name.endswith(", window 1")] == [1] * 4
    if size == WINDOW:  # 192 letters and the end are 193 labels, at 47 a window
        assert [name for name, _ in made] == ["0, window 1", "1, window 1", *(f"2, window {n}" for n in (1, 2, 3, 4, 5)), "3, window 1"]


def test_a_special_spelling_stays_text_and_empty_texts_are_passed_over(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [("a", "x</s>y"), ("b", ""), ("c", "\ud800")]
    monkeypatch.setattr(Dataset, "stream_texts", lambda self, split: iter(texts))
    made = dict(named_windows(Dataset(None, None), "train", load_tokenizer(model), 64, closed=True))  # type: ignore[arg-type]
    assert list(made) == ["a, window 1", "c, window 1"]
    ids = made["a, window 1"].token_ids
    assert len(ids) == 8 and ids[0] == 1 and ids[-1] == 2 and not {1, 2} & set(ids[1:-1])


# -- the loss ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
@torch.no_grad()
def test_loss_is_transformers_own(shape: str, dataset: Dataset, run: Run) -> None:
    """With `labels=input_ids`, window by window."""
    loaded = load_lm(base(shape, run), dtype=torch.float32)
    for _, window in named_windows(dataset, "train", loaded.tokenizer, WINDOW, closed=True):
        batch = batch_of([window], padding_id=0, device=loaded.device)
        ours = float(summed_cross_entropy(loaded.module, batch.ids_BT, batch.trained_BT)) / (len(window.token_ids) - 1)
        assert ours == pytest.approx(float(loaded.module(input_ids=batch.ids_BT, labels=batch.ids_BT).loss), rel=1e-6)


@pytest.mark.parametrize("method", [LoRA(rank=2), None], ids=["lora", "full"])
def test_begins_at_the_bases_own_loss(method: LoRA | None, model: Model, dataset: Dataset, run: Run) -> None:
    """One step over all: the mean of transformers' losses, a label each, to the four digits kept."""
    changes = {"step_tokens": 4096, **({"method": method} if method else {})}
    made = tuned(model, dataset, run, **changes)
    loaded, total, count = load_lm(model, dtype=torch.float32), 0.0, 0
    for _, window in named_windows(dataset, "train", loaded.tokenizer, WINDOW, closed=True):
        ids_1T, labels = torch.tensor([window.token_ids]), len(window.token_ids) - 1
        with torch.no_grad():
            total, count = total + float(loaded.module(input_ids=ids_1T, labels=ids_1T).loss) * labels, count + labels
    facts = made.manifest.facts
    assert facts["curve"] == [[1, pytest.approx(total / count, abs=6e-5)]]
    assert facts["ledger"]["trained_tokens"] == count == sum(len(t) + 1 for t in dataset.texts("train"))
    assert facts["windows"] == 8 and facts["tokens"] == count + 8 and facts["packed"]
    assert facts["ledger"]["flops"] == facts["forecast"]["flops"] > 0
    assert isinstance(made, Adapter if method else Model) and (method or made.head == "lm")


def test_packed_or_not_changes_nothing(model: Model, dataset: Dataset, run: Run) -> None:
    ways: tuple[dict[str, Any], ...] = ({"pack_tokens": 0}, {"pack_tokens": 4096}, {"pack_tokens": 100})
    made = [tuned(model, dataset, run, epochs=2, step_tokens=4096, **way).manifest.facts for way in ways]
    assert [facts["packed"] for facts in made] == [False, True, True]
    for facts in made[1:]:
        assert [loss for _, loss in facts["curve"]] == pytest.approx([loss for _, loss in made[0]["curve"]], abs=2e-4)


# -- what is learnt ----------------------------------------------------------------------------------------------------------


def test_learns_by_heart_and_where_texts_end(model: Model, dataset: Dataset, run: Run) -> None:
    """Greedy: the rest of each text, and then nothing. The held-out texts are among those that were learnt."""
    made = tuned(model, dataset, run, epochs=60, learning_rate=1e-2, step_tokens=512)
    facts = made.manifest.facts
    before, after = facts["held_out_before"], facts["held_out"]
    assert after["bits_per_byte"] < 0.3 < 5 < before["bits_per_byte"]
    assert facts["sentences"] == [
        f"Held out: {before['bits_per_byte']:.3f} bits per byte before, {after['bits_per_byte']:.3f} after."
    ]
    begun = [("The ferry", " leaves at nine."), ("A bell", " rings twice before the ferry leaves."), ("Rai", "n.")]
    answers = TorchEngine(made).complete([Conversation((Message("text", text),)) for text, _ in begun], Sampling(max_tokens=60))
    assert [(a.text, a.finish_reason) for a in answers] == [(rest, "stop") for _, rest in begun]


@pytest.mark.parametrize("window", [WINDOW, 20])
def test_bits_per_byte_are_those_of_the_engine(window: int, model: Model, dataset: Dataset, run: Run) -> None:
    """Whole texts as `mygpt eval` scores them; and in windows, by hand from the logits of each."""
    made = tuned(model, dataset, run, max_example_tokens=window, method=LoRA(rank=2), learning_rate=2e-2, epochs=3)
    texts = dataset.texts("test")
    for adapter, said in ((None, made.manifest.facts["held_out_before"]), (made, made.manifest.facts["held_out"])):
        loaded = load_lm(model, adapter=adapter, dtype=torch.float32)
        if window == WINDOW:
            scores = TorchEngine(model, loaded=loaded).score([""] * len(texts), texts)
            expected = bits_per_byte([s.logprob for s in scores], [s.num_bytes for s in scores])
        else:
            nats = 0.0
            for _, one in named_windows(dataset, "test", loaded.tokenizer, window, closed=False):
                ids_1T = torch.tensor([one.token_ids])
                with torch.no_grad():
                    nats += float(loaded.module(input_ids=ids_1T, labels=ids_1T).loss) * (len(one.token_ids) - 1)
            expected = bits_per_byte([-nats], [sum(len(text) for text in texts)])
        assert said["bits_per_byte"] == pytest.approx(expected, rel=1e-5)
        assert said["bytes"] == said["tokens"] == sum(len(text) for text in texts)  # a token a letter


METHODS = (Freeze(num_layers=1), LoRA(rank=2, weights="nf4"), IA3(learning_rate=5e-2), Prefix(num_tokens=4, learning_rate=3e-2))


@pytest.mark.parametrize("method", METHODS, ids=label)
def test_methods(method: Any, model: Model, dataset: Dataset, run: Run) -> None:
    """What is saved gives the bits per byte that were measured; they are fewer than before."""
    made = tuned(model, dataset, run, method=method, epochs=12, step_tokens=512)
    facts = made.manifest.facts
    assert facts["method"] == method.name and facts["held_out"]["bits_per_byte"] < facts["held_out_before"]["bits_per_byte"]
    opened = {"model": made} if isinstance(made, Model) else {"model": model, "adapter": made}
    loaded = load_lm(**opened, dtype=torch.float32)
    again = held_out_scores(loaded.module, dataset, loaded.tokenizer, WINDOW, padding_id=0)
    assert again is not None and again["bits_per_byte"] == pytest.approx(facts["held_out"]["bits_per_byte"], rel=1e-4)


def test_without_held_out_texts(model: Model, dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Dataset.stream_texts
    monkeypatch.setattr(Dataset, "stream_texts", lambda self, split: iter(()) if split == "test" else real(self, split))
    facts = tuned(model, dataset, run).manifest.facts
    assert facts["held_out"] is None and facts["sentences"] == ["No held-out texts: what was learnt was not measured."]


def test_virtual_tokens_leave_less_room(model: Model, dataset: Dataset, run: Run) -> None:
    """The window of 128 tokens less the 8 of the prompt."""
    facts = tuned(model, dataset, run, max_example_tokens=1000, method=Prompt(num_tokens=8, text="The")).manifest.facts
    assert facts["windows"] == 5  # the long text, 194 tokens with beginning and end, in two of 120


# -- killed and resumed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [LoRA(rank=2), None], ids=["lora", "full"])
def test_killed_and_resumed_is_uninterrupted(
    method: LoRA | None, model: Model, dataset: Dataset, run: Run, killed_at: Callable[[int], Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in step 2 and in step 5, packed; the texts of training are tokenised once."""
    settings = {"epochs": 3, **({"method": method} if method else {})}
    whole = tuned(model, dataset, run, **settings)
    tokenised: list[str] = []
    real = module_under_test.inner_ids
    monkeypatch.setattr(module_under_test, "inner_ids", lambda tokenizer, text: tokenised.append(text) or real(tokenizer, text))
    for step in (2, 5):
        with pytest.raises(Killed):
            tuned(model, dataset, killed_at(step), **settings)
    again = tuned(model, dataset, killed_at(0), **settings)
    assert again.manifest.content == whole.manifest.content
    same = ("curve", "held_out", "held_out_before", "packed", "tokens")
    assert [again.manifest.facts[key] for key in same] == [whole.manifest.facts[key] for key in same]
    assert len(whole.manifest.facts["curve"]) > 6 and whole.manifest.facts["packed"]
    held_out = dataset.texts("test")
    assert sorted(tokenised) == sorted([*dataset.texts("train"), *held_out * 4])  # before, three times, and after
    assert not list((run.home / "checkpoints").glob("*")) and not list((run.home / "cache" / "examples").glob("*"))


# -- what goes wrong ---------------------------------------------------------------------------------------------------------


def test_refusals(model: Model, dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="has rows of the schema `sft`, and this needs `text`"):
        tuned(model, toys.pairs(toys.PairsConfig(), run=run), run)
    with pytest.raises(UsageError, match="has the head `masked_lm`, and this needs a language model"):
        tuned(base("bert", run), dataset, run)
    with pytest.raises(UsageError, match="Setting `max_example_tokens` cannot be"):
        resolve(CausalLMConfig, {"max_example_tokens": 1})
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "stream_texts", lambda self, split: iter(()))
        with pytest.raises(Refused, match="The training set is empty"):
            tuned(model, dataset, run)
    tokenizer = load_tokenizer(model)
    tokenizer.eos_token = None
    monkeypatch.setattr(module_under_test, "load_tokenizer", lambda model: tokenizer)
    with pytest.raises(Refused, match="has no token that ends a text"):
        tuned(model, dataset, run)
    assert not list((run.home / "cache" / "examples").glob("*"))


def test_a_loss_that_is_no_number_names_its_windows(model: Model, dataset: Dataset, run: Run) -> None:
    with pytest.raises(MygptError, match=r"became nan at step 2 of \d+ .* on the examples \d \(\d, window \d\)") as error:
        tuned(model, dataset, run, learning_rate=1e25, epochs=3, warmup_share=0)
    assert error.value.fix.startswith("Use a smaller `learning_rate`, for example 2e+24.")


def test_sft_names_it_for_raw_text(dataset: Dataset, run: Run) -> None:
    chat = toys.base(toys.BaseConfig(), run=run)
    for more in ({"dataset": dataset}, {"dataset": toys.pairs(toys.PairsConfig(), run=run), "replay": dataset}):
        with pytest.raises(Refused, match="holds raw text") as refused:
            sft(SFTConfig(), model=chat, run=run, **more)
        assert "`mygpt finetune causal_lm`" in refused.value.fix


def test_dry_run_foresees(model: Model, dataset: Dataset, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["finetune", "causal_lm", "--model", "tiny-llama", "--dataset", "prose", "--home", str(run.home), "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--set", "precision=float32", "--set", f"max_example_tokens={WINDOW}", "--set", "epochs=2"])
    assert ended.value.code == 0
    foreseen = json.loads(capsys.readouterr().out)["forecast"]
    assert foreseen["examples"] == 8 and foreseen["tokens"] == 2 * sum(len(t) + 1 for t in dataset.texts("train")) + 16
    assert foreseen["needs"].startswith("about ") and not list((run.home / "cache" / "examples").glob("*"))


@torch.no_grad()
def test_held_out_texts_are_measured_in_parts(model: Model, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three windows in memory at a time, forward passes of few tokens: the same number."""
    loaded = load_lm(model, dtype=torch.float32)
    whole = held_out_scores(loaded.module, dataset, loaded.tokenizer, 20, padding_id=0)
    monkeypatch.setattr(module_under_test, "_MEASURED_TOGETHER", 3)
    monkeypatch.setattr(module_under_test, "_MEASURED_TOKENS", 25)
    parts = held_out_scores(loaded.module, dataset, loaded.tokenizer, 20, padding_id=0)
    assert parts is not None and parts["bits_per_byte"] == pytest.approx(whole["bits_per_byte"], rel=1e-6)  # type: ignore[index]
