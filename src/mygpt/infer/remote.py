"""A model at an OpenAI-compatible address: vLLM, llama.cpp's server, another mygpt, or a hosted one.

Opens connections (see core/outbound): to the address that the user named, and only there; a redirect is an error. Text of the user's
documents goes to an address that is not this machine only after `core.outbound.require_sharing` let it.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx2

from mygpt.artifacts.dataset import Conversation
from mygpt.core.digest import digest_value
from mygpt.core.errors import MygptError, Unreachable, UsageError
from mygpt.core.outbound import is_this_machine, require_online
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Identity, Sampling
from mygpt.infer.repeats import occurrences

_ATTEMPTS = 4
_RETRIED = (408, 429, 500, 502, 503, 504)
_USUAL = Sampling()
_SENT_WHERE_SET = ("min_tokens", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
_LONGEST_WAIT_SECONDS = 30.0


class Endpoint:
    """Requests to one address: a key where the server wants one, attempts again where it is busy, errors that say what to do.

    `address` is `http://host:port/v1`, or with a model's name `http://host:port/v1#name` (else the first that the server lists).
    A key is read from $MYGPT_API_KEY and never written down. `what` is what asks, for people.
    """

    def __init__(self, address: str, *, what: str, timeout_seconds: float):
        self.address, _, name = address.partition("#")
        self.address = self.address.rstrip("/")
        _check(self.address)
        if not is_this_machine(self.address):
            require_online(f"The {what} at {self.address}")
        self._key = os.environ.get("MYGPT_API_KEY", "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UsageError("$MYGPT_API_KEY holds characters that no key has.", fix="Set it again, as the server's owner gave it.")
        # Environment proxies are not used for this machine: they could send it elsewhere.
        self._client = httpx2.Client(
            timeout=timeout_seconds,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            trust_env=not is_this_machine(self.address),
            follow_redirects=False,
        )
        self.name = name or self._first_model()

    @property
    def identity(self) -> Identity:
        return {"engine": "remote", "address": self.address, "name": self.name}

    def _first_model(self) -> str:
        models = self.request("GET", "/models", None).get("data")
        if not models:
            raise MygptError(f"{self.address} lists no model.", fix="Name one: `--teacher ADDRESS#MODEL`.")
        try:
            return str(models[0]["id"])
        except (KeyError, IndexError, TypeError) as error:
            raise self.other_form("/models") from error

    def request(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        fault = ""
        wait_seconds = 1.0
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(wait_seconds)
                wait_seconds = 2.0**attempt
            try:
                response = self._client.request(method, self.address + path, json=body)
            except httpx2.HTTPError as error:
                fault = self._without_key(f"{type(error).__name__}: {error}")
                continue
            if response.status_code in _RETRIED:
                fault = f"status {response.status_code}"
                wait_seconds = max(wait_seconds, _asked_to_wait(response))
                continue
            return self._parsed(response, path)
        host = urlsplit(self.address).netloc
        raise Unreachable(
            f"{host} did not answer after {_ATTEMPTS} attempts ({fault}).", fix="Check that the server runs and the address is right."
        )

    def _parsed(self, response: httpx2.Response, path: str) -> dict[str, Any]:
        if response.is_redirect:
            elsewhere = self._without_key(response.headers.get("location", "another address"))
            raise MygptError(f"{self.address}{path} sends its callers to {elsewhere}.", fix="Name that address itself, if you trust it.")
        if response.is_error:
            said = self._without_key(response.text)[:200]
            fix = "Check the address, the model's name and $MYGPT_API_KEY."
            raise MygptError(f"{self.address}{path} answered {response.status_code}: {said}", fix=fix)
        try:
            parsed = response.json()
        except ValueError as error:
            raise self.other_form(path) from error
        if not isinstance(parsed, dict):
            raise self.other_form(path)
        return parsed

    def other_form(self, path: str) -> MygptError:
        return MygptError(
            f"{self.address}{path} did not answer as an OpenAI-compatible server does.",
            fix="Name an OpenAI-compatible address, usually ending in /v1.",
        )

    def _without_key(self, text: str) -> str:
        """Some servers repeat the key that they refuse."""
        return text.replace(self._key, "[key]") if self._key else text


class RemoteCompleter:
    """A Completer at an address (`Endpoint`). Raw text goes to `/completions`, a conversation to `/chat/completions`."""

    def __init__(self, address: str, *, run: Run | None = None, parallel: int = 4, timeout_seconds: float = 120.0):
        self._endpoint = Endpoint(address, what="completer", timeout_seconds=timeout_seconds)
        self._run, self._parallel = run, parallel

    @property
    def identity(self) -> Identity:
        return self._endpoint.identity

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        if not sampling.keep_crossing:
            raise UsageError("No server takes `keep_crossing`, so the answers would be others.", fix="Leave it out, or use a model here.")
        progress = self._run.progress(len(conversations), "answers") if self._run else None
        seeds = [_seed(sampling.seed, number) for number in occurrences(c.messages for c in conversations)]
        answers = []
        with ThreadPoolExecutor(self._parallel) as pool:
            for answer in pool.map(lambda c, seed: self._ask(c, sampling, seed), conversations, seeds):
                answers.append(answer)
                if progress:
                    progress.advance()
        return answers

    def _ask(self, conversation: Conversation, sampling: Sampling, seed: int) -> Answer:
        text = conversation.raw_text
        messages = [{"role": m.role, "content": m.content} for m in conversation.messages]
        body = {
            "model": self._endpoint.name,
            **({"messages": messages} if text is None else {"prompt": text}),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            # not all are OpenAI's own: an answer drawn without them would be another
            **{name: value for name in _SENT_WHERE_SET if (value := getattr(sampling, name)) != getattr(_USUAL, name)},
            **({"stop": list(sampling.stop)} if sampling.stop else {}),
        }
        path = "/chat/completions" if text is None else "/completions"
        reply = self._endpoint.request("POST", path, body)
        try:
            choice = reply["choices"][0]
            said = str(choice["message"].get("content") or "").strip() if text is None else str(choice["text"])
            prompt_tokens = int((reply.get("usage") or {}).get("prompt_tokens") or 0)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise self._endpoint.other_form(path) from error
        return Answer(said, "length" if choice.get("finish_reason") == "length" else "stop", prompt_tokens=prompt_tokens)


def _check(address: str) -> None:
    """Raises UsageError for what is no address, or holds a secret that would be written down with it."""
    fix = "Name it as `http://host:port/v1`, and put a key into $MYGPT_API_KEY."
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not is_address:
        raise UsageError(f"`{address.rpartition('@')[2]}` is not the address of a server.", fix=fix)
    if parts.username is not None or parts.password is not None or parts.query:
        shown = f"{parts.scheme}://{parts.hostname}"
        raise UsageError(f"The address at {shown} holds a user name, a password or a query, and addresses are written down.", fix=fix)


def _seed(seed: int, number: int) -> int:
    """The same conversation given twice in one call is drawn twice."""
    return seed if number == 0 else int(digest_value([seed, number])[:7], 16)


def _asked_to_wait(response: httpx2.Response) -> float:
    """`Retry-After` in seconds, where a server gives it so."""
    try:
        return min(max(float(response.headers.get("retry-after", "0")), 0.0), _LONGEST_WAIT_SECONDS)
    except ValueError:
        return 0.0
