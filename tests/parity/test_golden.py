"""What LongLLaMA's own code computed on a tiny random model, against ours (see tests/golden/longllama/README.md)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from longfocus.model.modeling import LongLlamaForCausalLM

FOLDER = Path(__file__).parent.parent / "golden" / "longllama"
CASES = {case["name"]: case for case in json.loads((FOLDER / "cases.json").read_text("utf-8"))}
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}
WITH_LOGITS = [name for name, case in CASES.items() if f"{name}.logits" in case["tensors"]]
WITH_STATE = [name for name, case in CASES.items() if any(".memory_keys" in tensor for tensor in case["tensors"])]


@pytest.fixture(scope="module")
def tensors():
    return load_file(FOLDER / "cases.safetensors")


@pytest.fixture(scope="module")
def load():
    """The golden model, loaded once for each set of fields that a case overrides."""
    loaded = {}

    def get(case):
        fields = CASES[case].get("config", {})
        key = json.dumps(fields)
        if key not in loaded:
            loaded[key] = LongLlamaForCausalLM.from_pretrained(FOLDER, **fields).eval()
        return loaded[key]

    return get


@pytest.fixture(params=MODES)
def mode(request):
    """With gradients and without: attention takes different ways then."""
    with MODES[request.param]():
        yield request.param


def tolerance(case):
    # rounding to bfloat16 decides differently for keys that differ in the last bit of float32
    return {"rtol": 0, "atol": 4e-4 if case == "mem_bfloat16" else 1e-4}


def call(model, case, tensors, **given):
    if "last_context_length" in CASES[case]:
        given["last_context_length"] = CASES[case]["last_context_length"]
    if f"{case}.attention_mask" in tensors:
        given["attention_mask"] = tensors[f"{case}.attention_mask"]
    return model(tensors[f"{case}.input_ids"], use_cache=case != "long_no_cache", **given)


@pytest.mark.parametrize("case", [name for name in WITH_LOGITS if name != "continue"])
def test_logits(case, load, tensors, mode):
    rows = slice(0, 1) if case == "left_padding" else slice(None)  # see test_padded_row for the other
    logits = call(load(case), case, tensors).logits[rows]
    assert_close(logits, tensors[f"{case}.logits"][rows], **tolerance(case))


@pytest.mark.parametrize("case", WITH_STATE)
def test_window_and_memory(case, load, tensors, mode):
    """Which tokens are in the window and which in memory, with un-rotated keys."""
    state = call(load(case), case, tensors).past_key_values
    compared = 0
    for index, layer in enumerate(state.layers):
        expected = {
            name: tensors[f"{case}.layer{index}.{name}"][:1]
            for name in ("local_keys_unrotated", "local_values", "local_positions", "memory_keys", "memory_values")
            if f"{case}.layer{index}.{name}" in tensors
        }
        found = {}
        if layer.keys is not None:
            found["local_keys_unrotated"] = layer.keys.tensor[:1]
            found["local_values"] = layer.values.tensor[:1]
            found["local_positions"] = state.positions[:1, None, :, None].float()
        if layer.memory is not None:
            keys, values, keep = layer.memory.entries()
            found["memory_keys"], found["memory_values"] = keys[:1], values[:1]
            assert keep is None or bool(keep[0].all())
        assert expected.keys() == found.keys(), f"layer {index}"
        for name in expected:
            assert_close(found[name], expected[name], rtol=0, atol=1e-4)
            compared += 1
    assert compared


def test_padded_row(load, tensors, mode):
    """LongLLaMA lets padding shift the borders of windows; ours makes the padded row equal to the row alone."""
    model = load("left_padding")
    ids, mask = tensors["left_padding.input_ids"], tensors["left_padding.attention_mask"].bool()
    assert not mask[1].all()
    together = call(model, "left_padding", tensors).logits[1, mask[1]]
    alone = model(ids[1:, mask[1]]).logits[0]
    assert_close(together, alone, rtol=0, atol=1e-4)
    assert (together - tensors["left_padding.logits"][1, mask[1]]).abs().max() > 0.1, "that was the defect"


def test_loss(load, tensors, mode):
    ids = tensors["loss.input_ids"]
    loss = load("loss")(ids, labels=ids).loss
    assert_close(loss[None], tensors["loss.loss"], rtol=0, atol=1e-4)


def test_continue(load, tensors, mode):
    model = load("continue")
    state = model(tensors["continue.input_ids"]).past_key_values
    logits = model(tensors["continue.more_ids"], past_key_values=state).logits
    assert_close(logits, tensors["continue.logits"], rtol=0, atol=1e-4)


def test_greedy_token_by_token(load, tensors, mode):
    """Over an overflow of the window: logits, tokens, and how many of them are in the window and in memory."""
    model = load("greedy")
    output = model(tensors["greedy.input_ids"], logits_to_keep=1)
    logits, tokens, sizes = [output.logits], [output.logits.argmax(-1)], []
    for _ in range(tensors["greedy.new_tokens"].shape[1] - 1):
        output = model(tokens[-1], past_key_values=output.past_key_values)
        logits.append(output.logits)
        tokens.append(output.logits.argmax(-1))
        sizes.append((output.past_key_values.window, output.past_key_values.memory_length))
    assert torch.equal(torch.cat(tokens, dim=1), tensors["greedy.new_tokens"])
    assert_close(torch.cat(logits, dim=1), tensors["greedy.step_logits"], rtol=0, atol=1e-4)
    assert torch.equal(torch.tensor(sizes), tensors["greedy.sizes_local_memory"])


def test_generate_greedy(load, tensors):
    ids = tensors["generate_greedy.input_ids"]
    made = load("generate_greedy").generate(ids, do_sample=False, max_new_tokens=24, eos_token_id=None)
    assert torch.equal(made, tensors["generate_greedy.sequences"])


def test_generate_beams(load, tensors):
    """A finished beam's score is its log-probability over its length; the length of what differs between versions.

    transformers 4.33 (the reference) counted prompt and output, 5 counts the output alone. So under 5 a beam that ends
    early is less favoured than it was: with 69 tokens of prompt, dividing by 69 + 12 or by 69 + 16 is nearly the same
    as not to divide at all, and length_penalty=0 gives the reference's choice. Without an end token no beam finishes
    before the others and the penalty decides nothing, so the tokens agree as far as the reference's go.
    """
    ids, expected = tensors["generate_beam3.input_ids"], tensors["generate_beam3.sequences"]
    model = load("generate_beam3")
    made = model.generate(ids, num_beams=3, do_sample=False, max_new_tokens=16, length_penalty=0.0)
    assert torch.equal(made, expected)
    endless = model.generate(ids, num_beams=3, do_sample=False, max_new_tokens=16, eos_token_id=None)
    assert torch.equal(endless[:, : expected.shape[1]], expected)
