"""A state is a value: whatever is done with it later, it stays as it was and can be gone on from again."""

import copy

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache

from longfocus.model.cache import LayerState, LongLlamaCache
from longfocus.model.memory import ChainedMemory, DenseMemory

MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


def held(state):
    """Copies of everything in a state."""
    tensors = [] if state.positions is None else [state.positions]
    tensors += [] if state.keep is None else [state.keep]
    for layer in state.layers:
        tensors += [grown.tensor for grown in (layer.keys, layer.values) if grown is not None]
        if layer.memory is not None:
            tensors += [tensor for tensor in layer.memory.entries() if tensor is not None]
    return [tensor.detach().clone() for tensor in tensors]


def unchanged(state, before):
    after = held(state)
    assert len(before) == len(after)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def states_of(model, some_ids):
    """One of each sort: memory only, window only, both, and a batch with padding in both."""
    mask = torch.ones((2, 30), dtype=torch.long)
    mask[1, :11] = 0
    return {
        "memory": model(some_ids(1, 50), use_cache=False).past_key_values,
        "window": model(some_ids(1, 7)).past_key_values,
        "both": model(some_ids(1, 50)).past_key_values,
        "padded": model(some_ids(2, 30), attention_mask=mask).past_key_values,
    }


def rows_of(state):
    return state.batch or 1


def go_on(model, state, some_ids):
    """Everything that may be done with a state; the logits and tokens that it gives."""
    rows, seen = rows_of(state), state.seen
    more, prompt = some_ids(rows, 40, seed=5), some_ids(rows, seen + 6, seed=6)
    given = {"do_sample": False, "max_new_tokens": 12, "past_key_values": state}
    step = model(more[:, :1], past_key_values=state)
    results = [
        step.logits,
        model(more[:, :1], past_key_values=step.past_key_values).logits,
        model(more, past_key_values=state).logits,
        model(more[:, :12], past_key_values=state, labels=more[:, :12]).loss,
        model.generate(prompt, **given),
        model.generate(prompt, num_beams=3, **given),
        model.generate(prompt, num_beams=2, num_return_sequences=2, **given),
    ]
    return [result.detach().clone() for result in results]


