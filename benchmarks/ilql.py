"""ILQL against imitation, on walks through random graphs: `python -m benchmarks.ilql --json --keep`.

Fourteen nodes, `a` to `n`; from each one way leads a step nearer to the goal `a` and two lead away from it, so that it takes luck to come
near. The data are uniformly random walks of at most sixteen steps; a walk's reward is 1 where it ends at the goal, discounted by 0.9 a
step. What is measured is the same of walks that the tuned models write, from every node.

Imitating all walks (`mygpt finetune sft`) can at best walk at random: what that is worth follows from the graph, exactly. Imitating the
best tenth of each start's walks is better, but from far away hardly any walk comes to the goal, and those that do come by detours; ILQL
puts the shortest way together from parts of many. All three begin with the same random weights and see the same walks; graphs are the
independent items.
"""

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.own_bases import CHATML
from benchmarks.record import arguments, finish
from mygpt.align.ilql import GuidedCompleter, ILQLConfig, ilql
from mygpt.artifacts.dataset import Conversation, Dataset, Message, conversation_facts, write_conversations
from mygpt.artifacts.model import Model
from mygpt.artifacts.recipe import publish, recipe
from mygpt.core.config import Config
from mygpt.core.run import Run
from mygpt.finetune.sft import SFTConfig, sft
from mygpt.infer.protocols import Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters.full import Full
from mygpt.metrics.t_interval import t_interval

NODES, WAYS, MOST_STEPS, DISCOUNT = 14, 3, 16, 0.9
WALKS, GRAPHS, DRAWN = 840, 4, 10  # walks of a data set; graphs; walks that each model writes from each node
BETA = 8.0
TUNING: dict[str, Any] = {"method": Full(), "precision": "float32", "learning_rate": 3e-3, "max_example_tokens": 64}
EPOCHS, STEP_TOKENS = 16, 1024
NAMES = "abcdefghijklmn"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def graph_of(seed: int) -> list[list[int]]:
    """Ways out of each node: to the one below it, and to two of the four above it (of the last there are fewer: some lead below then).
    The goal is node 0."""
    draw = random.Random(seed)
    ways = [[1, 2, 3]]
    for node in range(1, NODES):
        near = list(range(node + 1, NODES))[:4]
        near += list(range(node - 2, 0, -1))[: max(0, WAYS - 1 - len(near))]
        ways.append([node - 1, *draw.sample(near, WAYS - 1)])
    return ways


def distances(ways: Sequence[Sequence[int]]) -> list[int | None]:
    """Steps to the goal by the shortest way."""
    found: dict[int, int] = {0: 0}
    while more := {n: 1 + max(found.values()) for n, out in enumerate(ways) if n not in found and set(out) & set(found)}:
        found |= more
    return [found.get(n) for n in range(NODES)]


def worth_of_chance(ways: Sequence[Sequence[int]]) -> list[float]:
    """What a uniformly random walk from each node earns on the mean: by recursion over the steps that are left."""
    worth = [1.0] + [0.0] * (NODES - 1)
    for _ in range(MOST_STEPS):
        worth = [1.0] + [DISCOUNT * sum(worth[w] for w in ways[n]) / WAYS for n in range(1, NODES)]
    return worth


def worth(start: int, path: str, ways: Sequence[Sequence[int]]) -> float:
    """Of a written walk: 0 where it uses a way that is not there, or does not end at the goal."""
    at = start
    for steps, letter in enumerate(path, 1):
        if letter not in NAMES or NAMES.index(letter) not in ways[at] or steps > MOST_STEPS:
            return 0.0
        at = NAMES.index(letter)
        if at == 0:
            return DISCOUNT**steps if steps == len(path) else 0.0
    return 0.0


class BaseConfig(Config):
    hidden_size: int = 64
    layers: int = 2


