"""Small bases of our own for claims about size: a tokenizer, Llama shapes of a few million weights, and a T5 shape, trained from scratch.

Each is a recipe with a plain loop, so that a base is made once in a home: next tokens of encyclopaedia articles, and of the T0 rows that no
claim asks about (their even half) as chats; for the encoder-decoder, sentences from which words were taken out. How much is read is a
number of tokens, not of seconds, so that it is the same base everywhere.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt

from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.artifacts.sentences import split_sentences
from mygpt.core.config import Config
from mygpt.core.run import Run

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_GONE = "<|gone|>"  # stands for words that were taken out
_PADDING, _START, _END = 0, 1, 2


class OwnBaseConfig(Config):
    shape: Literal["llama", "t5"] = "llama"
    vocabulary: PositiveInt = 4096
    hidden_size: PositiveInt = 128
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    window: PositiveInt = 2048
    tokens: PositiveInt = 4_000_000  # read in training
    batch_rows: PositiveInt = 16
    row_tokens: PositiveInt = 256
    learning_rate: float = 2e-3


@recipe
def own_base(config: OwnBaseConfig, *, articles: Path, texts: Path, run: Run) -> Model:
    """A Model of random weights that read `config.tokens` tokens."""
    torch.manual_seed(run.seed_for("weights"))
    prose, chats = articles.read_text(encoding="utf-8"), learnt_chats(texts)
    tokenizer = trained_tokenizer(config, [prose, *chats])
    module = shape_of(config, len(tokenizer))
    order = run.random("order")
    if config.shape == "llama":
        losses = learn(module, next_tokens(config, tokenizer, prose, chats, order), config, run)
    else:
        losses = learn(module, missing_words(config, tokenizer, prose, order), config, run)
    part = max(1, len(losses) // 10)
    assert sum(losses[-part:]) < 0.95 * sum(losses[:part]), f"the loss did not fall: {losses[:3]} to {losses[-3:]}"

    def write(folder: Path) -> None:
        module.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)

    parameters = sum(p.numel() for p in module.parameters())
    head = "lm" if config.shape == "llama" else "seq2seq_lm"
    facts = {"head": head, "source": "own", "parameters": parameters, "loss": round(sum(losses[-part:]) / part, 4), "tokens": config.tokens}
    return publish(Model, run, write, facts=facts, provenance={"licence": "Apache-2.0"}, name=f"own-{config.shape}-{parameters}")


def learnt_chats(texts: Path) -> list[str]:
    """The even rows of every template, as the chat template writes them: the odd ones are asked by the claims."""
    files = sorted(texts.glob("*.jsonl"))
    assert files, f"no *.jsonl in {texts}"
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()[::2]]
    said = [(str(row["prompt"]).strip(), str(row["completion"]).removesuffix("<|endoftext|>").strip()) for row in rows]
    return [f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>\n" for q, a in said if a]


def trained_tokenizer(config: OwnBaseConfig, texts: Sequence[str]) -> Any:
    """Byte-level BPE; an encoder-decoder's writes its end token after every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = [*_SPECIAL, _GONE] if config.shape == "t5" else _SPECIAL
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=config.vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(texts, trainer)
    if config.shape == "t5":
        backend.post_processor = processors.TemplateProcessing(single="$A <|im_end|>", special_tokens=[("<|im_end|>", _END)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=_SPECIAL[_START], eos_token=_SPECIAL[_END], unk_token=_SPECIAL[0], pad_token=_SPECIAL[0]
    )
    made.chat_template = CHATML
    return made


def shape_of(config: OwnBaseConfig, vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

    ids = {"pad_token_id": _PADDING, "bos_token_id": _START, "eos_token_id": _END}
    if config.shape == "llama":
        sizes = {"hidden_size": config.hidden_size, "intermediate_size": 8 * config.hidden_size // 3, "num_hidden_layers": config.layers}
        sizes |= {"num_attention_heads": config.heads, "max_position_embeddings": config.window, "vocab_size": vocabulary}
        return LlamaForCausalLM(LlamaConfig(**sizes, **ids, tie_word_embeddings=True))
    sizes = {"d_model": config.hidden_size, "d_ff": 4 * config.hidden_size, "num_layers": config.layers, "num_heads": config.heads}
    sizes |= {"d_kv": config.hidden_size // config.heads, "vocab_size": vocabulary}
    return T5ForConditionalGeneration(T5Config(**sizes, **ids, decoder_start_token_id=_PADDING, dropout_rate=0.0))


def learn(module: Any, batches: Iterator[tuple[int, Callable[[Any], torch.Tensor]]], config: OwnBaseConfig, run: Run) -> list[float]:
    """The plain loop: AdamW, a warm-up and a straight way down, until enough tokens were read. The loss of every step."""
    module.train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    progress, read, losses = run.progress(config.tokens, "tokens"), 0, []
    while read < config.tokens:
        num_tokens, loss_of = next(batches)
        share = read / config.tokens
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (share + 1e-3) / 0.05, 1.05 - share)
        loss = loss_of(module)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        read += num_tokens
        losses.append(float(loss.detach()))
        run.count(tokens=num_tokens)
        progress.advance(num_tokens, loss=round(losses[-1], 3))
    module.eval()
    return losses


def next_tokens(
    config: OwnBaseConfig, tokenizer: Any, prose: str, chats: Sequence[str], order: random.Random
) -> Iterator[tuple[int, Callable[[Any], torch.Tensor]]]:
    """Rows cut out of one long text in which articles and chats follow one another in random order."""
    pieces = [*prose.split("\n\n"), *chats]
    order.shuffle(pieces)
    ids_N = torch.tensor([i for piece in pieces for i in (*tokenizer(piece)["input_ids"], _PADDING)])
    length = min(config.row_tokens, len(ids_N) - 1)
    while True:
        starts = [order.randrange(len(ids_N) - length) for _ in range(config.batch_rows)]
        ids_BT = torch.stack([ids_N[start : start + length] for start in starts])
        yield ids_BT.numel(), lambda module, ids_BT=ids_BT: module(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss  # type: ignore[misc]


def missing_words(
    config: OwnBaseConfig, tokenizer: Any, prose: str, order: random.Random
) -> Iterator[tuple[int, Callable[[Any], torch.Tensor]]]:
    """A sentence without some of its words is read, the whole sentence is written (Lewis et al. 2019, arXiv:1910.13461, text infilling)."""
    sentences = [prose[start:end] for start, end in split_sentences(prose)]
    sentences = [s for s in sentences if 4 <= len(s.split()) <= 40]
    while True:
        chosen = [order.choice(sentences) for _ in range(config.batch_rows)]
        read = [" ".join(_GONE if order.random() < 0.3 else word for word in sentence.split()) for sentence in chosen]
        yield seq2seq_batch(tokenizer, read, chosen, config.row_tokens)


def seq2seq_batch(tokenizer: Any, read: Sequence[str], written: Sequence[str], longest: int) -> tuple[int, Callable[[Any], torch.Tensor]]:
    """(tokens, mean loss of the written ones)"""
    inputs = tokenizer(list(read), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    labels = tokenizer(list(written), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    labels_BT = labels["input_ids"].masked_fill(labels["attention_mask"] == 0, -100)
    number = int(inputs["attention_mask"].sum() + labels["attention_mask"].sum())

    def loss_of(module: Any) -> torch.Tensor:
        logits_BTV = module(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels_BT).logits
        return F.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=-100)

    return number, loss_of
