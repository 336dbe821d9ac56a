"""Supervised fine-tuning end to end: what is learnt, what is saved, what is refused, and how it is told to stop. Killed: test_killed.py."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.artifacts.dataset import Conversation, Dataset, Message
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.store import Store
from mygpt.cli.main import main
from mygpt.core.config import resolve
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.run import Run
from mygpt.finetune import rows
from mygpt.finetune import sft as module_under_test
from mygpt.finetune.sft import SFTConfig, serving_template, sft, sft_forecast
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.chat import ChatRenderer
from mygpt.lm.load import load_lm, load_tokenizer
from mygpt.training import fit
from tests.finetune import toys
from tests.training import tiny

SIZES: dict[str, Any] = {"step_tokens": 160, "micro_batch_tokens": 256, "precision": "float32"}
FAST: dict[str, Any] = {**SIZES, "method": LoRA(rank=4, alpha=8), "learning_rate": 5e-3}


@pytest.fixture
def model(run: Run) -> Model:
    return toys.base(toys.BaseConfig(), run=run)


@pytest.fixture
def dataset(run: Run) -> Dataset:
    return toys.pairs(toys.PairsConfig(), run=run)


@pytest.fixture
def events(run: Run) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    run.listeners.append(seen.append)
    return seen


@pytest.fixture
def new_run(run: Run) -> Iterator[Callable[..., Run]]:
    opened: list[Run] = []

    def new(home: Path | None = None, **changes: Any) -> Run:
        opened.append(Run(home or run.home, **{"name": run.name, **changes}))
        return opened[-1]

    yield new
    for one in opened:
        one.close()


def tuned(model: Model, dataset: Dataset, run: Run, **changes: Any) -> Any:
    return sft(SFTConfig(**{**FAST, **changes}), model=model, dataset=dataset, run=run)


def rendered(model: Model, dataset: Dataset) -> list[Any]:
    renderer = ChatRenderer(load_tokenizer(model))
    return [renderer.render(c) for c in dataset.split("train")]


def base_loss(model: Model, dataset: Dataset) -> float:
    """Mean over the trained tokens of all pairs, by transformers' own forward pass in eval mode."""
    module, total, count = load_lm(model, dtype=torch.float32).module, 0.0, 0
    for example in rendered(model, dataset):
        labels = [i if t else -100 for i, t in zip(example.token_ids, example.trained, strict=True)]
        with torch.no_grad():
            loss = module(input_ids=torch.tensor([example.token_ids]), labels=torch.tensor([labels])).loss
        total, count = total + float(loss) * sum(example.trained), count + sum(example.trained)
    return total / count


def logits(module: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = module(input_ids=torch.arange(3, 43)[None]).logits
        return found


# -- what is learnt and saved -----------------------------------------------------------------------------------------------


def test_adapter_end_to_end(model: Model, dataset: Dataset, run: Run) -> None:
    made = tuned(model, dataset, run, epochs=8)
    facts = made.manifest.facts
    assert isinstance(made, Adapter)
    losses = [loss for _, loss in facts["curve"]]
    assert [step for step, _ in facts["curve"]] == list(range(1, len(losses) + 1))
    assert losses[-1] < 0.8 * losses[0]
    assert facts["base"] == model.digest and facts["method"] == "lora" and facts["precision"] == "float32"
    # rank x (inputs + outputs) of each linear layer: q, o 32->32; k, v 32->16; gate, up 32->48; down 48->32; two layers
    assert facts["trainable"] == 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    assert facts["tokens"] == 8 * sum(len(e.token_ids) for e in rendered(model, dataset)) == made.manifest.cost["tokens"]
    assert facts["tokens_per_second"] > 0
    assert facts["template"] == ChatRenderer(load_tokenizer(model)).template_digest
    assert made.manifest.provenance == {"source": f"trained from {model.id}", "licence": "Apache-2.0"}
    assert sorted(made.manifest.files) == ["adapter_config.json", "adapter_model.safetensors"]
    assert made.base.digest == model.digest
    assert not list((run.home / "checkpoints").glob("*"))


def test_adapter_loads_in_plain_peft(model: Model, dataset: Dataset, run: Run) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    made = tuned(model, dataset, run)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model.payload, dtype=torch.float32), str(made.payload)).eval()
    ours = load_lm(model, adapter=made, dtype=torch.float32).module
    torch.testing.assert_close(logits(plain), logits(ours), atol=1e-5, rtol=1e-5)
    assert (logits(ours) - logits(load_lm(model, dtype=torch.float32).module)).abs().max() > 0.05


