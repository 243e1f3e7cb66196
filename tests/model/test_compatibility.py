"""The compatibility list: what a program that used LongLLaMA relies on, by the list's numbers.

The numbers are those of the project's notes on LongLLaMA, section 7; 17 to 21, 23 and 24 are about training and
evaluation. W is the window, lcl is `last_context_length`, L the length of an input; W is 16 here and lcl 8.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from longfocus.model.cache import LongLlamaCache
from longfocus.model.memory import DenseMemory
from longfocus.model.modeling import LongLlamaForSequenceClassification
from longfocus.model.windows import cut_lengths

CLOSE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(params=[True, False], ids=["grad", "no_grad"], autouse=True)
def gradients(request):
    with torch.set_grad_enabled(request.param):
        yield


def sizes(state):
    return state.memory_length, state.window


def window_lengths(model, ids, **given):
    """How many tokens go through the first layer at a time."""
    lengths = []
    hook = model.model.layers[0].register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    model(ids, **given)
    hook.remove()
    return lengths


def step_by_step(model, state, ids):
    """Logits of `ids` fed one at a time, and the sizes of the state after each."""
    logits, trace = [], []
    for place in range(ids.shape[1]):
        output = model(ids[:, place : place + 1], past_key_values=state)
        state = output.past_key_values
        logits.append(output.logits)
        trace.append(sizes(state))
    return torch.cat(logits, dim=1), trace


@pytest.mark.parametrize("mem_layers", [[], [1, 2], [0], [0, 1, 2, 3]], ids=str)
@pytest.mark.parametrize("length", [1, 5, 8])
def test_01_short_input_is_llama(mem_layers, length, published, published_ids, llama_of):
    model = published(mem_layers=mem_layers)
    ids = published_ids(0, length)
    assert_close(model(ids).logits, llama_of(model)(ids).logits, **CLOSE)


def test_02_one_window_is_llama_and_two_without_memory_are_not(published, published_ids, llama_of):
    model = published(mem_layers=[])
    llama = llama_of(model)
    ids = published_ids(0, 16)
    expected = llama(ids).logits
    assert_close(model(ids, last_context_length=16).logits, expected, **CLOSE)
    cut = model(ids, last_context_length=8).logits
    assert (cut - expected)[:, 8:].abs().max() > 0.1
    assert_close(cut[:, 8:], llama(ids[:, 8:]).logits, **CLOSE)


@pytest.mark.parametrize(
    ("length", "last", "expected"),
    [
        (1024, 1024, [1024]),
        (1025, 1024, [1, 1024]),
        (1500, 1024, [476, 1024]),
        (3072, 1024, [2048, 1024]),
        (3073, 1024, [2048, 1, 1024]),
        (5000, 1024, [2048, 1928, 1024]),
        (5000, 3000, [2000, 3000]),
    ],
)
def test_03_windows(length, last, expected, published, published_ids):
    assert cut_lengths(length, last, 2048) == expected
    # and the model does so: the same with everything an 128th as long, rounded up
    length, last = -(-length // 128), -(-last // 128)
    lengths = window_lengths(published(), published_ids(0, length), last_context_length=last)
    assert lengths == cut_lengths(length, last, 16)
    assert len(lengths) == len(expected)


@pytest.mark.parametrize("length", [1, 8, 9, 24, 25, 50])
@pytest.mark.parametrize("last", [1, 8, 16, 20])
@pytest.mark.parametrize("use_cache", [True, False])
def test_04_entries_of_memory(length, last, use_cache, published, published_ids):
    state = published()(published_ids(0, length), last_context_length=last, use_cache=use_cache).past_key_values
    remembered = max(length - last, 0) if use_cache else length
    assert [0 if layer.memory is None else len(layer.memory) for layer in state.layers] == [
        0,
        remembered,
        remembered,
        0,
    ]
    assert [layer.window for layer in state.layers] == [min(length, last) if use_cache else 0] * 4
    tuples = state.to_tuples()
    assert [[tensor.shape[-2] for tensor in layer[:2]] for layer in tuples] == [[state.window] * 2] * 4
    assert [[tensor.shape[-2] for tensor in layer[3:]] for layer in tuples[::3]] == [[0] * 3] * 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_05_keys_are_stored_unrotated(dtype, published, published_ids):
    model = published(mem_dtype=dtype)
    output = model(published_ids(0, 30), output_hidden_states=True)
    block = model.model.layers[1]
    keys = block.self_attn.k_proj(block.input_layernorm(output.hidden_states[1])).view(1, 30, 4, 8).transpose(1, 2)
    values = block.self_attn.v_proj(block.input_layernorm(output.hidden_states[1])).view(1, 30, 4, 8).transpose(1, 2)
    layer = output.past_key_values.layers[1]
    stored = layer.memory.entries()
    assert stored.keys.dtype == stored.values.dtype == getattr(torch, dtype)
    close = CLOSE if dtype == "float32" else {"rtol": 2**-8, "atol": 1e-5}
    assert_close(stored.keys.float(), keys[:, :, :22], **close)
    assert_close(stored.values.float(), values[:, :, :22], **close)
    assert stored.keep is None
    assert_close(layer.keys.tensor, keys[:, :, 22:], **CLOSE)
    assert not output.past_key_values.to_tuples()[1][5].any()


def test_06_only_relative_positions_matter(published, published_ids):
    model = published()
    ids = published_ids(0, 50)
    expected = model(ids).logits
    moved = model(ids, position_ids=torch.arange(50)[None] + 1000).logits
    assert_close(moved, expected, **CLOSE)
    stretched = model(ids, position_ids=2 * torch.arange(50)[None]).logits
    assert (stretched - expected).abs().max() > 0.1, "positions within a window do matter"


def test_06_order_in_memory_does_not_matter(published, published_ids):
    model = published()
    state = model(published_ids(0, 40), use_cache=False).past_key_values
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    shuffled = LongLlamaCache.of_memories(
        {
            index: DenseMemory.of(*(tensor[:, :, order] for tensor in layer.memory.entries()[:2]))
            for index, layer in enumerate(state.layers)
            if layer.memory is not None
        },
        4,
    )
    question = published_ids(40, 48)
    expected = model(question, past_key_values=state).logits
    assert_close(model(question, past_key_values=shuffled).logits, expected, **CLOSE)


def test_07_overflow(published, published_ids):
    model = published()
    state = model(published_ids(0, 20)).past_key_values
    assert sizes(state) == (12, 8)
    _, trace = step_by_step(model, state, published_ids(20, 30))
    assert trace == [*((12, local) for local in range(9, 17)), (28, 1), (28, 2)]


def test_08_token_by_token_without_overflow_is_one_call(published, published_ids):
    model = published()
    state = model(published_ids(0, 20)).past_key_values
    logits, _ = step_by_step(model, state, published_ids(20, 28))
    once = model(published_ids(0, 28), last_context_length=16).logits[:, 20:]
    assert_close(logits, once, **CLOSE)


def test_08_token_by_token_with_overflow_has_its_border_there(published, published_ids):
    model = published()
    state = model(published_ids(0, 20)).past_key_values
    logits, _ = step_by_step(model, state, published_ids(20, 35))
    # 12 | 8 + 8 | 7: read up to each border without a cache, then the rest
    read = model(published_ids(0, 12), use_cache=False, last_context_length=12).past_key_values
    read = model(published_ids(12, 28), past_key_values=read, use_cache=False, last_context_length=16)
    rest = model(published_ids(28, 35), past_key_values=read.past_key_values)
    assert_close(logits, torch.cat((read.logits[:, 8:], rest.logits), dim=1), **CLOSE)


def test_09_several_turns(published, published_ids):
    model = published()
    state = model(published_ids(0, 20)).past_key_values
    ids = published_ids(20, 50)
    assert window_lengths(model, ids, past_key_values=state) == [16, 6, 8]
    state = model(ids, past_key_values=state).past_key_values
    assert sizes(state) == (36, 14)
    assert state.positions.tolist() == [list(range(36, 50))]


@pytest.mark.parametrize(
    "fields",
    [
        {"mem_attention_grouping": [1, 16]},
        {"mem_attention_grouping": (3, 5)},
        {"mem_attention_grouping": [2, 1]},
        {"torch_attention": True},
        {"torch_attention": True, "mem_attention_grouping": (1, 4)},
    ],
    ids=str,
)
def test_10_ways_of_attending_agree(fields, published, published_ids):
    ids, more = published_ids(0, 50), published_ids(50, 62)
    plain, other = (published(**given)(ids) for given in ({}, fields))
    assert_close(other.logits, plain.logits, **CLOSE)
    plain, other = (
        published(**given)(more, past_key_values=output.past_key_values)
        for given, output in (({}, plain), (fields, other))
    )
    assert_close(other.logits, plain.logits, **CLOSE)


@pytest.mark.parametrize(("dtype", "limit"), [("bfloat16", 0.05), ("float16", 0.01), ("float8_e4m3fn", 1.0)])
def test_11_dtype_of_memory(dtype, limit, published, published_ids):
    ids, more = published_ids(0, 50), published_ids(50, 80)
    exact = published()
    model = published(mem_dtype=dtype)
    output, expected = model(ids), exact(ids)
    for _ in range(2):
        layer = output.past_key_values.layers[1]
        assert layer.memory.entries().keys.dtype == layer.memory.entries().values.dtype == getattr(torch, dtype)
        assert layer.keys.tensor.dtype == layer.values.tensor.dtype == output.logits.dtype == torch.float32
        difference = (output.logits - expected.logits).abs().max()
        assert 0 < difference < limit
        output = model(more, past_key_values=output.past_key_values)
        expected = exact(more, past_key_values=expected.past_key_values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_11_dtype_of_the_model(dtype, published, published_ids):
    model = published(mem_dtype="float32").to(dtype)
    output = model(published_ids(0, 50))
    layer = output.past_key_values.layers[1]
    assert layer.keys.tensor.dtype == output.logits.dtype == dtype
    assert layer.memory.entries().keys.dtype == torch.float32
    assert_close(output.logits.float(), published()(published_ids(0, 50)).logits, rtol=0, atol=0.3)


def test_12_memory_layers_without_positions(published, published_ids):
    """With memory in every layer, the last token is then left with the set of tokens before it."""
    ids = published_ids(0, 16)
    order = [*torch.randperm(15, generator=torch.Generator().manual_seed(0)).tolist(), 15]
    differences = {}
    for positionals in (True, False):
        # one layer that looks: in a second one, what earlier tokens saw would differ
        model = published(mem_layers=[0, 1, 2, 3], mem_positionals=positionals)
        for layer in model.model.layers[1:]:
            layer.self_attn.o_proj.weight.data.zero_()
        last = [model(given, last_context_length=16).logits[:, -1] for given in (ids, ids[:, order])]
        differences[positionals] = (last[0] - last[1]).abs().max().item()
    assert differences[False] < 1e-5
    assert differences[True] > 0.1


@pytest.mark.parametrize("padding", [16, 32, 5, 19])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_13_padding(padding, side, use_cache, published, published_ids):
    """Any amount of it: LongLLaMA needs multiples of the window on the left."""
    model = published()
    ids, empty = published_ids(0, 30), torch.zeros((1, padding), dtype=torch.long)
    pieces, places = ([empty, ids], slice(padding, None)) if side == "left" else ([ids, empty], slice(None, 30))
    mask = torch.zeros((2, padding + 30), dtype=torch.long)
    mask[0, places] = 1  # the second row is all padding
    together = model(torch.cat(pieces, dim=1).expand(2, -1), attention_mask=mask, use_cache=use_cache)
    assert_close(together.logits[:1, places], model(ids).logits, **CLOSE)
    assert torch.isfinite(together.logits).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_13_padding_inside_one_window(side, published, published_ids):
    model = published()
    mask = torch.ones((1, 16), dtype=torch.long)
    mask[:, slice(None, 4) if side == "left" else slice(12, None)] = 0
    ids = torch.zeros_like(mask).masked_scatter(mask.bool(), published_ids(0, 12))
    logits = model(ids, attention_mask=mask, last_context_length=16).logits[:, mask[0].bool()]
    assert_close(logits, model(published_ids(0, 12), last_context_length=16).logits, **CLOSE)


def test_14_memory_only_state_is_the_text_before(published, published_ids):
    model = published(last_context_length=16)
    state = model(published_ids(0, 32), use_cache=False).past_key_values
    assert sizes(state) == (32, 0)
    expected = model(published_ids(0, 40), last_context_length=8).logits[:, 32:]
    question = published_ids(32, 40)
    for _ in range(2):
        assert_close(model(question, past_key_values=state).logits, expected, **CLOSE)


def test_14_memory_only_state_in_generate(published, published_ids):
    model = published(last_context_length=16)
    state = model(published_ids(0, 32), use_cache=False).past_key_values
    question = published_ids(32, 40)
    given = {"do_sample": False, "max_new_tokens": 20}
    whole = model.generate(published_ids(0, 40), last_context_length=8, **given)
    made = [model.generate(question, past_key_values=state, **given) for _ in range(3)]
    for one in made:
        assert torch.equal(one[:, 8:], whole[:, 40:])
    alone = model.generate(question, **given)
    assert not torch.equal(alone, made[0]), "the memory has a say"


def test_15_beams_of_a_batch(published, published_ids):
    model = published()
    ids = torch.cat((published_ids(0, 20), published_ids(30, 50)))
    given = {"num_beams": 3, "do_sample": False, "max_new_tokens": 24}
    together = model.generate(ids, **given)
    for row in range(2):
        assert torch.equal(together[row : row + 1], model.generate(ids[row : row + 1], **given))


def test_15_reordering_takes_window_and_memory_along(published, published_ids):
    model = published()
    ids = torch.cat((published_ids(0, 20), published_ids(30, 50), published_ids(70, 90)))
    state = model(ids).past_key_values
    before = state.to_tuples()
    rows = torch.tensor([2, 0, 0])
    state.reorder_cache(rows)
    compared = 0
    for layer, earlier in zip(state.to_tuples(), before, strict=True):
        for tensor, old in zip(layer, earlier, strict=True):
            if old.shape[-2]:
                assert torch.equal(tensor, old[rows])
                compared += 1
    assert compared == 2 * 3 + 2 * 6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mem_layers": [4]}, "layers 0 to 3"),
        ({"mem_layers": [-1]}, "layers 0 to 3"),
        ({"mem_attention_grouping": (0, 4)}, "should be positive"),
        ({"mem_attention_grouping": (1, -4)}, "should be positive"),
        ({"hidden_size": 34}, "no multiple"),
    ],
    ids=str,
)
def test_16_wrong_configuration(fields, message, published):
    with pytest.raises(ValueError, match=message):
        published(**fields)


def test_16_wrong_calls(published, published_ids):
    model = published()
    ids = published_ids(0, 20)
    state = model(ids).past_key_values
    embeddings = model.model.embed_tokens(ids)
    with pytest.raises(ValueError, match="use_cache=True"):
        model(ids, past_key_values=state, use_cache=False)
    with pytest.raises(ValueError, match="expected 6"):
        model(ids, past_key_values=tuple(layer[:3] for layer in state.to_tuples()))
    for positions in (torch.arange(19)[None], torch.arange(20), torch.zeros((2, 20), dtype=torch.long)):
        with pytest.raises(ValueError, match="position_ids"):
            model(ids, position_ids=positions)
    for mask in (torch.ones(1, 19), torch.ones(2, 20), torch.ones(20)):
        with pytest.raises(ValueError, match="attention_mask"):
            model(ids, attention_mask=mask)
    with pytest.raises(ValueError, match="attention_mask has 20 columns, expected at least 28"):
        model(ids, attention_mask=torch.ones(1, 20), past_key_values=state)
    with pytest.raises(ValueError, match="memory for layer 1"):
        published(mem_layers=[2])(ids, past_key_values=state)
    with pytest.raises(ValueError, match="exactly one"):
        model(ids, inputs_embeds=embeddings)
    with pytest.raises(ValueError, match="exactly one"):
        model()
    with pytest.raises(ValueError, match="1 rows, the input has 2"):
        model(ids.expand(2, -1), past_key_values=state)
    for last in (0, -1):
        with pytest.raises(ValueError, match="last_context_length"):
            model(ids, last_context_length=last)


def test_16_batch_without_padding_id(published_ids, tiny):
    model = tiny(LongLlamaForSequenceClassification, pad_token_id=None)
    with pytest.raises(ValueError, match="batch sizes > 1"):
        model(published_ids(0, 20).expand(2, -1))


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("fields", [{}, {"torch_attention": True}, {"mem_attention_grouping": (1, 4)}], ids=str)
def test_22_checkpointing_keeps_gradients(every, fields, published, published_ids):
    """Down to the first window, through memory, where LongLLaMA's own checkpointing loses them."""
    ids = published_ids(0, 50)
    labels = ids.clone()
    labels[:, :42] = -100  # the last window's loss alone
    gradients, calls = [], []
    for checkpointed in (False, True):
        model = published(gradient_checkpoint_every_ith=every, **fields).train()
        if checkpointed:
            model.gradient_checkpointing_enable()
        for layer in model.model.layers:
            layer.register_forward_pre_hook(lambda *_, number=int(checkpointed): calls.append(number))
        with torch.enable_grad():
            embeddings = model.model.embed_tokens(ids).detach().requires_grad_()
            model(inputs_embeds=embeddings, labels=labels).loss.backward()
        gradients.append([embeddings.grad, *(weight.grad for weight in model.parameters() if weight.grad is not None)])
    assert len(gradients[0]) == len(gradients[1])
    for plain, again in zip(*gradients, strict=True):
        assert_close(again, plain, rtol=1e-5, atol=1e-6)
    assert gradients[0][0][:, :16].abs().max() > 1e-4, "there is a gradient into the first window"
    # there are 4 windows of 4 layers each, of which one in `every` runs once more
    assert calls.count(False) == 4 * 4
    assert calls.count(True) == 4 * (4 + -(-4 // every))


def test_25_old_checkpoints(tmp_path, published, published_ids):
    """Files of LongLLaMA's own making: fewer fields, a list for the grouping, and inverse frequencies as weights."""
    model = published(last_context_length=1024, max_position_embeddings=2048)
    model.save_pretrained(tmp_path / "new")
    weights = load_file(tmp_path / "new" / "model.safetensors")
    for layer in range(4):
        weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    (tmp_path / "old").mkdir()
    save_file(weights, tmp_path / "old" / "model.safetensors", metadata={"format": "pt"})
    fields = {
        "architectures": ["LongLlamaForCausalLM"],
        "auto_map": {
            "AutoConfig": "someone/long_llama--configuration_longllama.LongLlamaConfig",
            "AutoModelForCausalLM": "someone/long_llama--modeling_longllama.LongLlamaForCausalLM",
        },
        "model_type": "longllama",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 61,
        "mem_layers": [1, 2],
        "mem_dtype": "float32",
        "rms_norm_eps": 1e-6,
        "torch_dtype": "float32",
    }
    for extra in ({}, {"mem_attention_grouping": [1, 1024]}, {"rope_theta": 10000.0, "rope_scaling": None}):
        (tmp_path / "old" / "config.json").write_text(json.dumps({**fields, **extra}), "utf-8")
        shutil.rmtree(tmp_path / "new")
        old = AutoModelForCausalLM.from_pretrained(tmp_path / "old")
        assert type(old) is type(model)
        assert old.config.last_context_length == 1024
        assert old.config.rope_parameters == model.config.rope_parameters
        assert_close(old(published_ids(0, 50)).logits, model(published_ids(0, 50)).logits, **CLOSE)
        old.save_pretrained(tmp_path / "new")
