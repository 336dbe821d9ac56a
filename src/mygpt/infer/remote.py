"""A model at an OpenAI-compatible address: vLLM, llama.cpp's server, another mygpt, or a hosted one.

Opens connections (see core/outbound): to the address that the user named, and only there. Text of the user's documents goes to an
address that is not this machine only after `core.outbound.require_sharing` let it.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2

from mygpt.artifacts.dataset import Conversation
from mygpt.core.errors import MygptError, Unreachable
from mygpt.core.outbound import is_this_machine, require_online
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Identity, Sampling

_ATTEMPTS = 4
_RETRIED = (408, 429, 500, 502, 503, 504)


class RemoteCompleter:
    """`address` is `http://host:port/v1`, or with a model's name `http://host:port/v1#name` (else the first that the server lists).

    A key, where the server wants one, is read from $MYGPT_API_KEY and never written down.
    """

    def __init__(self, address: str, *, run: Run | None = None, parallel: int = 4, timeout_seconds: float = 120.0):
        self.address, _, name = address.partition("#")
        self.address = self.address.rstrip("/")
        if not is_this_machine(self.address):
            require_online(f"The completer at {self.address}")
        self._run, self._parallel = run, parallel
        key = os.environ.get("MYGPT_API_KEY")
        # Environment proxies are not used for this machine: they could send it elsewhere.
        self._client = httpx2.Client(
            timeout=timeout_seconds,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=not is_this_machine(self.address),
        )
        self._name = name or self._first_model()

    @property
    def identity(self) -> Identity:
        return {"engine": "remote", "address": self.address, "name": self._name}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        progress = self._run.progress(len(conversations), "answers") if self._run else None

        def ask(conversation: Conversation) -> Answer:
            answer = self._ask(conversation, sampling)
            if progress:
                progress.advance()
            return answer

        with ThreadPoolExecutor(self._parallel) as pool:
            return list(pool.map(ask, conversations))

    def _ask(self, conversation: Conversation, sampling: Sampling) -> Answer:
        body = {
            "model": self._name,
            "messages": [{"role": m.role, "content": m.content} for m in conversation.messages],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
        }
        reply = self._request("POST", "/chat/completions", body)
        choice = reply["choices"][0]
        usage = reply.get("usage") or {}
        reason = "length" if choice.get("finish_reason") == "length" else "stop"
        return Answer((choice["message"].get("content") or "").strip(), reason, prompt_tokens=usage.get("prompt_tokens", 0))  # type: ignore[arg-type]

    def _first_model(self) -> str:
        models = self._request("GET", "/models", None).get("data") or []
        if not models:
            raise MygptError(f"{self.address} lists no model.", fix="Name one: `--teacher ADDRESS#MODEL`.")
        return str(models[0]["id"])

    def _request(self, method: str, path: str, body: dict | None) -> dict:
        fault = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(0.5 * 2**attempt)
            try:
                response = self._client.request(method, self.address + path, json=body)
            except httpx2.HTTPError as error:
                fault = f"{type(error).__name__}: {error}"
                continue
            if response.status_code in _RETRIED:
                fault = f"status {response.status_code}"
                continue
            if response.is_error:
                raise MygptError(
                    f"{self.address}{path} answered {response.status_code}: {response.text[:200]}", fix="Check the address, the model's name and $MYGPT_API_KEY."
                )
            try:
                parsed: dict = response.json()
            except ValueError as error:
                raise MygptError(f"{self.address}{path} did not answer with JSON.", fix="Name an OpenAI-compatible address, usually ending in /v1.") from error
            return parsed
        host = urlsplit(self.address).netloc
        raise Unreachable(f"{host} did not answer after {_ATTEMPTS} attempts ({fault}).", fix="Check that the server runs and the address is right.")
