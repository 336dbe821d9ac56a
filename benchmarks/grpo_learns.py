"""What GRPO with a verifier gains: addition, right answers on held-out sums before and after.

    python -m benchmarks.grpo_learns --json --keep

An own base of 0.9 million random weights, one token a character, first learns some sums as examples (`mygpt finetune sft`), until it is
right now and then; GRPO then goes on with sums that it was not shown, by the reward alone: 1 where the last number it writes is the sum.
With `--model smollm2-135m` the same of that model, by adapters. `gain`: share of right greedy answers after GRPO less before it, over the
same held-out sums, with a paired 95 % interval. Sums of examples, of rollouts and of the test are apart.
"""

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from benchmarks.record import arguments, finish
from mygpt.align.grpo import GRPOConfig, grpo
from mygpt.align.verifiers import NumericReward
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.home import find_home
from mygpt.core.run import Run
from mygpt.finetune.merge import MergeConfig, merge
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.full import Full
from mygpt.lm.adapters.lora import LoRA
from mygpt.lm.sources import obtain
from mygpt.metrics.bootstrap import paired_bootstrap

_LONGEST = 12  # tokens of an answer
_SHOWN = ("reward", "reward_std", "kl", "entropy", "length", "grad_norm", "sampler_gap")
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class BaseConfig(Config):
    hidden_size: int = 128
    layers: int = 4


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
    return publish(Model, run, write, facts=facts, provenance={"licence": "Apache-2.0"}, name="own-adder")


class SumsConfig(Config):
    digits: int
    first: int  # of all pairs in random order
    train: int
    test: int


@recipe
def sums(config: SumsConfig, *, run: Run) -> Dataset:
    low, high = (0 if config.digits == 1 else 10 ** (config.digits - 1)), 10**config.digits - 1
    draw = random.Random(run.seed)
    if (high - low + 1) ** 2 < 100_000:
        pairs = [(a, b) for a in range(low, high + 1) for b in range(low, high + 1)]
    else:
        pairs = list(dict.fromkeys((draw.randint(low, high), draw.randint(low, high)) for _ in range(50_000)))
    draw.shuffle(pairs)
    assert config.test + config.first + config.train <= len(pairs), f"only {len(pairs)} pairs"
    splits = {"train": rows_of(pairs[config.test + config.first :][: config.train]), "test": rows_of(pairs[: config.test])}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits))


def rows_of(pairs: Sequence[tuple[int, int]]) -> list[Conversation]:
    return [Conversation((Message("user", f"{a}+{b}"), Message("assistant", str(a + b))), f"{a}+{b}") for a, b in pairs]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="own")
    parser.add_argument("--digits", type=int, default=2)
    parser.add_argument("--items", type=int, default=500, help="held-out sums")
    parser.add_argument("--examples", type=int, default=3000, help="sums that are learnt as examples first")
    parser.add_argument("--sft-epochs", type=int, default=10)
    parser.add_argument("--sft-rate", type=float, default=1e-3)
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=16, help="in a rollout")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.time()

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "log" and "rollout" in event and event["rollout"] % 20 == 1:
            shown = {key: round(event[key], 3) for key in _SHOWN if key in event}
            say(f"{time.time() - began:.0f} s, rollout {event['rollout']}: {shown}")

    with tempfile.TemporaryDirectory() as home, Run(Path(home), name="benchmark", seed=options.seed, listeners=(listen,)) as run:
        is_own = options.model == "own"
        base = own_base(BaseConfig(), run=run) if is_own else obtain(options.model, run=Run(find_home(None), name="benchmark"))
        common = {"digits": options.digits, "test": options.items}
        shown = sums(SumsConfig(**common, first=0, train=options.examples), run=run)
        unseen = options.rollouts * options.prompts
        epochs = 1
        most = 8100 - options.items - options.examples if options.digits == 2 else unseen
        if unseen > most:
            epochs, unseen = -(-unseen // most), most
        asked = sums(SumsConfig(**common, first=options.examples, train=unseen), run=run)
        method: Any = Full() if is_own else LoRA()
        started = time.time()
        learnt = sft(
            SFTConfig(method=method, learning_rate=options.sft_rate, epochs=options.sft_epochs, max_example_tokens=128, step_tokens=2048),
            model=base,
            dataset=shown,
            run=run,
        )
        start = merge(MergeConfig(), adapter=learnt, run=run) if isinstance(learnt, Adapter) else learnt
        sft_seconds = time.time() - started
        before = right(start, None, asked)
        of_examples = right(start, None, shown, "train")
        say(f"{time.time() - began:.0f} s, before: {fmean(before):.3f}; of the examples themselves: {fmean(of_examples):.3f}")
        config = GRPOConfig(
            method=method,
            learning_rate=options.rate,
            epochs=epochs,
            prompts_per_rollout=options.prompts,
            samples=options.samples,
            max_answer_tokens=_LONGEST,
            max_example_tokens=128,
            warmup_share=0.0,
            checkpoint_seconds=1e9,
        )
        started = time.time()
        made = grpo(config, model=start, dataset=asked, run=run)
        seconds = time.time() - started
        after = right(start, made, asked) if isinstance(made, Adapter) else right(made, None, asked)
        facts = made.manifest.facts
        parameters = base.manifest.facts.get("parameters")
    gain = paired_bootstrap(after, before)
    vitals = facts["vitals"]
    figures: dict[str, Any] = {"model": options.model, "parameters": parameters, "digits": options.digits, "items": len(before)}
    figures |= {"examples": options.examples, "sft_epochs": options.sft_epochs, "threads": torch.get_num_threads()}
    figures |= {"before_of_the_examples": round(fmean(of_examples), 4)}
    figures |= {"rollouts": len(vitals), "answers_a_rollout": options.prompts * options.samples, "learning_rate": options.rate}
    figures |= {"before": round(fmean(before), 4), "after": round(fmean(after), 4)}
    figures |= {"gain": round(gain.estimate, 4), "gain_interval": [round(gain.low, 4), round(gain.high, 4)]}
    figures |= {"seconds_of_examples": round(sft_seconds), "seconds_of_rollouts": round(seconds), "flat_groups": facts["flat_groups"]}
    figures |= {"first_vitals": vitals[0], "last_vitals": vitals[-1], "rewards": [row["reward"] for row in vitals[::10]]}
    say(f"{figures}")
    finish("grpo_learns", figures, options, seed=options.seed)


def right(model: Model, adapter: Adapter | None, dataset: Dataset, split: str = "test") -> list[float]:
    """Of the sums of a split, by greedy answers: 1 or 0."""
    rows, verify = dataset.split(split), NumericReward()
    answers = TorchEngine(model, adapter=adapter).complete(rows, Sampling(max_tokens=_LONGEST))
    return [verify(row, answer) for row, answer in zip(rows, answers, strict=True)]


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