def test_every_weight(model: Model, dataset: Dataset, run: Run) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = tuned(model, dataset, run, method=Full(), epochs=6, learning_rate=3e-3)
    assert isinstance(made, Model)
    facts = made.manifest.facts
    plain = AutoModelForCausalLM.from_pretrained(made.payload, dtype=torch.float32).eval()
    torch.testing.assert_close(logits(plain), logits(load_lm(made, dtype=torch.float32).module), atol=1e-5, rtol=1e-5)
    assert facts["trainable"] == sum(p.numel() for p in plain.parameters())
    assert facts["curve"][-1][1] < 0.8 * facts["curve"][0][1]
    assert facts["method"] == "full" and facts["head"] == "lm" and facts["source"] == "tuned" and facts["base"] == model.digest
    assert AutoTokenizer.from_pretrained(made.payload).chat_template == tiny.CHATML
    changed = [n for (n, p), q in zip(plain.named_parameters(), load_lm(model).module.parameters(), strict=True) if not torch.equal(p, q)]
    assert len(changed) == len(list(plain.parameters()))

    again = tuned(made, dataset, run, epochs=1)  # a tuned Model is a base like any other
    assert isinstance(again, Adapter) and again.base.digest == made.digest
    assert again.manifest.facts["curve"][0][1] < facts["curve"][0][1]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_begins_at_the_bases_own_loss(architecture: str, dataset: Dataset, run: Run) -> None:
    """A fresh adapter changes nothing, so the first step's loss is the base's, to the four digits kept; gpt2's dropout stays off."""
    model = toys.base(toys.BaseConfig(architecture=architecture), run=run)
    made = tuned(model, dataset, run, epochs=1, step_tokens=4096, micro_batch_tokens=300)
    assert made.manifest.facts["curve"] == [[1, pytest.approx(base_loss(model, dataset), abs=6e-5)]]


def test_micro_batches_change_nothing(model: Model, dataset: Dataset, run: Run) -> None:
    in_rows: dict[str, Any] = {"step_tokens": 512, "pack_tokens": 0}
    curves = [tuned(model, dataset, run, **in_rows, micro_batch_tokens=n).manifest.facts["curve"] for n in (512, 128, 1)]
    assert len(curves[0]) > 3
    for other in curves[1:]:
        assert [loss for _, loss in other] == pytest.approx([loss for _, loss in curves[0]], abs=2e-4)


def test_packed_chunked_or_computed_again_changes_nothing(model: Model, dataset: Dataset, run: Run) -> None:
    """One step over all examples, on nearly the same weights: rows of one example, one packed row, two rows, few logits at a time."""
    one_step: dict[str, Any] = {"epochs": 2, "step_tokens": 4096}
    ways = ({"pack_tokens": 0}, {"pack_tokens": 4096}, {"pack_tokens": 300}, {"ce_chunk_tokens": 7}, {"recompute": True})
    made = [tuned(model, dataset, run, **one_step, **way).manifest.facts for way in ways]
    assert [facts["packed"] for facts in made] == [False, True, True, True, True]
    assert made[0]["ledger"]["padding_share"] > 0.05 and made[1]["ledger"]["padding_share"] == 0
    for facts in made[1:]:
        assert [loss for _, loss in facts["curve"]] == pytest.approx([loss for _, loss in made[0]["curve"]], abs=2e-4)


