"""The engine against transformers' own `generate` and forward pass, in float32, on the real SmolLM2-135M and on tiny models."""

import hashlib
import math
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Model
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer import batch, padded_parts
from mygpt.infer.decode_step import DecodeStep
from mygpt.infer.kv_cache import SlotCache
from mygpt.infer.prefixes import share_prefixes
from mygpt.infer.protocols import Answer, Sampling
from mygpt.infer.streamed_text import cut_at_stop, settled
from mygpt.infer.torch_engine import TorchEngine
from mygpt.infer.tree_attention import TreeSlots
from mygpt.lm.load import Loaded, load_lm
from tests.infer.tiny_models import SETTINGS, WINDOW, ask, engine_of, own_greedy, tiny_module

PASSAGE = "The Tern timer wakes the kiln at six. It counts in minutes, holds four programs and beeps twice when one ends. "
MIXED = [
    ask("Hi"),
    *(ask(PASSAGE + question) for question in ("When?", "How many programs does it hold?", "When?", "What does it do at the end?")),
    ask("Name a colour, then another one."),
    *(ask(PASSAGE[:60] + question) for question in ("One?", "And two, or three of them?")),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products: a second thread costs more than it brings, above all beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def real(smollm2: Model) -> Loaded:
    return load_lm(smollm2, dtype=torch.float32)


def logprobs_of(module: Any, prompt: tuple[int, ...], continuation: tuple[int, ...]) -> list[float]:
    """log p of each token of `continuation`, by one fresh forward pass of the whole model."""
    with torch.inference_mode():
        logits_TV = module(input_ids=torch.tensor([prompt + continuation])).logits[0].float()
    found = logits_TV.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(continuation)[:, None])
    logprobs: list[float] = found[:, 0].tolist()
    return logprobs


