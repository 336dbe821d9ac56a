"""Rollouts on a vLLM server, for GPUs where generation and training are apart: the policy's adapter is sent before each, answers come back
as token ids.

    sample = sampler_of(policy, None, config, run=run)         the engine in this process, on the policy's own weights
    sample = sampler_of(policy, RemoteCompleter("http://127.0.0.1:8000/v1"), config, run=run)
    sample(prompts, seed)                                      `config.samples` answers to each

What is sent  POST /v1/completions with the prompt's ids, `n`, `return_token_ids` and `logprobs` (vLLM 0.10.2 and later); the adapter as a
              folder that the server can read (POST /v1/load_lora_adapter, VLLM_ALLOW_RUNTIME_LORA_UPDATING=1), each time under a new
              name, since vLLM keeps what it computed of a prompt by adapter name; the one before is unloaded
Not sent      whole weights: vLLM takes them over NCCL or as pickled CUDA handles, not over HTTP
Not measured on a GPU

Source     rollouts apart from training: Hu et al. 2024, arXiv:2405.11143; the endpoints: vLLM's documentation, "LoRA adapters" and
           "OpenAI-compatible server"
We differ  the importance ratio is between two forward passes of the training; what the server says of its tokens is only compared with
           it, so that weights that did not arrive are noticed
"""

import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from mygpt.align.policy import Policy
from mygpt.align.ppo_config import PPOConfig
from mygpt.align.rollouts import Rollout, Sampler, rollout, rollouts
from mygpt.align.scored_rollouts import RolloutConfig
from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import MygptError, Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Completer, Sampling
from mygpt.infer.remote import Endpoint, RemoteCompleter
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.lora import LoRA

_PARALLEL = 32  # prompts asked at once: the server batches them


def sampler_of(policy: Policy, completer: Completer | None, config: RolloutConfig | PPOConfig, *, run: Run) -> Sampler:
    """Raises Refused for what cannot be given the policy's weights."""
    sampling = Sampling(max_tokens=config.max_answer_tokens, temperature=config.temperature)
    if completer is None:
        return lambda prompts, seed: rollouts(policy, prompts, samples=config.samples, sampling=sampling, seed=seed, run=run)
    if not isinstance(completer, RemoteCompleter):
        raise UsageError(
            "Answers are sampled from the policy, and this is another model.",
            fix="Leave out `--sampler` (the engine in this process), or name the address of a vLLM server.",
        )
    if not isinstance(config.method, LoRA):
        raise Refused(
            f"A server is sent the policy as a LoRA adapter, and `method={config.method.name}` makes none.",
            fix="Set `method=lora`, or leave out `--sampler`.",
        )
    return RemoteRollouts(policy, completer.endpoint, config.method, sampling, samples=config.samples, folder=run.folder / "policy")


class RemoteRollouts:
    def __init__(self, policy: Policy, endpoint: Endpoint, method: LoRA, sampling: Sampling, *, samples: int, folder: Path):
        """`folder`: where the adapter is written; the server must be able to read it."""
        self._policy, self._endpoint, self._method = policy, endpoint, method
        self._sampling, self._samples, self._folder = sampling, samples, folder
        self._called, self._number = f"mygpt-{uuid.uuid4().hex[:8]}", 0  # nobody else's on that server
        self._name = ""

    def __call__(self, prompts: Sequence[Conversation], seed: int) -> list[Rollout]:
        self.send_policy()
        with ThreadPoolExecutor(_PARALLEL) as pool:
            answered = pool.map(partial(self._ask, seed=seed), prompts, range(len(prompts)))
            return [one for group in answered for one in group]

    def send_policy(self) -> None:
        before, folder_before = self._name, self._folder / self._name
        self._number += 1
        self._name = f"{self._called}-{self._number}"
        folder = self._folder / self._name
        folder.mkdir(parents=True)
        methods.save(self._policy.module, self._method, base=self._policy.loaded.model, folder=folder)
        try:
            self._endpoint.tell("/load_lora_adapter", {"lora_name": self._name, "lora_path": str(folder.resolve())})
        except MygptError as error:
            raise MygptError(
                f"The server did not take the policy's adapter: {error.what}",
                fix="Start it with `--enable-lora --max-lora-rank N`, VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, and able to read this folder.",
            ) from error
        if before:
            self._endpoint.tell("/unload_lora_adapter", {"lora_name": before})
            shutil.rmtree(folder_before)

    def _ask(self, prompt: Conversation, place: int, *, seed: int) -> list[Rollout]:
        ids = self._policy.renderer.prompt(prompt)
        body = {
            "model": self._name,
            "prompt": list(ids),
            "n": self._samples,
            "max_tokens": self._sampling.max_tokens,
            "temperature": self._sampling.temperature,
            "seed": (seed + place * self._samples) % 2**31,
            "logprobs": 1,
            "return_token_ids": True,
            "skip_special_tokens": True,
        }
        reply = self._endpoint.request("POST", "/completions", body)
        try:
            return [self._rollout(ids, prompt, choice) for choice in sorted(reply["choices"], key=lambda choice: choice["index"])]
        except (KeyError, TypeError, ValueError) as error:
            raise MygptError(
                f"{self._endpoint.address} did not tell the tokens of its answers ({type(error).__name__}: {error}).",
                fix="Rollouts need a server with `return_token_ids`, as vLLM has since 0.10.2.",
            ) from error

    def _rollout(self, ids: tuple[int, ...], prompt: Conversation, choice: dict[str, Any]) -> Rollout:
        token_ids = tuple(int(token) for token in choice["token_ids"])
        if not token_ids:
            raise ValueError("an answer of no tokens")
        logprobs = tuple(float(value) for value in (choice.get("logprobs") or {}).get("token_logprobs") or ())
        is_finished = choice["finish_reason"] == "stop"
        text = str(choice["text"]) if prompt.raw_text is not None else str(choice["text"]).strip()  # as the engine here gives them
        answer = Answer(text, "stop" if is_finished else "length", token_ids, logprobs, prompt_tokens=len(ids))
        return rollout(ids, prompt, answer, is_finished=is_finished)