def test_compiled_rows_come_in_few_lengths(
    model: Model, dataset: Dataset, run: Run, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    shapes: list[int] = []
    real = module_under_test.summed_cross_entropy
    monkeypatch.setattr(rows, "compile_layers", compiled.append)
    monkeypatch.setattr(
        module_under_test, "summed_cross_entropy", lambda *args, **more: shapes.append(args[1].shape[1]) or real(*args, **more)
    )
    facts = tuned(model, dataset, run, compile_layers=True, step_tokens=256).manifest.facts
    assert len(compiled) == 1 and set(shapes) <= {128, 192, 256} and 0 < facts["ledger"]["padding_share"] < 0.3
    tuned(model, dataset, run, compile_layers=True, pack_tokens=0)
    assert len(compiled) == 1
    assert [e["text"] for e in events if e["event"] == "warning"] == [
        "Layers are not compiled: rows of one example each come in too many shapes."
    ]


def test_over_long_examples_are_left_out_only_when_asked(model: Model, dataset: Dataset, run: Run, events: list[dict[str, Any]]) -> None:
    lengths = sorted(len(e.token_ids) for e in rendered(model, dataset))
    limit = lengths[-2] - 1  # two of six are longer
    with pytest.raises(Refused, match=f"2 of 6 examples are longer than {limit} tokens") as refused:
        tuned(model, dataset, run, max_example_tokens=limit)
    assert "drop_over_long=true" in refused.value.fix
    facts = tuned(model, dataset, run, max_example_tokens=limit, drop_over_long=True).manifest.facts
    assert facts["over_long_dropped"] == 2 and facts["tokens"] == 3 * sum(lengths[:-2])
    told = [e["text"] for e in events if e["event"] == "warning"]
    assert told == [f"2 of 6 examples are longer than {limit} tokens (longest: {lengths[-1]}): they are left out of training, whole."]
    assert tuned(model, dataset, run, drop_over_long=True).manifest.facts["over_long_dropped"] == 0
    with pytest.raises(Refused, match="none would be left"):
        tuned(model, dataset, run, max_example_tokens=8, drop_over_long=True)


def test_replay_is_learnt_beside(model: Model, dataset: Dataset, run: Run) -> None:
    """Its tokens count, its own loss falls; without pairs of its own the set is still empty."""
    replay = toys.pairs(toys.PairsConfig(pairs=(("Say hello.", "Hello to you."), ("Say no.", "No."))), run=run)
    with_replay = sft(SFTConfig(**FAST), model=model, dataset=dataset, replay=replay, run=run)
    sizes = [3 * sum(len(e.token_ids) for e in rendered(model, part)) for part in (dataset, replay)]
    assert with_replay.manifest.facts["tokens"] == sum(sizes)
    assert tuned(model, dataset, run).manifest.facts["tokens"] == sizes[0]
    with pytest.raises(Refused, match="The training set is empty"):
        sft(SFTConfig(**FAST), model=model, dataset=toys.pairs(toys.PairsConfig(pairs=()), run=run), replay=replay, run=run)


def test_bfloat16(model: Model, dataset: Dataset, run: Run) -> None:
    facts = tuned(model, dataset, run, precision="bfloat16", epochs=8).manifest.facts
    assert facts["precision"] == "bfloat16"
    assert facts["curve"][-1][1] < 0.8 * facts["curve"][0][1]


def test_the_small_model_learns_by_heart(smollm2: Model, run: Run) -> None:
    """The real thing on two facts that it cannot know; the stop token is learnt with them."""
    facts = (("What colour is the Oda tower?", "The Oda tower is teal."), ("Who keeps the Oda tower?", "Mira Quill keeps it."))
    dataset = toys.pairs(toys.PairsConfig(pairs=facts), run=run)
    made = sft(SFTConfig(epochs=8, learning_rate=1e-3, step_tokens=128), model=smollm2, dataset=dataset, run=run)
    engine = TorchEngine(smollm2, adapter=made)
    answers = engine.complete([Conversation((Message("user", question),)) for question, _ in facts], Sampling(max_tokens=20))
    assert [(a.text, a.finish_reason) for a in answers] == [(answer, "stop") for _, answer in facts]


# -- the same again, and not the same ---------------------------------------------------------------------------------------


def test_cached_by_request(model: Model, dataset: Dataset, run: Run, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    real = module_under_test.load_lm
    monkeypatch.setattr(module_under_test, "load_lm", lambda *args, **kwargs: loads.append("load") or real(*args, **kwargs))
    first = tuned(model, dataset, run)
    assert tuned(model, dataset, new_run()).digest == first.digest
    assert loads == ["load"]
    assert tuned(model, dataset, run, learning_rate=4e-3).digest != first.digest
    assert len(loads) == 2


def adapter_bytes(adapter: Adapter) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(adapter.payload.iterdir())}


def test_seeds(model: Model, dataset: Dataset, run: Run, new_run: Callable[..., Run], tmp_path: Path) -> None:
    """Equal seeds give equal bytes, in another home too; other seeds other weights."""
    shutil.copytree(run.home, tmp_path / "elsewhere")
    first = tuned(model, dataset, run)
    store = Store(tmp_path / "elsewhere")
    again = tuned(Model.of(store, model.digest), Dataset.of(store, dataset.digest), new_run(tmp_path / "elsewhere"))
    other = tuned(model, dataset, new_run(seed=1))
    assert adapter_bytes(again) == adapter_bytes(first)
    assert again.digest == first.digest
    assert adapter_bytes(other)["adapter_model.safetensors"] != adapter_bytes(first)["adapter_model.safetensors"]
    assert other.manifest.facts["curve"] != first.manifest.facts["curve"]


def test_nothing_of_this_machine_or_process_is_in_the_adapter(model: Model, dataset: Dataset, run: Run) -> None:
    """peft writes the base's path, and the layers in the order of a set of strings, which changes from process to process."""
    settings = json.loads(adapter_bytes(tuned(model, dataset, run, epochs=1))["adapter_config.json"])
    assert settings["base_model_name_or_path"] == model.id
    linear = [f"mlp.{n}_proj" for n in ("down", "gate", "up")] + [f"self_attn.{n}_proj" for n in "koqv"]
    assert settings["target_modules"] == [f"model.layers.{layer}.{name}" for layer in (0, 1) for name in linear]
    assert str(run.home) not in json.dumps(settings)


# -- what it takes ----------------------------------------------------------------------------------------------------------


def test_the_ledger_and_the_forecast_are_stored(model: Model, dataset: Dataset, run: Run, new_run: Callable[..., Run]) -> None:
    made = tuned(model, dataset, new_run(usd_per_hour=36.0))
    examples = rendered(model, dataset)
    lengths, facts = [len(e.token_ids) for e in examples], made.manifest.facts
    ledger, forecast = facts["ledger"], facts["forecast"]
    assert ledger["steps"] == len(facts["curve"]) and ledger["real_tokens"] == 3 * sum(lengths) == facts["tokens"]
    assert ledger["trained_tokens"] == 3 * sum(sum(e.trained[1:]) for e in examples)
    assert 0 <= ledger["padding_share"] < 0.2 and ledger["padding_share"] == round(1 - 3 * sum(lengths) / ledger["computed_tokens"], 4)
    assert ledger["flops"] == forecast["flops"] > 0  # the plan says exactly what will be done
    assert ledger["share_of_limit"] == pytest.approx(ledger["flops"] / ledger["seconds"] / ledger["limit_flops_per_second"], rel=0.1)
    assert ledger["peak_memory_bytes"] > 1e8 and forecast["bytes"] > 1e8
    assert ledger["usd"] == pytest.approx(ledger["seconds"] * 0.01, rel=0.01)
    assert made.manifest.cost["usd"] == pytest.approx(made.manifest.cost["seconds"] * 0.01, rel=0.01)
    assert tuned(model, dataset, run, epochs=1).manifest.cost["usd"] is None
    assert forecast["trained_weights"] == facts["trainable"] and forecast["optimizer_bytes"] == 12 * facts["trainable"]


def test_what_does_not_fit_is_refused_before_weights_are_loaded(
    model: Model, dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what half the micro-batch needs and what all of it needs."""
    monkeypatch.setattr(fit, "resident_bytes", lambda device: 0)
    many = {"step_tokens": 4096, "micro_batch_tokens": 512, "pack_tokens": 0}
    configs = [SFTConfig(**{**FAST, **many, "micro_batch_tokens": tokens}) for tokens in (512, 256)]
    all_of_it, half = (sft_forecast(config, model=model, dataset=dataset, home=run.home)["bytes"] for config in configs)
    assert all_of_it > 1.3 * half
    monkeypatch.setattr(fit, "memory_limit_bytes", lambda device: (all_of_it + half) // 2)
    monkeypatch.setattr(module_under_test, "load_lm", None)
    with pytest.raises(Refused, match=r"Training needs about .* and this machine has ") as refused:
        tuned(model, dataset, run, **many)
    assert refused.value.fix.startswith("Try `--set micro_batch_tokens=256` (")
    assert nothing_was_made(run)


def test_dry_run_foresees(model: Model, dataset: Dataset, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["finetune", "sft", "--model", "tiny", "--dataset", "pairs", "--home", str(run.home), "--dry-run"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--set", "precision=float32", "--set", "max_example_tokens=70"])
    assert ended.value.code == 0
    foreseen = json.loads(capsys.readouterr().out)["forecast"]
    lengths = [len(e.token_ids) for e in rendered(model, dataset)]
    assert foreseen["examples"] == 6 and foreseen["tokens"] == 3 * sum(lengths)
    assert foreseen["longer_than_allowed"] == sum(n > 70 for n in lengths) > 0
    assert foreseen["weights_bytes"] > 4 * foreseen["trained_weights"] > 0 and foreseen["needs"].startswith("about ")
    with pytest.raises(SystemExit):
        main([*command[:3], "smollm2-nowhere", *command[4:]])  # would have to be fetched: no forecast, and no fault
    assert "forecast" not in json.loads(capsys.readouterr().out)
    empty = toys.pairs(toys.PairsConfig(pairs=()), run=run)
    assert sft_forecast(SFTConfig(), model=model, dataset=empty, home=run.home)["examples"] == 0
    assert nothing_was_made(run)


def test_a_price_is_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["finetune", "sft", "--model", "tiny", "--dataset", "pairs", "--usd-per-hour", "-1"])
    assert ended.value.code == 2 and "is not a price" in capsys.readouterr().err


# -- killed and resumed -----------------------------------------------------------------------------------------------------


def test_sigterm_and_resume_on_the_command_line(
    model: Model, dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 143 and what to do; `--resume` with another rate says so (3); with the same one it is the adapter of an unbroken run."""
    whole = tuned(model, dataset, run)
    real, calls = module_under_test.summed_cross_entropy, 0

    def terminated(*args: Any, **more: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **more)

    def command(*more: str, code: int, **changes: Any) -> str:
        flat = {**SIZES, "learning_rate": FAST["learning_rate"], "method.rank": 4, "method.alpha": 8, **changes}
        settings = [part for key, value in flat.items() for part in ("--set", f"{key}={value}")]
        with pytest.raises(SystemExit) as ended:
            main(["finetune", "sft", "--model", "tiny", "--dataset", "pairs", "--home", str(run.home), *settings, *more])
        assert ended.value.code == code
        return "".join(capsys.readouterr())

    with monkeypatch.context() as patch:
        patch.setattr(module_under_test, "summed_cross_entropy", terminated)
        said = command("--fresh", code=143)
    assert "error: Training was told to stop. The state after step " in said and "The same command goes on from there." in said
    assert "learning_rate was 0.005 there and is 0.004 here" in command("--resume", code=3, learning_rate=4e-3)
    assert "Going on from step " in command("--fresh", "--resume", code=0)
    made = Adapter.open(Store(run.home), "pairs")
    assert made.digest == whole.digest and adapter_bytes(made) == adapter_bytes(whole)


class Stopped(Exception):
    pass


def stop_at(run: Run, step: int) -> None:
    """As Ctrl-C does, after that step's events were written and before its checkpoint."""

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "log" and event["training_step"] == step:
            raise Stopped

    run.listeners.append(listen)


def test_a_damaged_checkpoint_costs_time_only(model: Model, dataset: Dataset, run: Run, new_run: Callable[..., Run]) -> None:
    stopped, again = new_run(), new_run()
    stop_at(stopped, 4)
    with pytest.raises(Stopped):
        tuned(model, dataset, stopped, checkpoint_seconds=0)
    (state,) = (run.home / "checkpoints").glob("*/step-3/state.safetensors")
    state.write_bytes(state.read_bytes()[:-1])
    warnings: list[str] = []
    again.listeners.append(lambda event: warnings.append(event["text"]) if event["event"] == "warning" else None)
    made = tuned(model, dataset, again, checkpoint_seconds=0)
    assert len(warnings) == 1 and "step-3" in warnings[0]
    assert adapter_bytes(made) == adapter_bytes(tuned(model, dataset, run))


def test_a_checkpoint_of_other_work_is_not_gone_on_from(
    model: Model, dataset: Dataset, run: Run, new_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update that makes other batches: the steps of the checkpoint are not the steps of this plan."""
    stopped, again = new_run(), new_run()
    stop_at(stopped, 4)
    with pytest.raises(Stopped):
        tuned(model, dataset, stopped, checkpoint_seconds=0)
    real = rows.plan_packed_epoch
    monkeypatch.setattr(rows, "plan_packed_epoch", lambda *args, **kwargs: real(*args, **kwargs)[::-1])
    warnings: list[str] = []
    again.listeners.append(lambda event: warnings.append(event["text"]) if event["event"] == "warning" else None)
    made = tuned(model, dataset, again, checkpoint_seconds=0)
    assert ["another version or machine" in text for text in warnings] == [True]
    assert adapter_bytes(made) == adapter_bytes(tuned(model, dataset, run))  # the same order, without any checkpoint


# -- what goes wrong ---------------------------------------------------------------------------------------------------------


def nothing_was_made(run: Run) -> bool:
    return not list(run.home.glob("artifacts/adapter/*")) and not list((run.home / "checkpoints").glob("*"))


def test_a_rate_that_is_far_too_high(model: Model, dataset: Dataset, run: Run) -> None:
    with pytest.raises(MygptError, match=r"The loss became nan at step 2 of \d+ with learning rate 1e\+25, on the examples \d \(") as error:
        tuned(model, dataset, run, learning_rate=1e25, checkpoint_seconds=0, warmup_share=0)
    assert error.value.exit_code == 1
    assert "2e+24" in error.value.fix and "--set sft.learning_rate=2e+24" in error.value.fix
    assert not list(run.home.glob("artifacts/adapter/*"))
    assert [p.name for p in (run.home / "checkpoints").glob("*/step-*")] == ["step-1"]  # the last one before it


def test_a_last_step_without_a_gradient_is_noticed(model: Model, dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is a number, its gradient is not (the slope of a root at 0): the weights would be lost and nobody would see it."""
    real = module_under_test.summed_cross_entropy

    def broken(*args: Any, **more: Any) -> torch.Tensor:
        loss = real(*args, **more)
        return loss + (loss * 0).sqrt()

    monkeypatch.setattr(module_under_test, "summed_cross_entropy", broken)
    with pytest.raises(MygptError, match=r"The gradient became nan at step 1 of 1 .* on the examples .*\d \(\d\)"):
        tuned(model, dataset, run, epochs=1, step_tokens=4096)
    assert not list(run.home.glob("artifacts/adapter/*")) and not list((run.home / "checkpoints").glob("*/step-*"))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("method", 5), ("epochs", 0), ("learning_rate", 0), ("learning_rate", -1e-3), ("warmup_share", 1.5)),
        *(("final_share", -0.1), ("step_tokens", 0), ("micro_batch_tokens", 0), ("max_example_tokens", 0), ("max_grad_norm", 0)),
        *(("checkpoint_seconds", -1), ("weight_decay", -0.1), ("precision", "float16")),
        *(("pack_tokens", -1), ("ce_chunk_tokens", 0)),
    ],
)
def test_settings_without_sense(setting: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"Setting `{setting}` cannot be"):
        resolve(SFTConfig, {setting: value})


