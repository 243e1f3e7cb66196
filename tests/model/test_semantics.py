"""The model against a slow and obvious one: for each token, the list of tokens that it sees, and where they stand."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from longfocus.model.rope import RotaryEmbedding, rotate


class Obvious:
    """One row of text, read in any number of calls; `seen` says what each token attends to.

    The rules: a call is cut in windows of W - sinks - overlap tokens and a last one of `last_context_length`. What does
    not fit beside a window makes all tokens but the `sinks` first and the `overlap` last ones leave it, and so does the
    end of each window but the last when the call began with an empty window. What leaves goes to memory. Tokens in the
    window stand side by side.
    """

    def __init__(self, model):
        self.model = model
        self.window = model.config.window
        self.overlap = model.config.window_overlap
        self.sinks = model.config.sink_tokens
        self.ids, self.seen = [], []
        self.local, self.memory = [], []

    def read(self, ids, last, use_cache=True):
        began_empty = not self.local
        before = max(len(ids) - last, 0)
        borders = sorted({*range(0, before, self.window - self.sinks - self.overlap), before, len(ids)})
        for start, stop in pairwise(borders):
            if len(self.local) + stop - start > self.window:
                self.leave(self.sinks, min(self.overlap, max(self.window - self.sinks - (stop - start), 0)))
            for token in ids[start:stop]:
                self.local.append(len(self.ids))
                self.ids.append(token)
                self.seen.append((list(self.local), list(self.memory)))
            if stop < len(ids) and began_empty:
                self.leave(self.sinks, self.overlap)
        if not use_cache:
            self.leave(0, 0)

    def leave(self, first, last):
        leaving = self.local[first : max(len(self.local) - last, first)]
        self.memory += leaving
        self.local = [token for token in self.local if token not in leaving]

    @torch.no_grad()
    def logits(self):
        model, config = self.model.model, self.model.config
        states = model.embed_tokens(torch.tensor(self.ids))
        for index, block in enumerate(model.layers):
            normed = block.input_layernorm(states)
            mixed = torch.stack(
                [self.attended(block.self_attn, index, normed, token) for token in range(len(self.ids))]
            )
            states = states + block.self_attn.o_proj(mixed)
            states = states + block.mlp(block.post_attention_layernorm(states))
        assert config.num_hidden_layers == len(model.layers)
        return self.model.lm_head(model.norm(states))

    def attended(self, attention, index, normed, token):
        config = self.model.config
        local, memory = self.seen[token]
        if index not in config.mem_layers:
            memory = []
        turned = config.mem_positionals or index not in config.mem_layers
        keys = [self.turn(self.key(attention, normed[one]), place, turned) for place, one in enumerate(local)]
        keys += [self.turn(self.key(attention, normed[one]), 0, turned) for one in memory]
        values = [self.heads(attention.v_proj, normed[one]) for one in [*local, *memory]]
        query = self.heads(attention.q_proj, normed[token])
        if config.qk_norm:
            query = attention.q_norm(query)
        query = self.turn(query, len(local) - 1, turned)
        shared = config.num_attention_heads // config.num_key_value_heads
        outputs = []
        for head in range(config.num_attention_heads):
            scores = torch.stack([query[head] @ key[head // shared] for key in keys]) * config.head_dim**-0.5
            scores[len(local) :] -= config.mem_discount * math.log(max(len(memory) / config.window, 1))
            weights = scores.softmax(0)
            outputs.append(sum(weight * value[head // shared] for weight, value in zip(weights, values, strict=True)))
        return torch.cat(outputs)

    def key(self, attention, normed):
        key = self.heads(attention.k_proj, normed)
        return attention.k_norm(key) if self.model.config.qk_norm else key

    def heads(self, projection, normed):
        return projection(normed).view(-1, self.model.config.head_dim)

    def turn(self, heads, place, turned):
        if not turned:
            return heads
        cosines, sines = RotaryEmbedding(self.model.config)(torch.tensor([[place]]), torch.float32)
        return rotate(heads[None, :, None], cosines, sines)[0, :, 0]


CALLS = st.lists(
    st.tuples(st.integers(1, 25), st.sampled_from([1, 3, 8, 15, 16, 20]), st.booleans()), min_size=1, max_size=3
)
FIELDS = st.fixed_dictionaries(
    {
        "window_overlap": st.sampled_from([0, 0, 1, 5, 8, 12]),
        "sink_tokens": st.sampled_from([0, 0, 1, 3]),
        "mem_layers": st.sampled_from([[1], [0, 1], []]),
        "mem_discount": st.sampled_from([0.0, 0.5, 2.0]),
        "mem_positionals": st.sampled_from([True, True, False]),
        "qk_norm": st.booleans(),
        "attention_bias": st.booleans(),
        "num_key_value_heads": st.sampled_from([1, 2, 4]),
        "rope_parameters": st.sampled_from(
            [
                {"rope_type": "default", "rope_theta": 1e4},
                {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4, "rope_theta": 1e4},
            ]
        ),
    }
)


def compare(model, calls, seed):
    """Read texts of these lengths, one after the other, in both; a state with a window must go on with use_cache."""
    slow, state, logits = Obvious(model), None, []
    draw = torch.Generator().manual_seed(seed)
    for length, last, use_cache in calls:
        use_cache = use_cache or bool(slow.local)
        ids = torch.randint(1, 61, (1, length), generator=draw)
        slow.read(ids[0].tolist(), last, use_cache)
        output = model(ids, past_key_values=state, last_context_length=last, use_cache=use_cache)
        state = output.past_key_values
        logits.append(output.logits[0].detach())
        assert state.window == len(slow.local)
        assert state.memory_length == (len(slow.memory) if model.config.mem_layers else 0)
    assert_close(torch.cat(logits), slow.logits(), rtol=0, atol=1e-4)


@settings(max_examples=12, deadline=None)
@given(fields=FIELDS, calls=CALLS, seed=st.integers(0, 99))
@pytest.mark.parametrize("gradients", [True, False])
def test_every_token_sees_what_the_rules_say(tiny, gradients, fields, calls, seed):
    model = tiny(num_hidden_layers=2, **fields)
    with torch.set_grad_enabled(gradients):
        compare(model, calls, seed)


@pytest.mark.parametrize(("overlap", "sinks"), [(0, 0), (1, 0), (6, 0), (15, 0), (0, 4), (6, 4), (11, 4), (0, 15)])
@pytest.mark.parametrize("gradients", [True, False])
def test_token_by_token_over_overflows(tiny, overlap, sinks, gradients):
    model = tiny(num_hidden_layers=2, mem_layers=[1], window_overlap=overlap, sink_tokens=sinks)
    with torch.set_grad_enabled(gradients):
        compare(model, [(20, 8, True), *[(1, 8, True)] * 20], seed=3)


def test_windows_with_overlap(tiny):
    """In numbers: a window of 16 whose last 6 tokens stay, 40 tokens, the last 8 of them in the last window."""
    slow = Obvious(tiny(window_overlap=6))
    slow.read(list(range(40)), last=8)
    # 10 new tokens a window: 0-9, 10-19, 20-29, 30-31, and then the last 8
    starts = {token: local[0] for token, (local, _) in enumerate(slow.seen)}
    assert [starts[token] for token in (0, 9, 10, 19, 20, 29, 30, 31, 32, 39)] == [0, 0, 4, 4, 14, 14, 24, 24, 26, 26]
    for local, memory in slow.seen:
        assert memory + local == list(range(local[-1] + 1)), "each earlier token is seen once"