@recipe
def base(config: BaseConfig, *, run: Run) -> Model:
    """Random weights; a token a letter."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer_of_letters()
    torch.manual_seed(run.seed_for("weights"))
    size = config.hidden_size
    shape = {"hidden_size": size, "intermediate_size": 2 * size, "num_hidden_layers": config.layers, "num_attention_heads": 4}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    module = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **shape, **ids))

    def write(folder: Path) -> None:
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    return publish(Model, run, write, facts={"head": "lm", "source": "own"}, provenance={"licence": "Apache-2.0"}, name="walker")


def tokenizer_of_letters() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    roles = {"pad_token": SPECIAL[0], "unk_token": SPECIAL[0], "bos_token": SPECIAL[1], "eos_token": SPECIAL[2]}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **roles)
    tokenizer.chat_template = CHATML
    return tokenizer


class WalksConfig(Config):
    graph: int
    best_share: float = 1.0  # of each start's walks


@recipe
def walks(config: WalksConfig, *, run: Run) -> Dataset:
    ways, draw = graph_of(config.graph), random.Random(f"walks/{config.graph}")
    by_start: dict[int, list[tuple[float, str]]] = {}
    for n in range(WALKS):
        start = at = 1 + n % (NODES - 1)
        path = ""
        while at != 0 and len(path) < MOST_STEPS:
            at = draw.choice(ways[at])
            path += NAMES[at]
        by_start.setdefault(start, []).append((worth(start, path, ways), path))
    rows = []
    for start, own in by_start.items():
        kept = sorted(own, reverse=True)[: max(1, round(config.best_share * len(own)))]
        for n, (earned, path) in enumerate(kept):
            turns = (Message("user", NAMES[start]), Message("assistant", path))
            rows.append(Conversation(turns, f"{NAMES[start]}-{n}", facts={"reward": f"{float(earned > 0)}"}))
    splits = {"train": rows}
    return publish(Dataset, run, lambda folder: write_conversations(folder, splits), facts=conversation_facts(splits), name="walks")


def earned(completer: Any, ways: Sequence[Sequence[int]], *, temperature: float, seed: int) -> float:
    """Mean over all nodes but the goal, DRAWN walks from each."""
    asked = [Conversation((Message("user", NAMES[n]),)) for n in range(1, NODES) for _ in range(DRAWN if temperature else 1)]
    answers = completer.complete(asked, Sampling(max_tokens=MOST_STEPS + 2, temperature=temperature, seed=seed))
    worths = [worth(NAMES.index(one.question), answer.text, ways) for one, answer in zip(asked, answers, strict=True)]
    return sum(worths) / len(worths)


def one_graph(seed: int, home: Path) -> dict[str, float]:
    ways = graph_of(seed)
    run = Run(home, name=f"graph-{seed}", seed=seed)
    start, everything = base(BaseConfig(), run=run), walks(WalksConfig(graph=seed), run=run)
    best = walks(WalksConfig(graph=seed, best_share=0.1), run=run)
    steps = {**TUNING, "step_tokens": STEP_TOKENS, "micro_batch_tokens": STEP_TOKENS}
    imitated = sft(SFTConfig(**steps, epochs=EPOCHS, pack_tokens=0), model=start, dataset=everything, run=run)
    filtered = sft(SFTConfig(**steps, epochs=5 * EPOCHS, pack_tokens=0), model=start, dataset=best, run=run)
    values = {"discount": DISCOUNT, "expectile": 0.9, "follow_share": 0.2}
    learnt = ilql(ILQLConfig(**steps, **values, epochs=EPOCHS), model=start, dataset=everything, run=run)
    run.close()
    shortest = [DISCOUNT**steps for steps in distances(ways)[1:] if steps is not None]
    return {
        "chance_exact": sum(worth_of_chance(ways)[1:]) / (NODES - 1),
        "best_exact": sum(shortest) / len(shortest),
        "sft": earned(TorchEngine(imitated), ways, temperature=1.0, seed=seed),
        "sft_greedy": earned(TorchEngine(imitated), ways, temperature=0.0, seed=seed),
        "best_tenth": earned(TorchEngine(filtered), ways, temperature=1.0, seed=seed),
        "best_tenth_greedy": earned(TorchEngine(filtered), ways, temperature=0.0, seed=seed),
        "ilql_beta_0": earned(GuidedCompleter(learnt, beta=0.0), ways, temperature=1.0, seed=seed),
        "ilql": earned(GuidedCompleter(learnt, beta=BETA), ways, temperature=1.0, seed=seed),
        "ilql_greedy": earned(GuidedCompleter(learnt, beta=BETA), ways, temperature=0.0, seed=seed),
    }


def main() -> None:
    options = arguments(__doc__ or "")
    options.add_argument("--graphs", type=int, default=GRAPHS, help="two or more")
    options.add_argument("--processes", type=int, default=2)
    given = options.parse_args()
    began, found = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as home, ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        homes = [Path(home) / str(seed) for seed in range(given.graphs)]
        for one in pool.map(one_graph, range(given.graphs), homes):
            found.append(one)
            sys.stderr.write(f"graph {len(found)}: {' '.join(f'{name} {value:.3f}' for name, value in one.items())}\n")

    def over(name: str, other: str) -> dict[str, float]:
        gap = t_interval([one[name] - one[other] for one in found])
        return {"estimate": round(gap.estimate, 4), "low": round(gap.low, 4), "high": round(gap.high, 4)}

    figures = {
        "graphs": len(found),
        "mean_worth": {name: round(sum(one[name] for one in found) / len(found), 4) for name in found[0]},
        "ilql_over_sft": over("ilql", "sft"),
        "ilql_over_best_tenth": over("ilql", "best_tenth"),
        "ilql_greedy_over_best_tenth_greedy": over("ilql_greedy", "best_tenth_greedy"),
        "sft_over_chance": over("sft", "chance_exact"),
        "by_graph": [{name: round(value, 4) for name, value in one.items()} for one in found],
        "beta": BETA,
        "seconds": round(time.perf_counter() - began, 1),
    }
    finish("ilql", figures, given)


if __name__ == "__main__":
    main()
