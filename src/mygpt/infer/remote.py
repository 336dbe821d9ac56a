"""A model at an OpenAI-compatible address: vLLM, llama.cpp's server, another mygpt, or a hosted one.

Opens connections (see core/outbound): to the address that the user named, and only there; a redirect is an error. Text of the user's
documents goes to an address that is not this machine only after `core.outbound.require_sharing` let it.

What the server lists of its model is part of the identity, so that kept answers are not those of a model that was served there before: the
digest where the server is mygpt's; else the model's path (vLLM's `root`) and when it was made. A server that says none of these, and gives
another model the same name, cannot be found out.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, TypeVar
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
_JUST_NOW_SECONDS = 60.0  # several servers give the time of asking as the time at which a model was made


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
        if not name:
            self._listed = self._first_model()
            name = str(self._listed["id"])
        self.name = name

    @property
    def identity(self) -> Identity:
        return {"engine": "remote", "address": self.address, "name": self.name, **told_of(self._listed)}

    @property
    def template_digest(self) -> str | None:
        """Of the chat template that the server applies; None where it does not tell."""
        told = self._listed.get("template_digest")
        return told if isinstance(told, str) and told else None

    @cached_property
    def _listed(self) -> Mapping[str, Any]:
        """The server's entry of the model; empty where it has no list, or none of this name."""
        try:
            models = self.request("GET", "/models", None).get("data")
        except Unreachable:
            raise
        except MygptError:
            return {}
        named = [m for m in models if isinstance(m, dict) and m.get("id") == self.name] if isinstance(models, list) else []
        return named[0] if named else {}

    def _first_model(self) -> Mapping[str, Any]:
        models = self.request("GET", "/models", None).get("data")
        if not models:
            raise MygptError(f"{self.address} lists no model.", fix="Name one: `--teacher ADDRESS#MODEL`.")
        try:
            first: Mapping[str, Any] = models[0]
            return {**first, "id": str(first["id"])}
        except (KeyError, IndexError, TypeError) as error:
            raise self.other_form("/models") from error

    def request(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        return self._parsed(self._answered(method, path, body), path)

    def tell(self, path: str, body: dict[str, Any]) -> None:
        """What is answered with words, if at all, as vLLM does where it is told to change something."""
        self._accepted(self._answered("POST", path, body), path)

    def _answered(self, method: str, path: str, body: dict[str, Any] | None) -> httpx2.Response:
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
            return response
        host = urlsplit(self.address).netloc
        raise Unreachable(
            f"{host} did not answer after {_ATTEMPTS} attempts ({fault}).", fix="Check that the server runs and the address is right."
        )

    def _accepted(self, response: httpx2.Response, path: str) -> None:
        if response.is_redirect:
            elsewhere = self._without_key(response.headers.get("location", "another address"))
            raise MygptError(f"{self.address}{path} sends its callers to {elsewhere}.", fix="Name that address itself, if you trust it.")
        if response.is_error:
            said = self._without_key(response.text)[:200]
            fix = "Check the address, the model's name and $MYGPT_API_KEY."
            raise MygptError(f"{self.address}{path} answered {response.status_code}: {said}", fix=fix)

    def _parsed(self, response: httpx2.Response, path: str) -> dict[str, Any]:
        self._accepted(response, path)
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


Asked = TypeVar("Asked")
Told = TypeVar("Told")


def each_as_finished(ask: Callable[[Asked], Told], asked: Iterable[Asked], parallel: int) -> Iterator[tuple[int, Told]]:
    """(place, what `ask` gave), in any order. After a fault nothing more is asked; what is under way comes out first, then the fault."""
    stopped = threading.Event()

    def unless_stopped(one: Asked) -> tuple[Told] | None:
        try:
            return None if stopped.is_set() else (ask(one),)
        except BaseException:
            stopped.set()
            raise

    pool = ThreadPoolExecutor(parallel)
    faults = []
    try:
        under_way = {pool.submit(unless_stopped, one): place for place, one in enumerate(asked)}
        for done in as_completed(under_way):
            if fault := done.exception():
                faults.append(fault)
            elif told := done.result():
                yield under_way[done], told[0]
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
    if faults:
        raise faults[0]


class RemoteCompleter:
    """A Completer at an address (`Endpoint`). Raw text goes to `/completions`, a conversation to `/chat/completions`."""

    def __init__(self, address: str, *, run: Run | None = None, parallel: int = 4, timeout_seconds: float = 120.0):
        self._endpoint = Endpoint(address, what="completer", timeout_seconds=timeout_seconds)
        self._run, self._parallel = run, parallel

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    @property
    def identity(self) -> Identity:
        return self._endpoint.identity

    @property
    def template_digest(self) -> str | None:
        return self._endpoint.template_digest

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        answers = dict(self.as_finished(conversations, sampling))
        return [answers[place] for place in range(len(conversations))]

    def as_finished(self, conversations: Sequence[Conversation], sampling: Sampling) -> Iterator[tuple[int, Answer]]:
        """After a fault nothing more is asked; what is under way comes out first, then the fault."""
        if not sampling.keep_crossing:
            raise UsageError("No server takes `keep_crossing`, so the answers would be others.", fix="Leave it out, or use a model here.")
        progress = self._run.progress(len(conversations), "answers") if self._run else None
        seeds = [_seed(sampling.seed, number) for number in occurrences(c.messages for c in conversations)]
        asked = list(zip(conversations, seeds, strict=True))
        for place, answer in each_as_finished(lambda one: self._ask(one[0], sampling, one[1]), asked, self._parallel):
            yield place, answer
            if progress:
                progress.advance()

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
            told = choice if text is not None else choice["message"]
            ids_digest = str((told.get("mygpt") or {}).get("prompt_sha256") or "")  # a server of ours tells
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise self._endpoint.other_form(path) from error
        reason = choice.get("finish_reason")
        return Answer(said, "length" if reason == "length" else "stop", prompt_tokens=prompt_tokens, prompt_sha256=ids_digest)


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


def told_of(entry: Mapping[str, Any]) -> Identity:
    """What differs in a server's entry when another model is served under the same name. A time of just now is the server's clock."""
    if entry.get("digest"):
        return {"digest": str(entry["digest"])}
    told: Identity = {"root": str(entry["root"])} if entry.get("root") else {}
    made = entry.get("created")
    if isinstance(made, int) and made > 0 and datetime.now(UTC).timestamp() - made > _JUST_NOW_SECONDS:
        told["created"] = made
    return told


def _seed(seed: int, number: int) -> int:
    """The same conversation given twice in one call is drawn twice."""
    return seed if number == 0 else int(digest_value([seed, number])[:7], 16)


def _asked_to_wait(response: httpx2.Response) -> float:
    """`Retry-After` in seconds, where a server gives it so."""
    try:
        return min(max(float(response.headers.get("retry-after", "0")), 0.0), _LONGEST_WAIT_SECONDS)
    except ValueError:
        return 0.0