# -- the same answers as transformers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane_slots", [batch._LANE_SLOTS, 1])  # with 1, every length has a lane of its own
@pytest.mark.parametrize("architecture", SETTINGS)
def test_greedy_answers_are_those_of_generate(architecture: str, lane_slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_LANE_SLOTS", lane_slots)
    module = tiny_module(architecture)
    engine = engine_of(module)
    prompts = [engine.renderer.prompt(c) for c in MIXED]
    answers = engine.complete(MIXED, Sampling(max_tokens=24))
    stops = engine.renderer.stop_token_ids
    assert [list(a.token_ids) for a in answers] == [own_greedy(module, p, max_tokens=24, stops=stops) for p in prompts]
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.prompt_tokens == len(prompt)
        assert answer.logprobs == pytest.approx(logprobs_of(module, prompt, answer.token_ids), abs=1e-4)


def test_that_batch_is_a_mixed_one() -> None:
    engine = engine_of(tiny_module("llama"))
    trees = share_prefixes([engine.renderer.prompt(c) for c in MIXED])
    assert sorted(len(t.rows) for t in trees) == [1, 1, 2, 4]


def test_a_window_matters_here() -> None:
    """The same weights without the window answer otherwise, so the test above would notice a lost one."""
    windowed, without = tiny_module("mistral"), tiny_module("mistral", sliding_window=None)
    without.load_state_dict(windowed.state_dict())
    answers = [engine_of(m).complete(MIXED, Sampling(max_tokens=24)) for m in (windowed, without)]
    assert min(a.prompt_tokens for a in answers[0]) > WINDOW
    assert [a.token_ids for a in answers[0]] != [a.token_ids for a in answers[1]]


@pytest.mark.parametrize("limits", [{"max_rows": 2}, {"max_batch_tokens": 300}, {"max_rows": 1, "max_batch_tokens": 1}])
def test_small_batches_give_the_same_answers(limits: dict[str, int]) -> None:
    module = tiny_module("llama")
    whole = engine_of(module).complete(MIXED, Sampling(max_tokens=24))
    small = engine_of(module, **limits).complete(MIXED, Sampling(max_tokens=24))
    assert [a.token_ids for a in small] == [a.token_ids for a in whole]


def test_rows_that_stop_early_change_nothing_for_the_others() -> None:
    """Rows leave their trees, and whole trees the cache, at different times."""
    module = tiny_module("llama")
    with torch.no_grad():
        module.get_output_embeddings().weight[2] *= 2.0  # the stop token is likelier
    engine = engine_of(module)
    answers = engine.complete(MIXED * 3, Sampling(max_tokens=40))
    assert {a.finish_reason for a in answers} == {"stop", "length"}
    lengths = [len(a.token_ids) for a in answers]
    assert min(lengths) < 10 and max(lengths) == 40
    for conversation, answer in zip(MIXED, answers, strict=False):
        prompt = engine.renderer.prompt(conversation)
        assert list(answer.token_ids) == own_greedy(module, prompt, max_tokens=40, stops=engine.renderer.stop_token_ids)
        assert answer.finish_reason == ("stop" if answer.token_ids[-1] == 2 else "length")


@pytest.mark.parametrize("lane_slots", [batch._LANE_SLOTS, 1])
@pytest.mark.parametrize("max_rows", [3, 8])
def test_rows_that_come_into_free_places_answer_as_alone(max_rows: int, lane_slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 prompts of all shapes through a small batch: rows finish at different times and others take their places."""
    monkeypatch.setattr(batch, "_LANE_SLOTS", lane_slots)
    module = tiny_module("llama")
    with torch.no_grad():
        module.get_output_embeddings().weight[2] *= 1.6  # some stop early
    engine = engine_of(module, max_rows=max_rows)
    conversations = [*MIXED, *(ask(f"{PASSAGE[: 7 * n]} and number {n}?") for n in range(24)), *MIXED]
    answers = engine.complete(conversations, Sampling(max_tokens=30))
    stops = engine.renderer.stop_token_ids
    for conversation, answer in zip(conversations, answers, strict=True):
        prompt = engine.renderer.prompt(conversation)
        assert list(answer.token_ids) == own_greedy(module, prompt, max_tokens=30, stops=stops)
        assert answer.logprobs == pytest.approx(logprobs_of(module, prompt, answer.token_ids), abs=1e-4)
    lengths = [len(a.token_ids) for a in answers]
    assert min(lengths) < 12 and max(lengths) == 30


def test_a_batch_is_filled_again_once_a_quarter_is_free() -> None:
    """48 prompts of one length, places for 8, answers of 2 to 16 tokens: 432, which one full batch after another takes 96 steps for."""
    engine = engine_of(tiny_module("llama"), max_rows=8)
    engine.stop_token_ids = frozenset()  # type: ignore[misc]
    running: list[int] = []
    seen = engine._choose

    def counted(hidden_RD: torch.Tensor | None, rows: Any) -> None:
        running.append(len(rows))
        seen(hidden_RD, rows)

    engine._choose = counted  # type: ignore[method-assign]
    asked = [ask(f"{n:02d}") for n in range(48)]
    samplings = [Sampling(max_tokens=2 * (n % 8 + 1)) for n in range(48)]
    answers = engine.complete_each(asked, samplings)
    assert [len(a.token_ids) for a in answers] == [s.max_tokens for s in samplings]
    assert max(running) == 8 and sum(running) == 432
    assert min(running[:-16]) > 5  # once a quarter is free, others come in
    assert len(running) <= 70


def test_every_row_by_its_own_settings() -> None:
    engine = engine_of(tiny_module("llama"))
    asked = [MIXED[1]] * 3 + [MIXED[0]]
    samplings = [
        Sampling(max_tokens=5),
        Sampling(max_tokens=12, temperature=1.0, seed=3),
        Sampling(max_tokens=12, min_tokens=12),
        Sampling(max_tokens=9, stop=("a", "e", "o", "t", "s")),
    ]
    together = engine.complete_each(asked, samplings)
    alone = [engine.complete([c], s)[0] for c, s in zip(asked, samplings, strict=True)]
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]
    assert len(together[0].token_ids) <= 5 and len(together[2].token_ids) == 12


def test_every_row_through_its_own_adapter() -> None:
    """Two adapters and the base model in one batch, each row as by the model with that adapter alone (peft's own forward pass)."""
    from peft import LoraConfig, get_peft_model

    module = tiny_module("llama")
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(1)
    several = get_peft_model(module, config, adapter_name="one")
    several.add_adapter("two", config)
    several.eval()
    for name, parameter in several.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.4)
    engine = engine_of(several)
    engine._adapters = {"one": None, "two": None}  # type: ignore[dict-item]
    names = ["one", None, "two", "two", "one", None, "one", "two"]
    answers = engine.complete_each(MIXED, [Sampling(max_tokens=16)] * len(MIXED), names)
    stops = engine.renderer.stop_token_ids
    for name, conversation, answer in zip(names, MIXED, answers, strict=True):
        prompt = engine.renderer.prompt(conversation)
        several.set_adapter(name or "one")
        with several.disable_adapter() if name is None else nullcontext():
            assert list(answer.token_ids) == own_greedy(several, prompt, max_tokens=16, stops=stops)
    assert len({a.token_ids for a in engine.complete_each([MIXED[0]] * 3, [Sampling(max_tokens=16)] * 3, ["one", "two", None])}) == 3
    with pytest.raises(UsageError, match=r"no adapter `three` in this engine \(it has one, two\)"):
        engine.complete_each([MIXED[0]], [Sampling()], ["three"])


def test_the_real_model_answers_as_under_generate(real: Loaded, smollm2: Model) -> None:
    engine = TorchEngine(smollm2, loaded=real)
    facts = "Ada planted 12 pear trees in Leeds in 1911. The orchard was sold to the city in 1950 and is now a park with a pond."
    conversations = [
        *(ask(f"{facts} {question}") for question in ("How many trees?", "Who owns it now?", "When was it sold, and to whom?")),
        ask("What is the capital of France?"),
        Conversation((Message("system", "You are brief."), Message("user", "What is 2+2?"))),
    ]
    prompts = [engine.renderer.prompt(c) for c in conversations]
    answers = engine.complete(conversations, Sampling(max_tokens=12))
    stops = engine.renderer.stop_token_ids
    assert [list(a.token_ids) for a in answers] == [own_greedy(real.module, p, max_tokens=12, stops=stops) for p in prompts]
    assert {a.finish_reason for a in answers} == {"stop", "length"}
    assert max(len(t.rows) for t in share_prefixes(prompts)) == 3
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.logprobs == pytest.approx(logprobs_of(real.module, prompt, answer.token_ids), abs=1e-4)
        assert answer.text == real.tokenizer.decode(answer.token_ids, skip_special_tokens=True).strip()


def test_it_works_in_bfloat16_with_long_and_short_rows_together() -> None:
    module = tiny_module("llama").to(torch.bfloat16)
    answers = engine_of(module).complete([ask("a"), ask("b" * 300), *MIXED], Sampling(max_tokens=12))
    assert all(math.isfinite(p) and p <= 0 for a in answers for p in a.logprobs)
    assert all(len(a.logprobs) == len(a.token_ids) for a in answers)


@pytest.mark.parametrize(
    ("architecture", "settings", "reason"),
    [
        ("bloom", {}, "its positions cannot be given"),
        ("falcon", {"alibi": True}, "its positions cannot be given"),
        ("mamba", {}, "a running state in place of keys and values"),
        ("gpt_neo", {"attention_types": [[["global", "local"], 1]], "num_layers": 2}, "layers of the type local"),
        ("lfm2", {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2}, "layers of the type conv"),
    ],
)
def test_other_kinds_of_model_are_refused(architecture: str, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        engine_of(tiny_module(architecture, **settings)).complete([ask("Hi")], Sampling(max_tokens=2))


# -- masks and cache --------------------------------------------------------------------------------------------------------


def test_who_sees_whom() -> None:
    """By hand: prefix of 2, rows of 1 and 2 tokens, one padding; then one more token of each row."""
    config = tiny_module("llama").config
    slots = TreeSlots(config)
    slots.add(torch.tensor([[0, 0, 1, 2, 2, -1]]), torch.tensor([[0, 1, 2, 2, 3, 0]]))
    first = slots.mask(6, torch.float32)
    assert isinstance(first, torch.Tensor)
    assert (first[0, 0] == 0).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 0, 0, 0, 0, 1],
    ]
    slots.add(torch.tensor([[1, 2]]), torch.tensor([[3, 4]]))
    second = slots.mask(2, torch.float32)
    assert isinstance(second, torch.Tensor)
    assert (second[0, 0] == 0).int().tolist() == [[1, 1, 1, 0, 0, 0, 1, 0], [1, 1, 0, 1, 1, 0, 0, 1]]
    assert second.min() == torch.finfo(torch.float32).min


def test_a_window_counts_positions_not_slots() -> None:
    """Window 2: a token and the one before it; the second row's first token still sees the prefix's last."""
    slots = TreeSlots(tiny_module("mistral", sliding_window=2).config)
    slots.add(torch.tensor([[0, 0, 1, 1, 2]]), torch.tensor([[0, 1, 2, 3, 2]]))
    mask = slots.mask(5, torch.float32)
    assert isinstance(mask, torch.Tensor)
    assert (mask[0, 0] == 0).int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 1, 0, 0, 1]]


