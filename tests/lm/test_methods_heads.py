"""Every method on every kind of head: it goes in with its gradients, or is refused with the reason."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from mygpt.core.errors import Refused
from mygpt.lm.adapters import methods
from mygpt.lm.adapters.peft_model import label_modules, task_type
from tests.lm import tuned
from tests.lm.tuned import IDS_BT, METHODS, label

_BERT = {"vocab_size": 259, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "num_labels": 3}
_LLAMA = {**_BERT, "num_key_value_heads": 2, "pad_token_id": 0}
_T5 = {"vocab_size": 259, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
_BART = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))}
HEADS: dict[str, tuple[Callable[[], Any], torch.Tensor, str]] = {
    "bert sequences": (
        lambda: transformers.BertForSequenceClassification(transformers.BertConfig(**_BERT)),
        torch.tensor([0, 1, 2]),
        "SEQ_CLS",
    ),
    "llama sequences": (
        lambda: transformers.LlamaForSequenceClassification(transformers.LlamaConfig(**_LLAMA)),
        torch.tensor([0, 1, 2]),
        "SEQ_CLS",
    ),
    "bert tokens": (lambda: transformers.BertForTokenClassification(transformers.BertConfig(**_BERT)), IDS_BT % 3, "TOKEN_CLS"),
    "bert masked words": (lambda: transformers.BertForMaskedLM(transformers.BertConfig(**_BERT)), IDS_BT, ""),
    "t5": (lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**_T5)), IDS_BT, "SEQ_2_SEQ_LM"),
    "bart": (
        lambda: transformers.BartForConditionalGeneration(transformers.BartConfig(vocab_size=259, d_model=32, **_BART)),
        IDS_BT,
        "SEQ_2_SEQ_LM",
    ),
    "bloom": (
        lambda: transformers.BloomForCausalLM(transformers.BloomConfig(vocab_size=259, hidden_size=32, n_layer=2, n_head=4)),
        IDS_BT,
        "CAUSAL_LM",
    ),
}
REFUSED = {
    *((name, head) for name in ("prefix", "prompt", "p_tuning") for head in ("llama sequences", "bert tokens", "bert masked words")),
    ("prefix", "bert sequences"),
}


@pytest.mark.parametrize("method", METHODS, ids=label)
@pytest.mark.parametrize("head", HEADS)
def test_goes_in_or_is_refused(method: Any, head: str) -> None:
    make, labels, task = HEADS[head]
    torch.manual_seed(0)
    module = make().eval()
    new = label_modules(module)
    assert task_type(module) == task and bool(new) == (task in ("SEQ_CLS", "TOKEN_CLS"))
    if (method.name, head) in REFUSED:
        with pytest.raises(Refused):
            methods.attach(module, method, tokenizer=tuned.TOKENIZER)
        return
    module = methods.attach(module, method, tokenizer=tuned.TOKENIZER).eval()
    with torch.no_grad():
        for _, parameter in tuned.trained(module):
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    module(input_ids=IDS_BT, attention_mask=torch.ones_like(IDS_BT), labels=labels).loss.backward()
    still = [name for name, p in tuned.trained(module) if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in still if "position" not in name and "token_type" not in name] == []
    trained = " ".join(name for name, _ in tuned.trained(module))
    assert all(name in trained for name in new)