@pytest.mark.parametrize("made", MODES)
@pytest.mark.parametrize("used", MODES)
@pytest.mark.parametrize("sort", ["memory", "window", "both", "padded"])
def test_a_state_given_again_gives_the_same(tiny, some_ids, made, used, sort):
    """Made in one mode and used in another, with every other use of it in between."""
    model = tiny(mem_layers=[1])
    with MODES[made]():
        state = states_of(model, some_ids)[sort]
    before = held(state)
    results = []
    for mode in (used, made):
        with MODES[mode]():
            results.append(go_on(model, state, some_ids))
            unchanged(state, before)
    for first, second in zip(*results, strict=True):
        # with gradients attention takes another way
        assert torch.equal(first, second) if used == made else torch.allclose(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sort", ["memory", "both", "padded"])
def test_every_earlier_state_stays_valid(tiny, some_ids, mode, sort):
    """A chain of states over several overflows, and branches off each of them."""
    model = tiny()
    with MODES[mode]():
        state = states_of(model, some_ids)[sort]
        rows = rows_of(state)
        chain = [(state, held(state), [])]
        for step in range(20):
            output = model(some_ids(rows, 1, seed=step), past_key_values=state)
            chain[-1][2].append(output.logits)
            state = output.past_key_values
            chain.append((state, held(state), []))
        for step, (state, before, logits) in reversed(list(enumerate(chain[:-1]))):
            unchanged(state, before)
            model(some_ids(rows, 5, seed=100 + step), past_key_values=state)  # a branch that is thrown away
            again = model(some_ids(rows, 1, seed=step), past_key_values=state).logits
            assert_close(again, logits[0], rtol=0, atol=1e-6)


def test_switching_modes_within_a_chain(tiny, some_ids):
    model = tiny()
    logits = {}
    for order in (["no_grad"] * 6, ["inference", "no_grad", "grad", "inference", "grad", "no_grad"]):
        state, found = None, []
        for step, mode in enumerate(order):
            with MODES[mode]():
                output = model(some_ids(1, 9, seed=step), past_key_values=state)
            state = output.past_key_values
            found.append(output.logits.detach().clone())
        logits[tuple(order)] = torch.cat(found, dim=1)
    assert_close(*logits.values(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("made", ["no_grad", "inference"])
def test_gradients_from_a_state_outlive_its_growth(tiny, some_ids, made):
    """Backward runs after the same state has been gone on from in place."""
    model = tiny()
    ids = some_ids(1, 5)
    with MODES[made]():
        state = model(some_ids(1, 50)).past_key_values
        state = model(ids, past_key_values=state).past_key_values
    gradients = []
    for grown in (False, True):
        model.zero_grad()
        output = model(ids, labels=ids, past_key_values=state)
        if grown:
            with torch.no_grad():
                model(some_ids(1, 30), past_key_values=state)
                model(some_ids(1, 30), past_key_values=output.past_key_values)
        output.loss.backward()
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    for plain, after_growth in zip(*gradients, strict=True):
        assert torch.equal(plain, after_growth)


def test_generate_goes_on_from_what_it_returned(tiny, some_ids):
    """A conversation: the whole text so far is given again, and only what is new is read."""
    model = tiny()
    given = {"do_sample": False, "max_new_tokens": 20, "return_dict_in_generate": True}
    first = model.generate(some_ids(1, 20), **given)
    assert first.past_key_values.get_seq_length() == 39
    text = torch.cat((first.sequences, some_ids(1, 4, seed=1)), dim=1)
    lengths = []
    hook = model.model.layers[0].register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    second = model.generate(text, past_key_values=first.past_key_values, **given)
    hook.remove()
    assert lengths == [5] + [1] * 19
    # by hand: the last token made was not read yet
    state, ids, tokens = first.past_key_values, text[:, 39:], []
    with torch.no_grad():
        for _ in range(20):
            output = model(ids, past_key_values=state)
            state, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
            tokens.append(ids)
    assert torch.equal(second.sequences[:, 44:], torch.cat(tokens, dim=1))


@pytest.mark.parametrize("sort", ["memory", "window", "both"])
def test_tuples_of_longllama(tiny, some_ids, sort):
    """There and back; the tuples themselves are taken as a state too."""
    model = tiny(mem_layers=[1])
    state = states_of(model, some_ids)[sort]
    tuples = state.to_tuples()
    assert {len(layer) for layer in tuples} == {6}
    ids = some_ids(1, 12, seed=4)
    expected = model(ids, past_key_values=state).logits
    for same in (tuples, LongLlamaCache.from_tuples(tuples)):
        assert_close(model(ids, past_key_values=same).logits, expected, rtol=0, atol=1e-5)


def test_tuples_with_padding(tiny, some_ids):
    """In memory a mask tells it; in the window the caller's attention mask does, as in LongLLaMA's own code."""
    model = tiny(mem_layers=[1])
    ids, more = some_ids(2, 6), some_ids(2, 3, seed=1)
    mask = torch.tensor([[1] * 9, [0] * 2 + [1] * 7])
    state = model(ids, attention_mask=mask[:, :6]).past_key_values
    expected = model(more, attention_mask=mask, past_key_values=state).logits
    with pytest.raises(ValueError, match="which tokens of the window are padding"):
        state.to_tuples()
    state.keep = None
    tuples = state.to_tuples()
    assert_close(model(more, attention_mask=mask, past_key_values=tuples).logits, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="expected at least 9"):
        model(more, attention_mask=mask[:, 3:], past_key_values=tuples)
    # and in memory
    mask = torch.ones((2, 30), dtype=torch.long)
    mask[1, :5] = 0
    state = model(some_ids(2, 30), attention_mask=mask, use_cache=False).past_key_values
    tuples = state.to_tuples()
    assert (tuples[1][5] < 0).sum(dim=2).flatten().tolist() == [0, 5]
    expected = model(more, past_key_values=state).logits
    assert_close(model(more, past_key_values=tuples).logits, expected, rtol=0, atol=1e-5)


def test_rows_can_be_chosen(tiny, some_ids):
    model = tiny()
    for sort, state in states_of(model, some_ids).items():
        rows = torch.tensor([0, 0, 0]) if sort != "padded" else torch.tensor([1, 0, 1])
        more = some_ids(1, 30, seed=9).expand(3, -1)
        chosen = model(more, past_key_values=state.for_rows(rows)).logits
        for place, row in enumerate(rows.tolist()):
            alone = model(more[:1], past_key_values=state.for_rows(torch.tensor([row]))).logits
            assert_close(chosen[place : place + 1], alone, rtol=0, atol=1e-5)


def test_one_row_is_not_copied_for_many(tiny, some_ids):
    """What was read once stays one tensor, however many questions are asked and however long the answers get."""
    model = tiny()
    with torch.no_grad():
        state = model(some_ids(1, 50), use_cache=False).past_key_values
        output = model(some_ids(4, 3), past_key_values=state)
        assert output.past_key_values.layers[0].memory is state.layers[0].memory
        output = model(some_ids(4, 30), past_key_values=output.past_key_values)
        memory = output.past_key_values.for_rows(torch.tensor([3, 3])).layers[0].memory
    assert isinstance(memory, ChainedMemory)
    assert memory.first is state.layers[0].memory
    assert memory.second.rows == 2


def test_states_can_be_deep_copied(tiny, some_ids):
    """As transformers' users do with a prompt's cache."""
    model = tiny()
    with torch.no_grad():
        state = model(some_ids(1, 30)).past_key_values
        expected = model(some_ids(1, 3), past_key_values=state).logits
        assert torch.equal(model(some_ids(1, 3), past_key_values=copy.deepcopy(state)).logits, expected)


def test_what_generate_asks_a_cache(tiny, some_ids):
    state = tiny()(some_ids(1, 20)).past_key_values
    assert len(state) == 3
    assert state.get_seq_length() == state.get_query_offset() == 20
    assert not state.is_compileable
    assert not state.is_croppable  # on an Apple GPU generate asks for it
    assert state.is_initialized
    assert state.is_sliding == [False] * 3
    with pytest.raises(ValueError, match="cannot be cropped"):
        state.crop(-1)
    assert repr(state) == "LongLlamaCache(layers=3, window=8, memory=12)"


def test_empty_caches_are_taken_and_others_refused(tiny, some_ids):
    model = tiny()
    ids = some_ids(1, 10)
    expected = model(ids).logits
    cache = DynamicCache()
    for empty in (cache, LongLlamaCache([LayerState() for _ in range(3)])):
        assert torch.equal(model(ids, past_key_values=empty).logits, expected)
    cache.update(torch.zeros(1, 2, 4, 8), torch.zeros(1, 2, 4, 8), 0)
    with pytest.raises(ValueError, match="DynamicCache, expected a state that this model returned"):
        model(ids, past_key_values=cache)
    with pytest.raises(ValueError, match="2 layers, the model has 3"):
        model(ids, past_key_values=LongLlamaCache([LayerState(), LayerState()]))


def test_memory_of_other_rows_is_refused(tiny, some_ids):
    model = tiny()
    memory = DenseMemory.of(torch.zeros(2, 2, 5, 8), torch.zeros(2, 2, 5, 8))
    state = LongLlamaCache.of_memories({0: memory, 2: memory}, 3)
    assert model(some_ids(2, 4), past_key_values=state).past_key_values.memory_length == 5
    with pytest.raises(ValueError, match="memory in past_key_values has 2 rows, the input has 3"):
        model(some_ids(3, 4), past_key_values=state)
