"""Rows of a batch do not know of each other: each equals the same tokens alone, whatever padding stands where."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

ROPE = [
    {"rope_type": "default", "rope_theta": 1e4},
    {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
    {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 8},
    {
        "rope_type": "longrope",
        "factor": 2.0,
        "rope_theta": 1e4,
        "original_max_position_embeddings": 8,
        "short_factor": [1.0, 1.2, 1.4, 1.6],
        "long_factor": [2.0, 3.0, 4.0, 5.0],
    },
]
MASKS = st.integers(1, 40).flatmap(
    lambda length: st.lists(
        st.one_of(
            st.just([True] * length),
            st.just([False] * length),
            st.integers(0, length).map(lambda padding: [False] * padding + [True] * (length - padding)),
            st.integers(0, length).map(lambda padding: [True] * (length - padding) + [False] * padding),
            st.lists(st.booleans(), min_size=length, max_size=length),
        ),
        min_size=3,
        max_size=3,
    )
)
CALLS = st.lists(st.tuples(MASKS, st.sampled_from([1, 3, 8, 15, 16, 20]), st.booleans()), min_size=1, max_size=3)
FIELDS = st.fixed_dictionaries(
    {
        "window_overlap": st.sampled_from([0, 0, 1, 5, 8]),
        "sink_tokens": st.sampled_from([0, 0, 1, 3]),
        "window_length": st.sampled_from([12, 16, 24]),
        "max_position_embeddings": st.just(12),
        "mem_layers": st.sampled_from([[0, 2], [1], [0, 1, 2], []]),
        "mem_discount": st.sampled_from([0.0, 0.7]),
        "num_key_value_heads": st.sampled_from([1, 2, 4]),
        "rope_parameters": st.sampled_from(ROPE),
        "torch_attention": st.sampled_from([False, False, True]),
    }
)


@settings(max_examples=40, deadline=None)
@given(fields=FIELDS, calls=CALLS, gradients=st.booleans(), seed=st.integers(0, 99))
def test_each_row_equals_itself_alone(tiny, fields, calls, gradients, seed):
    model = tiny(**fields)
    draw = torch.Generator().manual_seed(seed)
    state, alone = None, [None] * 3
    with torch.set_grad_enabled(gradients):
        for rows, last, use_cache in calls:
            mask = torch.tensor(rows)
            ids = torch.randint(0, 61, mask.shape, generator=draw)
            window = 0 if state is None else state.window
            given_mask = torch.cat((torch.ones(3, window, dtype=torch.bool), mask), dim=1)
            how = {"last_context_length": last, "use_cache": use_cache or window > 0}
            output = model(ids, attention_mask=given_mask, past_key_values=state, **how)
            state = output.past_key_values
            assert torch.isfinite(output.logits).all()
            for row in range(3):
                if mask[row].any():
                    own = model(ids[row : row + 1, mask[row]], past_key_values=alone[row], **how)
                    alone[row] = own.past_key_values
                    assert_close(output.logits[row, mask[row]], own.logits[0], rtol=0, atol=1e-4)


def padded(rows, side="left"):
    length = max(map(len, rows))
    ids, mask = torch.zeros((2, len(rows), length), dtype=torch.long)
    for row, tokens in enumerate(rows):
        places = slice(length - len(tokens), None) if side == "left" else slice(None, len(tokens))
        ids[row, places], mask[row, places] = torch.tensor(tokens), 1
    return ids, mask


PROMPTS = [[5, 9, 3], list(range(1, 31)), list(range(10, 27)), [7]]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"last_context_length": 3},
        {"use_cache": False, "max_new_tokens": 12},
    ],
    ids=str,
)
@pytest.mark.parametrize(("overlap", "sinks"), [(0, 0), (5, 0), (5, 4)])
def test_generate(tiny, how, overlap, sinks):
    """Prompts of 1 to 30 tokens and 24 more each: every row overflows its window of 16 at places of its own."""
    model = tiny(window_overlap=overlap, sink_tokens=sinks)
    how = {"do_sample": False, "max_new_tokens": 24, **how}
    ids, mask = padded(PROMPTS)
    made = model.generate(ids, attention_mask=mask, **how)[:, ids.shape[1] :]
    count = how.get("num_return_sequences", 1)
    for row, prompt in enumerate(PROMPTS):
        alone = model.generate(torch.tensor([prompt]), **how)[:, len(prompt) :]
        assert torch.equal(made[row * count : (row + 1) * count], alone), f"row {row}"


def test_generate_with_an_end(tiny):
    """A row that ends early is filled up, and the others go on as if it were not there."""
    model = tiny()
    ids, mask = padded(PROMPTS)
    free = [model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=40) for prompt in PROMPTS]
    end = free[0][0, len(PROMPTS[0]) + 4].item()
    how = {"do_sample": False, "max_new_tokens": 40, "eos_token_id": end, "pad_token_id": 0}
    made = model.generate(ids, attention_mask=mask, **how)[:, ids.shape[1] :]
    ends = []
    for row, prompt in enumerate(PROMPTS):
        alone = model.generate(torch.tensor([prompt]), **how)[0, len(prompt) :]
        ends.append(len(alone))
        assert torch.equal(made[row, : len(alone)], alone), f"row {row}"
        assert not made[row, len(alone) :].any()
    assert min(ends) <= 5 < max(ends)


def test_questions_to_one_memory(tiny, some_ids):
    """A text read in one row serves a batch of unequal questions."""
    model = tiny()
    state = model(some_ids(1, 50), use_cache=False).past_key_values
    ids, mask = padded(PROMPTS)
    for beams in (1, 2):
        how = {"do_sample": False, "max_new_tokens": 30, "num_beams": beams}
        made = model.generate(ids, attention_mask=mask, past_key_values=state, **how)[:, ids.shape[1] :]
        for row, prompt in enumerate(PROMPTS):
            alone = model.generate(torch.tensor([prompt]), past_key_values=state, **how)[:, len(prompt) :]
            assert torch.equal(made[row : row + 1], alone), f"row {row}, {beams} beams"


@pytest.mark.parametrize("side", ["left", "right"])
def test_hidden_states_and_attention(tiny, side):
    """Layer by layer; weights of padding are zero, and those of a token sum to one."""
    model = tiny(last_context_length=40)
    ids, mask = padded([PROMPTS[0], PROMPTS[2][:16]], side)
    together = model(ids, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    alone = model(torch.tensor([PROMPTS[0]]), output_hidden_states=True, output_attentions=True)
    here = mask[0].bool()
    assert len(together.hidden_states) == 4
    for both, one in zip(together.hidden_states, alone.hidden_states, strict=True):
        assert_close(both[0, here], one[0], rtol=0, atol=1e-5)
    for both, one in zip(together.attentions, alone.attentions, strict=True):
        assert both.shape == (2, 4, 16, 16)
        weights = both[0, :, -3:]  # rows are laid out with their tokens at the right
        assert_close(weights[..., -3:], one[0], rtol=0, atol=1e-5)
        assert not weights[..., :-3].any()


def test_padding_is_counted_out_of_the_window(tiny):
    """Sizes: each row keeps its own last 8 tokens, and memory tells padding from entries."""
    model = tiny()
    ids, mask = padded([list(range(1, 31)), list(range(1, 13))])
    state = model(ids, attention_mask=mask).past_key_values
    assert state.live() == 8
    assert state.layers[0].memory.entries().keep.sum(dim=1).tolist() == [22, 4]
