"""Implicit Q-learning for language (ILQL): learn from conversations with a reward which token leads to more of it.

The policy is tuned on all of them, as in supervised tuning. Beside it two heads learn Q, what a token leads to, and one learns V, the best
that the data shows from there (an expectile, so that nothing is asked of tokens never seen). When answers are written, what the policy
would say is shifted towards tokens of high Q (`guided`): parts of several conversations are put together, which no imitation does.

    L_Q    (r + discount * V(next) - Q1)^2 + the same of Q2           V(next) is 0 after the last token of a conversation
    L_V    |expectile - 1[u < 0]| u^2,  u = min(Q1', Q2') - V          Q' follow Q slowly (Polyak)
    L_CQL  -log softmax(Q)[token], of both                             tokens that the data does not have are worth less
    loss   policy_weight * NLL + L_Q + L_V + conservatism * L_CQL      each summed over trained tokens and divided by their number

Source     Snell et al. 2022, arXiv:2206.11871, sections 4.1-4.3; expectiles: Kostrikov et al. 2021, arXiv:2110.06169
We differ  policy and values share one network, and its gradients; the reward comes once, with the last trained token of a conversation;
           beta (Q - V) is added to logits as beta Q, since V is the same for all tokens; no advantage weight on NLL (the paper's AWAC)
Dims       B examples   T tokens   N labels   D hidden   V vocabulary   U units of a head
"""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from safetensors.torch import load_file, save_file

from mygpt.artifacts.dataset import Conversation, Dataset
from mygpt.artifacts.model import Adapter, Model
from mygpt.artifacts.recipe import recipe
from mygpt.core.errors import Refused, UsageError
from mygpt.core.run import Run
from mygpt.infer.protocols import Answer, Identity, Sampling
from mygpt.infer.torch_engine import TorchEngine
from mygpt.lm.adapters import methods
from mygpt.lm.chat import ChatRenderer, Rendered
from mygpt.lm.inputs import window_tokens
from mygpt.lm.load import Loaded, blueprint, load_lm, load_tokenizer
from mygpt.lm.logits import logits_at
from mygpt.training.activations import ForwardPass, decoder_pass, rows_of
from mygpt.training.batches import batch_of
from mygpt.training.fit import Work, compared, foreseen, require_memory
from mygpt.training.forecast import Forecast
from mygpt.training.label_logprobs import logprobs_of
from mygpt.training.losses import hidden_states
from mygpt.training.recompute import recompute_layers
from mygpt.training.steps import Examples, Optimizer
from mygpt.training.tuning import TuningConfig, dtype_of, learnt, names_of, plan_epochs, published, rate_at, require_examples, tuning_steps

VALUE_HEADS = "value_heads.safetensors"
OpenShare = Annotated[float, Field(gt=0, lt=1)]


class ILQLConfig(TuningConfig):
    expectile: OpenShare = 0.7  # 0.5: the mean of what was tried; towards 1: the best of it
    discount: Annotated[float, Field(gt=0, le=1)] = 0.99  # a token
    conservatism: NonNegativeFloat = 0.1
    policy_weight: NonNegativeFloat = 1.0
    follow_share: Annotated[float, Field(gt=0, le=1)] = 0.005  # of Q, that Q' takes over at each update
    head_units: PositiveInt | None = None  # None: twice the model's
    step_tokens: PositiveInt = 1024  # padded tokens per update
    micro_batch_tokens: PositiveInt = 512  # four products with the vocabulary each


# -- heads -------------------------------------------------------------------------------------------------------------------


class QHeads(torch.nn.Module):
    def __init__(self, hidden: int, vocabulary: int, units: int):
        super().__init__()
        self.q1, self.q2 = _head(hidden, vocabulary, units), _head(hidden, vocabulary, units)

    def forward(self, hidden_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, V) each."""
        return self.q1(hidden_ND), self.q2(hidden_ND)


class ValueHeads(torch.nn.Module):
    """Q of both heads, Q' that follows it and is not trained, and V."""

    def __init__(self, hidden: int, vocabulary: int, units: int):
        super().__init__()
        self.q = QHeads(hidden, vocabulary, units)
        self.v = _head(hidden, 1, units)
        self.followers = copy.deepcopy(self.q).requires_grad_(False)

    def follow(self, share: float) -> None:
        with torch.no_grad():
            for follower, leader in zip(self.followers.parameters(), self.q.parameters(), strict=True):
                follower.lerp_(leader, share)


