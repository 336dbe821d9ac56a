"""Rollouts over HTTP, with a server here that speaks vLLM's protocol: adapters are loaded by path, answers come as token ids."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.policy import open_policy
from mygpt.align.ppo import PPOConfig, ppo
from mygpt.align.remote_rollouts import sampler_of
from mygpt.align.scored_rollouts import logprobs_of_rows
from mygpt.artifacts.dataset import Conversation, Message
from mygpt.artifacts.model import Model
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer.remote import RemoteCompleter
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.full import Full
from mygpt.lm.load import load_lm
from tests.align.rewarded import TINY, again, made_by
from tests.align.test_best_of_n import Counting
from tests.align.test_ppo import FAST
from tests.finetune import toys


class LikeVLLM(BaseHTTPRequestHandler):
    """What of vLLM's server is asked for, after its documentation; it samples token by token, with whole forward passes."""

    model: Model
    adapters: dict[str, Any]
    seen: list[str]
    tells_ids = True
    takes_adapters = True

    def do_GET(self) -> None:
        self._json({"object": "list", "data": [{"id": "base", "object": "model", "root": "/models/base"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/v1/load_lora_adapter" and self.takes_adapters:
            self.adapters[asked["lora_name"]] = self.load(asked)
            self.seen.append(f"load {asked['lora_name']}")
            self._text(f"Success: LoRA adapter '{asked['lora_name']}' added successfully.")
        elif self.path == "/v1/unload_lora_adapter":
            del self.adapters[asked["lora_name"]]
            self.seen.append(f"unload {asked['lora_name']}")
            self._text(f"Success: LoRA adapter '{asked['lora_name']}' removed successfully.")
        elif self.path == "/v1/completions":
            self._json({"object": "text_completion", "model": asked["model"], "choices": self._choices(asked)})
        else:
            self._json({"object": "error", "message": "no such endpoint"}, status=404)

    def load(self, asked: dict[str, Any]) -> Any:
        return methods.load(load_lm(self.model, dtype=torch.float32).module, {"default": Path(asked["lora_path"])}).eval()

    def _choices(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        module = self.adapters[asked["model"]]
        stop = module.config.eos_token_id
        found = []
        for index in reversed(range(asked["n"])):
            draw = torch.Generator().manual_seed(asked["seed"] + index)
            ids, logprobs = list[int](), list[float]()
            while len(ids) < asked["max_tokens"] and stop not in ids:
                with torch.no_grad():
                    logits_V = module(input_ids=torch.tensor([asked["prompt"] + ids])).logits[0, -1].float()
                ids.append(int(torch.multinomial((logits_V / asked["temperature"]).softmax(-1), 1, generator=draw)))
                logprobs.append(float(logits_V.log_softmax(-1)[ids[-1]]))
            text = "".join(chr(60 + token % 60) for token in ids)
            reason = "stop" if ids[-1] == stop else "length"
            told: dict[str, Any] = {"token_ids": ids} if self.tells_ids and asked["return_token_ids"] else {}
            found.append({"index": index, "text": text, "finish_reason": reason, "logprobs": {"token_logprobs": logprobs}, **told})
        return found

    def _json(self, body: dict[str, Any], *, status: int = 200) -> None:
        self._text(json.dumps(body), status=status, kind="application/json")

    def _text(self, body: str, *, status: int = 200, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(run: Run) -> Iterator[Any]:
    class Handler(LikeVLLM):
        model, adapters, seen = toys.base(toys.BaseConfig(), run=run), {}, []

    one = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield one
    one.shutdown()
    one.server_close()


def completer(server: Any) -> RemoteCompleter:
    return RemoteCompleter(f"http://127.0.0.1:{server.server_port}/v1")


PROMPTS = [Conversation((Message("user", text),)) for text in ("Who may come in?", "When does it open?")]


def test_answers_are_the_policys_as_it_stands(server: Any, run: Run) -> None:
    """What the server says of its tokens is what the training's own forward pass says, before and after the weights move."""
    config = GRPOConfig(**TINY)
    policy = open_policy(server.RequestHandlerClass.model, config, run=run)
    sample = sampler_of(policy, completer(server), config, run=run)
    for _ in range(2):
        made = dict(enumerate(sample(PROMPTS, 5)))
        assert [one.prompt for one in made.values()] == [PROMPTS[0]] * 3 + [PROMPTS[1]] * 3
        own = logprobs_of_rows(policy.module, policy, made, config)
        for i, one in made.items():
            torch.testing.assert_close(own[i], torch.tensor(one.answer.logprobs), atol=1e-4, rtol=1e-4)
            assert one.is_finished == (one.answer.finish_reason == "stop")
            assert one.example.token_ids[-one.num_tokens :] == one.answer.token_ids
        with torch.no_grad():
            for parameter in policy.module.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.3 * torch.randn_like(parameter))
    (second,) = server.RequestHandlerClass.adapters
    first = f"{second.removesuffix('-2')}-1"
    assert server.RequestHandlerClass.seen == [f"load {first}", f"load {second}", f"unload {first}"]
    assert [folder.name for folder in (run.folder / "policy").iterdir()] == [second]


def test_a_text_that_is_continued_keeps_its_spaces(server: Any, run: Run) -> None:
    """As the engine here: answers to conversations are stripped, continuations are not."""
    handler = server.RequestHandlerClass
    choices = handler._choices
    handler._choices = lambda self, asked: [{**choice, "text": " to-day "} for choice in choices(self, asked)]
    config = PPOConfig(**{**FAST, "samples": 1})
    policy = open_policy(handler.model, config, run=run)
    raw = Conversation((Message("text", "It opens"),))
    made = sampler_of(policy, completer(server), config, run=run)([raw, PROMPTS[0]], 1)
    assert [one.answer.text for one in made] == [" to-day ", "to-day"]


def test_grpo_learns_from_a_server(server: Any, run: Run) -> None:
    made = made_by(grpo, GRPOConfig(**TINY, passes=2), run, sampler=completer(server))
    assert made.manifest.tools["sampler"]["engine"] == "remote"
    assert sum(one.startswith("load") for one in server.RequestHandlerClass.seen) == len(made.manifest.facts["vitals"]) == 4
    assert made.manifest.facts["vitals"][0]["kl"] == 0 and made.manifest.facts["vitals"][-1]["kl"] != 0


def test_ppo_learns_from_a_server(server: Any, run: Run) -> None:
    made = made_by(ppo, PPOConfig(**{**FAST, "rollouts": 3, "samples": 2}), run, sampler=completer(server))
    assert made.manifest.tools["sampler"]["engine"] == "remote"
    assert sum(one.startswith("load") for one in server.RequestHandlerClass.seen) == len(made.manifest.facts["vitals"]) == 3
    first, *_, last = made.manifest.facts["vitals"]
    assert first["kl"] == pytest.approx(0, abs=1e-3) and abs(last["kl"]) > 1e-3 and first["flat_share"] < 1


@pytest.mark.parametrize(
    ("recipe", "config"), [(grpo, GRPOConfig(**TINY, learning_rate=0.3)), (ppo, PPOConfig(**{**FAST, "learning_rate": 0.3, "rollouts": 3}))]
)
def test_weights_that_did_not_arrive_are_noticed(recipe: Any, config: Any, server: Any, run: Run) -> None:
    """A server that says it took the adapter and goes on with the first."""
    handler = server.RequestHandlerClass
    first: dict[str, Any] = {}
    load = handler.load

    def once(self: Any, asked: dict[str, Any]) -> Any:
        return first.setdefault("one", load(self, asked))

    handler.load = once
    said: list[str] = []
    with again(run, a=lambda e: said.append(e["text"]) if e["event"] == "warning" else None) as listening:
        made_by(recipe, config, listening, sampler=completer(server))
    assert any("were other weights at work?" in text for text in said)


def test_what_cannot_be_sampled_from(server: Any, run: Run) -> None:
    with pytest.raises(UsageError, match="this is another model"):
        made_by(grpo, GRPOConfig(**TINY), run, sampler=Counting())
    with pytest.raises(Refused, match="`method=full` makes none"):
        made_by(grpo, GRPOConfig(**{**TINY, "method": Full()}), run, sampler=completer(server))
    server.RequestHandlerClass.tells_ids = False
    with pytest.raises(MygptError, match="did not tell the tokens"):
        made_by(grpo, GRPOConfig(**TINY), run, sampler=completer(server))
    server.RequestHandlerClass.takes_adapters = False
    with pytest.raises(MygptError, match=r"did not take the policy's adapter: .* answered 404") as told:
        made_by(grpo, GRPOConfig(**TINY), run, sampler=completer(server))
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in told.value.fix