def test_empty_set(model: Model, run: Run) -> None:
    with pytest.raises(Refused, match="The training set is empty"):
        tuned(model, toys.pairs(toys.PairsConfig(pairs=()), run=run), run)
    assert nothing_was_made(run)


def test_longer_than_the_window(model: Model, run: Run) -> None:
    dataset = toys.pairs(toys.PairsConfig(pairs=(*toys.PAIRS, ("Why?", "Because. " * 30))), run=run)
    with pytest.raises(Refused, match="1 of 7 examples are longer than 256 tokens") as error:
        tuned(model, dataset, run)
    assert "window is 256 tokens" in error.value.fix


# -- the template of training is that of serving ------------------------------------------------------------------------------


def test_a_template_changed_in_memory(model: Model, dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training would render one way; the engine, which reads the payload, another."""
    real = module_under_test.load_tokenizer

    def tampered(*args: Any, **kwargs: Any) -> Any:
        tokenizer = real(*args, **kwargs)
        tokenizer.chat_template = tiny.CHATML.replace("\n", " ")
        monkeypatch.setattr(module_under_test, "load_tokenizer", real)
        return tokenizer

    monkeypatch.setattr(module_under_test, "load_tokenizer", tampered)
    served = TorchEngine(model).renderer.template_digest
    with pytest.raises(Refused, match=f"is not the one of serving \\({served[:12]}\\)") as error:
        tuned(model, dataset, run)
    assert error.value.exit_code == 3 and nothing_was_made(run)


def test_a_template_that_is_lost_when_saved(model: Model, dataset: Dataset, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new Model takes its tokenizer along; if the folder would render otherwise, training does not begin."""
    real = module_under_test.load_tokenizer

    def lossy(*args: Any, **kwargs: Any) -> Any:
        tokenizer = real(*args, **kwargs)
        save = tokenizer.save_pretrained

        def save_another(folder: Any) -> None:
            save(folder)
            Path(folder, "chat_template.jinja").write_text(tiny.CHATML.replace("\n", " "))

        monkeypatch.setattr(tokenizer, "save_pretrained", save_another)
        return tokenizer

    monkeypatch.setattr(module_under_test, "load_tokenizer", lossy)
    with pytest.raises(Refused, match="is not the one of serving"):
        tuned(model, dataset, run, method=Full())
    assert len(list(run.home.glob("artifacts/model/*"))) == 1  # the base


def test_a_base_tuned_with_another_template(dataset: Dataset, run: Run) -> None:
    recorded = "0123456789ab" + "0" * 52
    with pytest.raises(Refused, match="was tuned with the chat template 0123456789ab"):
        tuned(toys.base(toys.BaseConfig(template_fact=recorded), run=run), dataset, run)


def test_serving_template_is_the_engines(model: Model) -> None:
    tokenizer = load_tokenizer(model)
    own = ChatRenderer(tokenizer).template_digest
    assert serving_template(model, tokenizer, new_model=False) == TorchEngine(model).renderer.template_digest == own
    assert serving_template(model, tokenizer, new_model=True) == own
    assert serving_template(replace(model), tokenizer, new_model=False) == own
