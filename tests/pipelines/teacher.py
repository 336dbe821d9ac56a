"""A teacher at an OpenAI-compatible address on this machine, and a base of a few thousand weights: a whole `up` in seconds."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mygpt.core.run import Run
from mygpt.lm.sources import FolderConfig, from_folder
from tests.infer.tiny_models import byte_tokenizer


@dataclass
class Teacher:
    """Asks about a fact with three of its own words, and finds the fact again when it is asked its question."""

    address: str = ""
    fact_of: dict[str, str] = field(default_factory=dict)  # by the question it wrote
    num_requests: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reply(self, asked: str) -> str:
        if asked.startswith("Fact: "):
            fact = asked.removeprefix("Fact: ")
            words = re.findall(r"[A-Za-z]{4,}", fact)
            question = f"What is known of {words[0]}, {words[len(words) // 2]} and {words[-1]}?" if words else "?"
            self.fact_of[question] = fact
            return question
        return self.fact_of.get(asked.rpartition("Question: ")[2], "I write no lists.")


@contextmanager
def teaching() -> Iterator[Teacher]:
    teacher = Teacher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"object": "list", "data": [{"id": "patient-teacher"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with teacher.lock:
                teacher.num_requests += 1
                text = teacher.reply(body["messages"][-1]["content"])
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self._send({"choices": [choice], "usage": {"prompt_tokens": 9}})

        def _send(self, content: dict[str, Any]) -> None:
            sent = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        teacher.address = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield teacher
        server.shutdown()


def make_tiny_base(home: Path, folder: Path) -> None:
    """The Model `tiny` of this home: two layers, a byte for a token, a window that holds passages."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(**sizes, **ids, max_position_embeddings=16_384, tie_word_embeddings=True)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with Run(home, name="tiny") as run:
        from_folder(FolderConfig(name="tiny"), folder=folder, run=run)
