"""How the next token is chosen is what was asked for, whatever a checkpoint's files say."""

import pytest

from longfocus.asking.generation import COLDEST, Sampling, Written, write
from longfocus.loading.prompts import encode_text
from longfocus.model.cache import LongLlamaCache
from tests.conftest import story


def written(loaded, penalty=1.05, temperature=0.0):
    state = LongLlamaCache.of_memories({}, loaded.model.config.num_hidden_layers)
    ids = encode_text(loaded.tokenizer, story(5))
    *_, last = write(
        loaded.model, loaded.tokenizer, ids, state, Sampling(12, temperature, repetition_penalty=penalty, seed=1)
    )
    assert isinstance(last, Written)
    return last.ids


def test_a_checkpoints_own_penalty_does_not_count(tiny_model, monkeypatch):
    plain, penalised = written(tiny_model, 1.0), written(tiny_model, 5.0)
    assert plain != penalised
    monkeypatch.setattr(tiny_model.model.generation_config, "repetition_penalty", 5.0)
    assert written(tiny_model, 1.0) == plain


@pytest.mark.parametrize("temperature", [5e-324, 1e-40, 1e-6, COLDEST / 2, COLDEST])
def test_next_to_no_temperature_is_none(tiny_model, temperature):
    """Scores divided by so little are no numbers any more."""
    assert written(tiny_model, temperature=temperature) == written(tiny_model)