def _head(hidden: int, outputs: int, units: int) -> torch.nn.Sequential:
    return torch.nn.Sequential(torch.nn.Linear(hidden, units), torch.nn.ReLU(), torch.nn.Linear(units, outputs))


class Followed:
    """An optimiser after whose updates Q' follows Q; Q' is part of its state, so that a killed training goes on exactly."""

    def __init__(self, optimizer: Optimizer, heads: ValueHeads, share: float):
        self._optimizer, self._heads, self._share = optimizer, heads, share

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        return self._optimizer.parameters

    def update(self, *, learning_rate: float, max_grad_norm: float) -> float:
        norm = self._optimizer.update(learning_rate=learning_rate, max_grad_norm=max_grad_norm)
        if math.isfinite(norm):
            self._heads.follow(self._share)
        return norm

    def state(self) -> dict[str, torch.Tensor]:
        return {**self._optimizer.state(), **{f"follower.{name}": p for name, p in self._heads.followers.state_dict().items()}}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        self._optimizer.restore({name: tensor for name, tensor in tensors.items() if not name.startswith("follower.")})
        own = {name.removeprefix("follower."): tensor for name, tensor in tensors.items() if name.startswith("follower.")}
        self._heads.followers.load_state_dict(own)


# -- losses, summed over labels ----------------------------------------------------------------------------------------------


def q_loss(q_N: torch.Tensor, reward_N: torch.Tensor, next_value_N: torch.Tensor, *, discount: float) -> torch.Tensor:
    return ((reward_N + discount * next_value_N.detach() - q_N) ** 2).sum()


def expectile_loss(target_N: torch.Tensor, value_N: torch.Tensor, *, expectile: float) -> torch.Tensor:
    u_N = target_N.detach() - value_N
    return (torch.where(u_N < 0, 1 - expectile, expectile) * u_N**2).sum()