def test_the_cache_grows_and_keeps_what_was_written() -> None:
    cache = SlotCache(num_slots=4)
    torch.manual_seed(0)
    keys = [torch.randn(3, 2, n, 5) for n in (3, 1, 4, 2)]
    for key in keys:
        for layer in (0, 1):
            found, values = cache.update(key + layer, -key - layer, layer)
        cache.advance(key.shape[2])
    assert torch.equal(found, torch.cat(keys, 2) + 1) and torch.equal(values, -found)
    assert cache.get_seq_length() == 10
    cache.keep(torch.tensor([2, 0]))
    found, _ = cache.update(torch.zeros(2, 2, 1, 5), torch.zeros(2, 2, 1, 5), 0)
    assert torch.equal(found[:, :, :10], torch.cat(keys, 2)[[2, 0]])


def test_rows_of_unlike_length_take_several_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above stand on; attention that is not ours (sinks) takes one."""
    monkeypatch.setattr(batch, "_LANE_SLOTS", 1)
    counts = []
    seen = batch.forward
    monkeypatch.setattr(batch, "forward", lambda *given: counts.append(len(given[3])) or seen(*given))
    engine_of(tiny_module("llama")).complete(MIXED, Sampling(max_tokens=4))
    assert max(counts) >= 3
    counts.clear()
    engine_of(tiny_module("gpt_oss")).complete(MIXED, Sampling(max_tokens=4))
    assert max(counts) == 1


def test_prompts_of_unlike_length_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One long prompt and six short ones that begin apart: short ones are not padded to the long one, unless one more pass costs a lot."""
    module = tiny_module("llama")
    asked = [ask(letter * times) for letter, times in zip("abcdefg", [90, *[9] * 6], strict=True)]
    fed: list[int] = []
    own = batch.forward
    monkeypatch.setattr(batch, "forward", lambda *given: fed.append(given[2][0].numel()) or own(*given))
    found = {}
    for pass_tokens in (10, 10_000):
        monkeypatch.setattr(padded_parts, "_PASS_TOKENS", {"cpu": pass_tokens})
        fed.clear()
        answers = engine_of(module).complete(asked, Sampling(max_tokens=1))
        found[pass_tokens] = (len(fed), sum(fed), [a.token_ids for a in answers])
    (passes, tokens, ids), (at_once, padded_tokens, same_ids) = found[10], found[10_000]
    assert passes == at_once + 1 and padded_tokens - tokens == 6 * 81
    assert ids == same_ids


