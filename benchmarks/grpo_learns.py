"""What GRPO with a verifier gains: how often a letter stands in a text, right answers on held-out texts before and after.

    python -m benchmarks.grpo_learns --json --keep

An own base of random weights, one token a character, first learns a few texts as examples (`mygpt finetune sft`), until it counts right
now and then; GRPO then goes on with texts whose counts it was not shown, by the reward alone: 1 where the last number that it writes is the
count, else 0. Counts of 0 to 9 are equally frequent, so that guessing is right once in ten times. `gain`: share of right greedy answers
after GRPO less before it, over the same held-out texts, with a paired 95 % interval. No text is in two of examples, rollouts and test.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.record import arguments, finish
from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.verifiers import NumericReward
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.full import Full
from mygpt.metrics.bootstrap import paired_bootstrap

_LONGEST = 6  # tokens of an answer
_ASKED, _OTHERS = "a", "bcde"
_LENGTH, _MOST = 14, 9  # letters of a text, and most of the one that is asked for
_SHOWN = ("reward", "reward_std", "kl", "entropy", "length", "grad_norm", "sampler_gap")
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class BaseConfig(Config):
    hidden_size: int = 64
    layers: int = 2


@recipe
def own_base(config: BaseConfig, *, run: Run) -> Model:
    """Random weights, and a tokenizer of single bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(names)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    roles = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
    tokenizer.chat_template = _CHATML
    sizes = {"hidden_size": config.hidden_size, "intermediate_size": 3 * config.hidden_size, "num_hidden_layers": config.layers}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "vocab_size": len(names)}
    torch.manual_seed(run.seed_for("weights"))
    module = LlamaForCausalLM(LlamaConfig(**sizes, **ids, num_attention_heads=4, max_position_embeddings=128, tie_word_embeddings=True))

    def write(folder: Path) -> None:
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    facts = {"head": "lm", "source": "own", "parameters": sum(p.numel() for p in module.parameters())}
    return publish(Model, run, write, facts=facts, provenance={"licence": "Apache-2.0"}, name="own-counter")


class TextsConfig(Config):
    first: int  # of all texts: which belong to it
    train: int
    test: int


@recipe
def texts(config: TextsConfig, *, run: Run) -> Dataset:
    """Rows that all differ, `first` and further ones of one long list."""
    draw, seen = run.random("texts"), dict[str, Conversation]()
    while len(seen) < config.first + config.train + config.test:
        count = draw.randint(0, _MOST)
        letters = [_ASKED] * count + [draw.choice(_OTHERS) for _ in range(_LENGTH - count)]
        draw.shuffle(letters)
        question = f"{_ASKED} in {''.join(letters)}"
        seen[question] = Conversation((Message("user", question), Message("assistant", str(count))), question)
    rows = list(seen.values())[config.first :]
    splits = {"train": rows[: config.train], "test": rows[config.train :]}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--items", type=int, default=500, help="held-out texts")
    parser.add_argument("--examples", type=int, default=2000, help="texts that are learnt as examples first")
    parser.add_argument("--sft-epochs", type=int, default=2)
    parser.add_argument("--sft-rate", type=float, default=3e-3)
    parser.add_argument("--rollouts", type=int, default=400)
    parser.add_argument("--prompts", type=int, default=32, help="in a rollout")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.time()

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "log" and "rollout" in event and event["rollout"] % 20 == 1:
            shown = {key: round(event[key], 3) for key in _SHOWN if key in event}
            say(f"{time.time() - began:.0f} s, rollout {event['rollout']}: {shown}")

    with tempfile.TemporaryDirectory() as home, Run(Path(home), name="benchmark", seed=options.seed, listeners=(listen,)) as run:
        shown = texts(TextsConfig(first=0, train=options.examples, test=0), run=run)
        unseen = {"first": options.examples, "train": options.rollouts * options.prompts, "test": options.items}
        asked = texts(TextsConfig(**unseen), run=run)
        common: dict[str, Any] = {"method": Full(), "max_example_tokens": 96, "precision": "float32", "checkpoint_seconds": 1e9}
        learning = SFTConfig(**common, learning_rate=options.sft_rate, epochs=options.sft_epochs, step_tokens=2048, pack_tokens=0)
        base = own_base(BaseConfig(), run=run)
        started = time.time()
        start = sft(learning, model=base, dataset=shown, run=run)
        sft_seconds = time.time() - started
        assert isinstance(start, Model)
        before = right(start, asked)
        say(f"{time.time() - began:.0f} s, before: {fmean(before):.3f}")
        config = GRPOConfig(
            **common,
            learning_rate=options.rate,
            prompts_per_rollout=options.prompts,
            samples=options.samples,
            max_answer_tokens=_LONGEST,
            micro_batch_tokens=8192,
            warmup_share=0.0,
        )
        started = time.time()
        made = grpo(config, model=start, dataset=asked, run=run)
        seconds = time.time() - started
        assert isinstance(made, Model)
        after, facts = right(made, asked), made.manifest.facts
    gain, vitals = paired_bootstrap(after, before), facts["vitals"]
    figures: dict[str, Any] = {"parameters": base.manifest.facts["parameters"], "items": len(before), "chance": 1 / (_MOST + 1)}
    figures |= {"examples": options.examples, "sft_epochs": options.sft_epochs, "threads": torch.get_num_threads()}
    figures |= {"rollouts": len(vitals), "answers_a_rollout": options.prompts * options.samples, "learning_rate": options.rate}
    figures |= {"before": round(fmean(before), 4), "after": round(fmean(after), 4)}
    figures |= {"gain": round(gain.estimate, 4), "gain_interval": [round(gain.low, 4), round(gain.high, 4)]}
    figures |= {"seconds_of_examples": round(sft_seconds), "seconds_of_rollouts": round(seconds), "flat_groups": facts["flat_groups"]}
    figures |= {"first_vitals": vitals[0], "last_vitals": vitals[-1], "rewards": [row["reward"] for row in vitals[::10]]}
    say(f"{figures}")
    finish("grpo_learns", figures, options, seed=options.seed)


def right(model: Model, dataset: Dataset) -> list[float]:
    """Of the held-out texts, by greedy answers: 1 or 0."""
    rows, verify = dataset.split("test"), NumericReward()
    answers = TorchEngine(model).complete(rows, Sampling(max_tokens=_LONGEST))
    return [verify(row, answer) for row, answer in zip(rows, answers, strict=True)]


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