def conservative_loss(q_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(q_NV, labels_N, reduction="sum")


def of_the_next(values_N: torch.Tensor, rows_N: torch.Tensor) -> torch.Tensor:
    """The value at a row's next label; 0 at its last."""
    next_N = torch.cat([values_N[1:], values_N.new_zeros(1)])
    return torch.where(_is_last(rows_N), torch.zeros_like(next_N), next_N)


def at_the_end(rewards_B: torch.Tensor, rows_N: torch.Tensor) -> torch.Tensor:
    """Each row's reward at its last label, 0 elsewhere."""
    return torch.where(_is_last(rows_N), rewards_B[rows_N], rewards_B.new_zeros(()))


def _is_last(rows_N: torch.Tensor) -> torch.Tensor:
    return torch.cat([rows_N[1:] != rows_N[:-1], rows_N.new_ones(1, dtype=torch.bool)])


# -- the recipe --------------------------------------------------------------------------------------------------------------


@recipe
def ilql(config: ILQLConfig, *, model: Model, dataset: Dataset, run: Run) -> Adapter | Model:
    """Learn the split `train` of `dataset`, conversations whose fact `reward` says how good they were. The value heads are kept beside
    the weights; `guided` answers by both."""
    rows, renderer = dataset.split("train"), ChatRenderer(load_tokenizer(model))
    examples, known = _examples(config, model, rows, renderer)
    forecast = _forecast(config, model, known, order=run.random, home=run.home)
    run.note(f"Training needs {forecast.told()}.")
    loaded = load_lm(model, dtype=dtype_of(config), weights=methods.base_weights(config.method))

    torch.manual_seed(run.seed_for("ilql"))
    module = methods.attach(loaded.module, config.method, tokenizer=loaded.tokenizer).eval()
    if config.recompute:
        recompute_layers(module)
    heads = value_heads(module, config).to(loaded.device)
    rewards_R, padding_id = torch.tensor([reward_of(row) for row in rows], device=loaded.device), loaded.tokenizer.pad_token_id or 0
    trained = {"q": heads.q, "v": heads.v}

    plan = plan_epochs(known.num_tokens, config, step_tokens=config.step_tokens, order=run.random)

    def followed(optimizer: Optimizer) -> Optimizer:
        return Followed(optimizer, heads, config.follow_share)

    with tuning_steps(plan, known, module=module, config=config, heads=trained, around=followed, run=run) as steps:
        for step in steps:
            for micro_batch in step.micro_batches:
                batch = batch_of([examples[i] for i in micro_batch], padding_id=padding_id, device=loaded.device)
                is_label = batch.trained_BT[:, 1:]
                labels_N, rows_N = batch.ids_BT[:, 1:][is_label], is_label.nonzero()[:, 0]
                hidden_ND = hidden_states(module, batch.ids_BT)[:, :-1][is_label]
                nll = -logprobs_of(module, hidden_ND, labels_N).sum()

                qs_NV, value_N = heads.q(hidden_ND.float()), heads.v(hidden_ND.float())[:, 0]
                with torch.no_grad():
                    target_N = torch.minimum(*heads.followers(hidden_ND.float())).gather(1, labels_N[:, None])[:, 0]
                reward_N, next_N = at_the_end(rewards_R[micro_batch], rows_N), of_the_next(value_N, rows_N)
                taken_N = [q_NV.gather(1, labels_N[:, None])[:, 0] for q_NV in qs_NV]
                q_part = sum(q_loss(q_N, reward_N, next_N, discount=config.discount) for q_N in taken_N)
                v_part = expectile_loss(target_N, value_N, expectile=config.expectile)
                cql_part = sum(conservative_loss(q_NV, labels_N) for q_NV in qs_NV)

                loss = (config.policy_weight * nll + q_part + v_part + config.conservatism * cql_part) / step.num_trained
                loss.backward()
                step.add(loss, computed_tokens=batch.ids_BT.numel())
            step.update(learning_rate=rate_at(step, config), max_grad_norm=config.max_grad_norm)

    def write_heads(folder: Path) -> None:
        save_file({name: p.contiguous() for name, p in heads.state_dict().items()}, folder / VALUE_HEADS)

    facts = {
        **learnt(module, loaded, config, steps),
        "objective": "ilql",
        "template": renderer.template_digest,
        "mean_reward": float(rewards_R.mean()),
        **compared(forecast, steps, home=run.home),
    }
    tuned = published(module, loaded, config, facts=facts, inherited=model.manifest.facts, write_beside=write_heads, run=run)
    steps.checkpoints.clear()
    return tuned


def ilql_forecast(config: ILQLConfig, *, model: Model, dataset: Dataset, home: Path) -> dict[str, Any]:
    """What `ilql` would do and need, said by `--dry-run`. No weight is loaded."""
    _, known = _examples(config, model, dataset.split("train"), ChatRenderer(load_tokenizer(model)))
    return foreseen(_forecast(config, model, known, order=Random, home=home), examples=len(known.num_tokens))


def _forecast(config: ILQLConfig, model: Model, known: Examples, *, order: Callable[[str], Random], home: Path) -> Forecast:
    """The value heads count as a part of the module: what is made of their logits too, but for what Q' makes, which is not kept."""

    def work_of(config: ILQLConfig) -> Work:
        with torch.device("meta"):
            module: Any = methods.attach(blueprint(model, dtype_of(config)), config.method, tokenizer=tokenizer)
            module = recompute_layers(module) if config.recompute else module
            module.value_heads = value_heads(module, config)
        plan = plan_epochs(known.num_tokens, config, step_tokens=config.step_tokens, order=order)
        return Work(module, plan, known, ForwardPass(decoder_pass, rows_of(known.num_tokens), logits_of=logits_of))

    def logits_of(micro: Sequence[int]) -> int:
        return 3 * vocabulary * sum(known.num_trained[i] for i in micro)  # the policy's, and both Q

    tokenizer = load_tokenizer(model)
    vocabulary = int(blueprint(model, dtype_of(config)).get_output_embeddings().weight.shape[0])
    return require_memory(config, work_of, home=home)


def value_heads(module: Any, config: ILQLConfig) -> ValueHeads:
    vocabulary, hidden = module.get_output_embeddings().weight.shape
    return ValueHeads(hidden, vocabulary, config.head_units or 2 * hidden)


def _examples(config: ILQLConfig, model: Model, rows: Sequence[Conversation], renderer: ChatRenderer) -> tuple[list[Rendered], Examples]:
    """Raises Refused or UsageError for what cannot be learnt from, before any weight is loaded."""
    examples, rewards = [renderer.render(row) for row in rows], [reward_of(row) for row in rows]
    lengths = [len(e.token_ids) for e in examples]
    window = window_tokens(blueprint(model, dtype_of(config)))
    most = min(config.max_example_tokens, window - methods.num_virtual_tokens(config.method)) if window else config.max_example_tokens
    require_examples(lengths, allowed=most, what="conversations", fix="Shorten them, or set `max_example_tokens` higher.")
    if max(rewards) == min(rewards):
        what = f"All {len(rows)} conversations have the reward {rewards[0]:g}: none is better than another."
        raise Refused(what, fix="Give rewards that differ, or tune on the conversations as they are (`mygpt finetune sft`).")
    return examples, Examples(names_of(rows), num_tokens=lengths, num_trained=[sum(e.trained[1:]) for e in examples])


def reward_of(row: Conversation) -> float:
    """Raises UsageError for a row without one."""
    said = row.facts.get("reward", "")
    try:
        value = float(said)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        found = f"the reward {said!r}" if said else "no reward"
        what = f"The conversation `{row.id}` has {found}: a number in its fact `reward` is needed."
        raise UsageError(what, fix="Give every row of the split one; what is better has more.")
    return value


# -- answers -----------------------------------------------------------------------------------------------------------------


class GuidedHead(torch.nn.Module):
    """The policy's logits and `beta` times the lower of both Q'."""

    def __init__(self, head: torch.nn.Linear, followers: QHeads, beta: float):
        super().__init__()
        self.head, self.followers, self.beta = head, followers, beta

    @property
    def weight(self) -> torch.Tensor:
        weight: torch.Tensor = self.head.weight
        return weight

    def forward(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        logits_NV: torch.Tensor = self.head(hidden_ND).float()
        return logits_NV + self.beta * torch.minimum(*self.followers(hidden_ND.float()))


class GuidedCompleter:
    """A Completer: `model` (and `adapter`) as ILQL made them, on the batched engine. `beta` 0: the policy alone."""

    def __init__(self, model: Model, *, adapter: Adapter | None = None, beta: float = 1.0, run: Run | None = None):
        self._engine = TorchEngine(model, adapter=adapter, loaded=guided(load_lm(model, adapter=adapter), beta=beta), run=run)
        self._beta = beta

    @property
    def identity(self) -> Identity:
        return {**self._engine.identity, "guided_by": "ilql", "beta": self._beta}

    def complete(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Answer]:
        return self._engine.complete(conversations, sampling)


def guided(loaded: Loaded, *, beta: float) -> Loaded:
    """`loaded` with its last product shifted by the value heads kept beside it. Raises UsageError where there are none."""
    made = loaded.adapter or loaded.model
    file = made.payload / VALUE_HEADS
    if not file.is_file():
        raise UsageError(f"{made.id} has no value heads.", fix="Guide by what `mygpt align ilql` made.")
    base: Any = loaded.module.get_base_model() if hasattr(loaded.module, "get_base_model") else loaded.module
    head = base.get_output_embeddings()
    probe_ND = torch.ones(1, head.weight.shape[1], dtype=head.weight.dtype, device=loaded.device)
    with torch.no_grad():
        if not torch.allclose(logits_at(base, probe_ND), head(probe_ND).float(), rtol=1e-3, atol=1e-3):
            what = f"The head of {type(base).__name__} scales or caps its logits, and Q has to be added after that."
            raise Refused(what, fix="Choose a base with a plain head: Llama, Qwen, GPT-2 and their kin.")
    tensors = load_file(file)
    units, hidden = tensors["q.q1.0.weight"].shape
    heads = ValueHeads(hidden, tensors["q.q1.2.weight"].shape[0], units)
    heads.load_state_dict(tensors)
    base.set_output_embeddings(GuidedHead(head, heads.followers.to(loaded.device).eval(), beta))
    return loaded