@pytest.mark.parametrize("architecture", SETTINGS)
def test_a_step_of_fixed_shapes_answers_alike(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU records and replays, here run as it is: whole buffers under a mask, keys written by index."""
    fixed = 0

    class Counted(DecodeStep):
        def __call__(self, *given: Any) -> torch.Tensor:
            nonlocal fixed
            fixed += 1
            return super().__call__(*given)

    class Recording(batch.Batch):
        def __init__(self, *given: Any):
            super().__init__(*given)
            self._decode_step = Counted

    monkeypatch.setattr("mygpt.infer.torch_engine.Batch", Recording)
    module = tiny_module(architecture)
    engine = engine_of(module)
    answers = engine.complete(MIXED, Sampling(max_tokens=100))  # more than the cache makes room for at first
    stops = engine.renderer.stop_token_ids
    prompts = [engine.renderer.prompt(c) for c in MIXED]
    assert [list(a.token_ids) for a in answers] == [own_greedy(module, p, max_tokens=100, stops=stops) for p in prompts]
    assert fixed > 50


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_recorded_steps_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed, replay = [0], torch.cuda.CUDAGraph.replay

    def counted(graph: Any) -> None:
        replayed[0] += 1
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    module = tiny_module("llama")
    engine = engine_of(module)
    stops = engine.renderer.stop_token_ids
    expected = [own_greedy(module, engine.renderer.prompt(c), max_tokens=100, stops=stops) for c in MIXED]
    answers = engine_of(module.cuda()).complete(MIXED, Sampling(max_tokens=100))
    assert [list(a.token_ids) for a in answers] == expected
    assert replayed[0] > 50


# -- limits -----------------------------------------------------------------------------------------------------------------


def test_answers_are_capped_to_the_window_and_it_is_said(run: Run) -> None:
    said: list[str] = []
    run.listeners.append(lambda record: said.append(record["text"]) if record["event"] == "warning" else None)
    module = tiny_module("llama")
    engine = engine_of(module, run=run)
    assert engine.context_tokens == 400
    long = ask("x" * 350)
    used = len(engine.renderer.prompt(long))
    answers = engine.complete([ask("Hi"), long], Sampling(max_tokens=60))
    assert len(answers[1].token_ids) == 400 - used and answers[1].finish_reason == "length"
    assert said == [
        f"1 of 2 answers may have fewer than the 60 tokens that were asked for (at least {400 - used}): prompt and answer together have to "
        "fit the model's window of 400."
    ]
    assert run.counts["tokens"] == sum(len(a.token_ids) for a in answers)


def test_an_engine_without_a_run_says_it_too() -> None:
    long = ask("x" * 350)
    with pytest.warns(UserWarning, match=r"1 of 1 answers may have fewer than the 60 tokens that were asked for"):
        engine_of(tiny_module("llama")).complete([long], Sampling(max_tokens=60))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine_of(tiny_module("llama")).complete([ask("Hi")], Sampling(max_tokens=2))


def test_an_answer_tells_the_ids_it_was_asked_with() -> None:
    engine = engine_of(tiny_module("llama"))
    asked = ask("Hi")
    (answer,) = engine.complete([asked], Sampling(max_tokens=2))
    streamed = [item for item in engine.stream(asked, Sampling(max_tokens=2)) if isinstance(item, Answer)]
    ids = ",".join(map(str, engine.renderer.prompt(asked)))
    assert answer.prompt_sha256 == streamed[0].prompt_sha256 == hashlib.sha256(f"[{ids}]".encode()).hexdigest()


def test_what_leaves_no_room_is_a_usage_error() -> None:
    engine = engine_of(tiny_module("llama"))
    with pytest.raises(UsageError, match="the model's window 400, so nothing is left"):
        engine.complete([ask("x" * 400)], Sampling())
    with pytest.raises(UsageError, match="at most 0 tokens"):
        engine.complete([ask("Hi")], Sampling(max_tokens=0))
    assert engine.complete([], Sampling()) == []


def test_identity_names_the_model_and_the_precision(smollm2: Model, real: Loaded) -> None:
    expected = {"engine": "torch", "model": smollm2.digest, "adapter": None, "dtype": "float32"}
    assert TorchEngine(smollm2, loaded=real).identity == expected


# -- sampling ---------------------------------------------------------------------------------------------------------------


def test_a_draw_depends_on_seed_and_prompt_alone() -> None:
    engine = engine_of(tiny_module("llama"))
    sampling = Sampling(max_tokens=12, temperature=1.0, seed=7)
    together = engine.complete(MIXED, sampling)
    alone = [engine.complete([c], sampling)[0] for c in MIXED]
    backwards = engine.complete(MIXED[::-1], sampling)[::-1]
    firsts = [i for i, c in enumerate(MIXED) if c not in MIXED[:i]]  # one question is there twice
    assert [together[i].token_ids for i in firsts] == [alone[i].token_ids for i in firsts]
    assert sorted(a.token_ids for a in backwards) == sorted(a.token_ids for a in together)
    assert engine.complete(MIXED, Sampling(max_tokens=12, temperature=1.0, seed=8))[0].token_ids != together[0].token_ids


def test_the_same_prompt_twice_is_drawn_twice() -> None:
    engine = engine_of(tiny_module("llama"))
    answers = engine.complete([MIXED[0]] * 4, Sampling(max_tokens=12, temperature=1.0))
    assert len({a.token_ids for a in answers}) == 4
    again = engine.complete([MIXED[0]] * 4, Sampling(max_tokens=12, temperature=1.0))
    assert [a.token_ids for a in again] == [a.token_ids for a in answers]


# -- stop strings and streaming ---------------------------------------------------------------------------------------------


def text_of(items: list[str | Answer]) -> tuple[str, Answer]:
    *pieces, answer = items
    assert isinstance(answer, Answer)
    assert all(isinstance(p, str) and p for p in pieces)
    return "".join(str(p) for p in pieces), answer


def test_a_stream_is_the_whole_answer_in_pieces(real: Loaded, smollm2: Model) -> None:
    engine = TorchEngine(smollm2, loaded=real)
    question = ask("Write one short sentence about the sea.")
    whole = engine.complete([question], Sampling(max_tokens=12))[0]
    items = list(engine.stream(question, Sampling(max_tokens=12)))
    text, answer = text_of(items)
    assert text.strip() == answer.text == whole.text and answer.token_ids == whole.token_ids
    assert len(items) > 6


def test_stop_strings_cut_the_answer_and_are_never_shown(real: Loaded, smollm2: Model) -> None:
    engine = TorchEngine(smollm2, loaded=real)
    question = ask("Count from one to ten in words, with commas.")
    plain = engine.complete([question], Sampling(max_tokens=24))[0].text
    stop = plain[8:13]  # it stands across tokens
    assert plain.count(stop) == 1
    text, answer = text_of(list(engine.stream(question, Sampling(max_tokens=24, stop=(stop, "never there", "")))))
    assert (answer.text, answer.finish_reason) == (plain[:8].strip(), "stop")
    assert text.strip() == answer.text
    assert len(answer.token_ids) < 24
    assert engine.complete([question], Sampling(max_tokens=24, stop=(stop,)))[0].text == answer.text


def scripted_engine(reply: str, monkeypatch: pytest.MonkeyPatch) -> tuple[TorchEngine, list[int]]:
    """An engine whose model says this, one byte a token, and then stops; and a list that grows with each token chosen."""
    engine = engine_of(tiny_module("llama"))
    script = [*engine._loaded.tokenizer.encode(reply), 2]
    assert len(script) == len(reply.encode()) + 1
    steps: list[int] = []

    def choose(logits_RV: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        steps.append(script[len(steps)])
        return torch.tensor([steps[-1]]), torch.zeros(1)

    monkeypatch.setattr("mygpt.infer.torch_engine.choose", choose)
    return engine, steps


def test_characters_of_several_tokens_are_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = "Ça va 🙂 日本 fin"
    engine, _ = scripted_engine(reply, monkeypatch)
    items = list(engine.stream(ask("Hi"), Sampling(max_tokens=60)))
    text, answer = text_of(items)
    assert text == answer.text == reply
    assert items[:-1] == list(reply)  # one token is one byte: one piece for each character, none before it is whole
    assert answer.finish_reason == "stop"


def test_an_answer_cut_within_a_character_ends_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = scripted_engine("ab🙂", monkeypatch)
    text, answer = text_of(list(engine.stream(ask("Hi"), Sampling(max_tokens=4))))
    assert (text, answer.text, answer.finish_reason, len(answer.token_ids)) == ("ab", "ab", "length", 4)


def test_what_may_become_a_stop_string_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = scripted_engine("one END two ENDE three", monkeypatch)
    items = list(engine.stream(ask("Hi"), Sampling(max_tokens=60, stop=("ENDE",))))
    assert items[:-1] == ["o", "n", "e", " ", "END ", "t", "w", "o", " "]
    assert text_of(items)[1].text == "one END two"


def test_closing_the_stream_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, steps = scripted_engine("abcdefgh", monkeypatch)
    stream = engine.stream(ask("Hi"), Sampling(max_tokens=60))
    assert [next(stream), next(stream)] == ["a", "b"]
    stream.close()  # type: ignore[attr-defined]
    assert len(steps) == 2
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("text", "stops", "shown"),
    [
        ("abc", (), "abc"),
        ("abc\ufffd", (), "abc"),
        ("ab\ufffd", ("b🙂",), "a"),
        ("one EN", ("END", "N."), "one "),
        ("one E", ("END", ""), "one "),
        ("aab", ("aabaac", "bX"), ""),
        ("one.", ("END",), "one."),
    ],
)
def test_settled(text: str, stops: tuple[str, ...], shown: str) -> None:
    assert settled(text, stops) == shown


def test_the_first_of_several_stop_strings_counts() -> None:
    assert cut_at_stop("one two three", ("three", "two", "")) == "one "
    assert cut_at_stop("one", ("two",)) == "one"


# -- scoring ----------------------------------------------------------------------------------------------------------------


def test_scores_are_sums_of_log_probabilities(real: Loaded, smollm2: Model) -> None:
    engine = TorchEngine(smollm2, loaded=real, score_tokens=40)  # three batches
    encode, beginning = real.tokenizer.encode, real.tokenizer.bos_token_id
    prompts = ["The capital of France is", "", "Two and two make", "Grün ist"]
    continuations = [" Paris, on the Seine.", "Once upon a time", " four", " schön 🙂"]
    scores = engine.score(prompts, continuations)
    for prompt, continuation, score in zip(prompts, continuations, scores, strict=True):
        before, after = tuple(encode(prompt) or [beginning]), tuple(encode(continuation))
        assert score.logprob == pytest.approx(sum(logprobs_of(real.module, before, after)), abs=1e-4)
        assert score.num_tokens == len(after)
    assert [s.num_bytes for s in scores] == [21, 16, 5, len(" schön 🙂") + 1 + 3]  # ö has 2 bytes, the face 4
    assert scores[2].logprob > engine.score(["Two and two make"], [" marmalade"])[0].logprob


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral", "gemma2", "gpt_oss"])
def test_options_of_questions_behind_examples_are_scored_as_alone(architecture: str) -> None:
    """Nine questions behind the same examples, four options each, some texts alone, one twice: against the own forward pass."""
    module = tiny_module(architecture)
    engine = engine_of(module, score_tokens=600)
    encode = engine._loaded.tokenizer.encode
    prompts = [f"{PASSAGE} Question {n}: which tern?" for n in range(9) for _ in range(4)]
    continuations = [f" {option}" for _ in range(9) for option in ("common", "arctic", "a tern that is long", "no")]
    prompts += ["alone", "", f"{PASSAGE} Question 0: which tern?"]
    continuations += [" and different", "The text itself", " arctic"]
    scores = engine.score(prompts, continuations)
    for prompt, continuation, score in zip(prompts, continuations, scores, strict=True):
        expected = logprobs_of(module, tuple(encode(prompt)) or (1,), tuple(encode(continuation)))
        assert score.logprob == pytest.approx(sum(expected), abs=1e-4)
    assert scores[1].logprob == pytest.approx(scores[-1].logprob, abs=1e-4)


def test_what_options_share_is_computed_once() -> None:
    """36 texts of about 130 tokens behind one stem: the stem once, a question once for its four options."""
    engine = engine_of(tiny_module("llama"))
    fed: list[int] = []
    engine._module.get_decoder().register_forward_pre_hook(lambda _, __, named: fed.append(named["input_ids"].numel()), with_kwargs=True)
    prompts = [f"{PASSAGE} Question {n}: which tern?" for n in range(9) for _ in range(4)]
    continuations = [f" {option}" for _ in range(9) for option in ("common", "arctic", "little", "none")]
    whole = sum(len(p) + len(c) for p, c in zip(prompts, continuations, strict=True))
    engine.score(prompts, continuations)
    assert sum(fed) < 0.2 * whole


def test_nothing_to_score_is_certain() -> None:
    engine = engine_of(tiny_module("llama"))
    (score,) = engine.score(["abc"], [""])
    assert (score.logprob, score.num_tokens, score.num_bytes) == (0.0, 0, 0)
    assert engine.score([], []) == []


@pytest.mark.parametrize("architecture", ["gpt2", "mistral", "gemma2", "gpt_oss", "bloom", "mpt", "mamba"])
def test_scores_keep_each_architectures_attention(architecture: str) -> None:
    """Texts longer than the window, of several lengths in one batch, against the own forward pass; also where answers are refused."""
    module = tiny_module(architecture)
    engine = engine_of(module)
    encode = engine._loaded.tokenizer.encode
    prompts, continuations = ["a" * 30, "bc", "The"], [" quick brown fox jumps", "d" * 40, " end"]
    for prompt, continuation, score in zip(prompts, continuations, engine.score(prompts, continuations), strict=True):
        expected = logprobs_of(module, tuple(encode(prompt)), tuple(encode(continuation)))
        assert score.logprob == pytest.approx(sum(expected), abs=1e-4)


def test_a_tokenizer_that_begins_every_text_with_a_token_does_so_here() -> None:
    from tokenizers.processors import TemplateProcessing

    module = tiny_module("llama")
    engine = engine_of(module)
    tokenizer = engine._loaded.tokenizer
    plain = tuple(tokenizer.encode("abc"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    after = tuple(tokenizer.encode("de", add_special_tokens=False))
    with_beginning = sum(logprobs_of(module, (1, *plain), after))
    assert engine.score(["abc"], ["de"])[0].logprob == pytest.approx(with_beginning, abs=1e-3)
    assert with_beginning != pytest.approx(sum(logprobs_of(module, plain, after)), abs=0.1)


def test_a_text_longer_than_the_window_is_a_usage_error() -> None:
    engine = engine_of(tiny_module("llama"))
    with pytest.raises(UsageError, match="A text of 401 tokens does not fit the model's window of 400"):
        engine.score(["a" * 400], ["b"])
    assert engine.score(["a" * 399], ["b"])[0].num_tokens == 1
