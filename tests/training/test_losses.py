"""Losses without whole logits: transformers' own numbers and gradients, through every sort of head and wrapper."""

from types import MethodType

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

from longfocus.errors import RequestError
from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.training import losses
from longfocus.training.losses import compute_loss, compute_loss_per_row, cross_entropies

FIELDS = {
    "vocab_size": 151,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Seven places at a time."""
    monkeypatch.setattr(losses, "_LOGITS_AT_ONCE", 7 * FIELDS["vocab_size"])


def llama(**fields):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**FIELDS, **fields})).train()


def long_llama():
    torch.manual_seed(0)
    config = LongLlamaConfig(**FIELDS, mem_layers=[1], mem_dtype="float32", window_length=16, last_context_length=8)
    return LongLlamaForCausalLM(config).train()


def adapted(**settings):
    torch.manual_seed(0)
    model = get_peft_model(llama(), LoraConfig(r=4, **{"target_modules": "all-linear", **settings}))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    return model


def checkpointed():
    model = adapted()
    model.get_base_model().activation_checkpointing_enable()
    return model


def batch(rows=2, length=40):
    """Uneven labels: the first row has most of them left out."""
    ids = torch.randint(3, 151, (rows, length), generator=torch.Generator().manual_seed(1))
    labels = ids.clone()
    labels[0, :30] = -100
    return {"input_ids": ids, "labels": labels}


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


MODELS = {
    "transformers": llama,
    "tied": lambda: llama(tie_word_embeddings=True),
    "ours": long_llama,
    "adapted": adapted,
    "adapted and checkpointed": checkpointed,
    "adapted head": lambda: adapted(target_modules=["q_proj", "lm_head"]),
    "trained head beside adapters": lambda: adapted(target_modules=["q_proj"], modules_to_save=["lm_head"]),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("items", [None, 77, torch.tensor(12)], ids=str)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_loss_and_gradients_are_the_models_own(make, items):
    model, inputs = make(), batch()
    given = {} if items is None else {"num_items_in_batch": items}
    own = model(**inputs, **given, use_cache=False).loss
    expected = gradients(model, own)
    loss = compute_loss(model, inputs, items)
    assert loss.dtype == torch.float32
    assert_close(loss, own)
    found = gradients(model, loss)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert_close(found[name], grad, rtol=1e-4, atol=1e-6, msg=name)


def test_one_piece_is_the_same_as_many(monkeypatch):
    model, inputs = llama(), batch()
    pieces = compute_loss(model, inputs)
    monkeypatch.setattr(losses, "_LOGITS_AT_ONCE", 10**9)
    assert_close(compute_loss(model, inputs), pieces)


def test_row_mean_differs_from_token_mean():
    """LongLLaMA's pre-training takes the mean of each row first; on even rows that is the mean of all."""
    model, inputs = llama(), batch()
    rows = [compute_loss(model, {name: rows[row : row + 1] for name, rows in inputs.items()}) for row in range(2)]
    loss = compute_loss_per_row(model, inputs)
    assert_close(loss, torch.stack(rows).mean())
    assert (loss - compute_loss(model, inputs)).abs() > 1e-3
    found = gradients(model, compute_loss_per_row(model, inputs))
    expected = gradients(model, sum(compute_loss(model, {n: t[r : r + 1] for n, t in inputs.items()}) for r in (0, 1)))
    for name, grad in expected.items():
        assert_close(found[name] * 2, grad, rtol=1e-4, atol=1e-6, msg=name)
    even = {**inputs, "labels": inputs["input_ids"]}
    assert_close(compute_loss_per_row(model, even), compute_loss(model, even))


@pytest.mark.parametrize("loss_of", [compute_loss, compute_loss_per_row])
def test_rows_without_labels(loss_of):
    model, inputs = llama(), batch()
    inputs["labels"][0] = -100
    alone = compute_loss(model, {name: rows[1:] for name, rows in inputs.items()})
    assert_close(loss_of(model, inputs), alone if loss_of is compute_loss else alone / 2)
    inputs["labels"][:] = -100
    loss = loss_of(model, inputs)
    assert loss == 0
    assert all(not grad.any() for grad in gradients(model, loss).values())


def test_shifted_labels_count_at_their_own_place():
    model, inputs = llama(), batch()
    shifted = torch.full_like(inputs["labels"], -100)
    shifted[:, :-1] = inputs["labels"][:, 1:]
    assert_close(compute_loss(model, {**inputs, "shift_labels": shifted}), compute_loss(model, inputs))
    shifted[:, 3:] = -100
    own = model(**inputs, shift_labels=shifted).loss
    assert_close(compute_loss(model, {**inputs, "shift_labels": shifted}), own)


def test_half_precision_sums_in_full():
    """Thousands of bfloat16 losses: their mean is as good as transformers', which has logits in float32."""
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(4000, 32, generator=draw).bfloat16()
    labels = torch.randint(151, (4000,), generator=draw)
    head = nn.Linear(32, 151, bias=False).bfloat16()
    expected = nn.functional.cross_entropy(head(states).double(), labels)
    assert_close(cross_entropies(head, states, labels, places_at_once=100).mean().double(), expected, rtol=1e-5, atol=0)


class Widest(TorchDispatchMode):
    """The most places that had logits at once."""

    places = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.shape[-1:] == (FIELDS["vocab_size"],):
                places = tensor.numel() // FIELDS["vocab_size"]
                if places != FIELDS["hidden_size"]:  # the head's weight turned round
                    self.places = max(self.places, places)
        return result


@pytest.mark.parametrize("make", [llama, long_llama], ids=["transformers", "ours"])
def test_logits_exist_a_piece_at_a_time(make):
    model, inputs = make(), batch()
    with Widest() as own:
        model(**inputs).loss.backward()
    with Widest() as ours:
        compute_loss(model, inputs).backward()
    assert own.places == 80
    assert ours.places == 7


def test_no_logits_where_there_are_no_labels():
    model, inputs = llama(), batch(rows=1)
    inputs["labels"][:, :-3] = -100
    with Widest() as ours, torch.no_grad():
        loss = compute_loss(model, inputs)
    assert ours.places == 3
    assert_close(loss, model(**inputs).loss)


def test_what_wraps_forward_takes_part():
    """As accelerate wraps it for bf16=True: the head has to run under autocast as well."""
    model, inputs = llama(), batch()
    plain = model.forward
    kinds = []
    model.lm_head.register_forward_hook(lambda *args: kinds.append(args[2].dtype))

    def forward(self, *args, **kwargs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain(*args, **kwargs)

    model.forward = MethodType(forward, model)
    own = model(**inputs).loss
    loss = compute_loss(model, inputs)
    assert_close(loss, own, rtol=1e-3, atol=0)
    assert set(kinds) == {torch.bfloat16}
    loss.backward()
    assert torch.isfinite(model.lm_head.weight.grad).all()


def test_model_is_left_as_it_was():
    model, inputs = llama(), batch()
    head, before = model.lm_head, dict(vars(model))
    compute_loss(model, inputs)
    with pytest.raises(TypeError):
        compute_loss(model, {**inputs, "input_ids": "no ids"})
    assert model.lm_head is head
    assert vars(model).keys() == before.keys()
    model.loss_function = before_loss = lambda logits, **_: logits.sum()
    compute_loss(model, inputs)
    assert model.loss_function is before_loss
    assert model(**inputs).logits.shape == (2, 40, 151)


def test_refusals():
    inputs = batch()
    with pytest.raises(RequestError, match="needs labels"):
        compute_loss(llama(), {"input_ids": inputs["input_ids"]})
    with pytest.raises(RequestError, match="causal language model"):
        compute_loss(LlamaModel(LlamaConfig(**FIELDS)), inputs)
    with pytest.raises(RequestError, match="causal language model"):
        compute_loss(nn.Linear(2, 2), inputs)
    with pytest.raises(RequestError, match="DataParallel"):
        compute_loss(nn.DataParallel(llama()), inputs)
