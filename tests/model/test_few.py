"""Few queries over many keys are what one softmax gives, as near as a flash kernel comes to it."""

import pytest
import torch

from longfocus.model import few
from longfocus.model.attend import attend
from longfocus.model.few import LEAST, attend_few, suits

GROUPS, DIM, SCALE = 3, 16, 0.25


def laid_as_on_disk(tensor):
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def drawn(keys, queries=4, spread=1.0):
    chance = torch.Generator().manual_seed(keys)
    common = 3 * torch.randn(1, GROUPS, 1, DIM, generator=chance)  # what all keys of a head share
    query = spread * torch.randn(1, GROUPS, queries, DIM, generator=chance) - common / 2
    key = torch.randn(1, GROUPS, keys, DIM, generator=chance) + common
    value = torch.randn(1, GROUPS, keys, DIM, generator=chance)
    return query.bfloat16(), laid_as_on_disk(key.bfloat16()), laid_as_on_disk(value.bfloat16())


def exactly(query, key, value):
    scores = query.double() @ key.double().transpose(2, 3) * SCALE
    return scores.softmax(-1) @ value.double(), scores.logsumexp(-1)


@pytest.mark.parametrize("keys", [1024, 1500, 5000])
@pytest.mark.parametrize("spread", [0.5, 4.0])
@pytest.mark.parametrize("queries", [4, few.MOST // GROUPS])
def test_it_is_one_softmax(keys, spread, queries):
    given = drawn(keys, queries, spread)
    output, lse = attend_few(*given, SCALE)
    wanted, total = exactly(*given)
    assert output.dtype == torch.bfloat16
    assert (output - wanted).norm() < 0.005 * wanted.norm()
    # what decides lies up to 8 from the bound, where half a unit of bfloat16 is 2**-6
    assert (lse - total).abs().max() < 2**-6


def test_a_score_far_above_all_that_were_sampled():
    query, key, value = drawn(5000)
    key[0, :, 4321] = 40 * query[0, :, 0] / query[0, :, 0].norm(dim=-1, keepdim=True) ** 2 * 8
    output, lse = attend_few(query, key, value, SCALE)
    wanted, total = exactly(query, key, value)
    assert total.max() > few._FAR
    assert (output - wanted).norm() < 0.01 * wanted.norm()
    assert ((lse - total).abs() < 0.01 * total.abs() + 0.01).all()


def test_attention_takes_it_for_a_token_behind_a_book(monkeypatch):
    query, key, value = drawn(LEAST, queries=1)
    heads = torch.cat((query, query.flip(-1)), dim=2).view(1, 2 * GROUPS, 1, DIM)
    found, lse = attend(heads, key, value, scale=SCALE)
    monkeypatch.setattr(few, "LEAST", LEAST + 1)
    usual, total = attend(heads, key, value, scale=SCALE)
    assert not torch.equal(lse, total)
    torch.testing.assert_close(found, usual, rtol=0.02, atol=0.002)
    torch.testing.assert_close(lse, total, rtol=1e-3, atol=1e-3)


def test_what_it_is_not_for():
    query, key, value = drawn(LEAST, queries=4)
    assert suits(query, key, value)
    assert not suits(query.float(), key.float(), value.float())
    assert not suits(query, key.contiguous(), value)
    assert not suits(query.expand(2, -1, -1, -1), key, value)
    most = few.MOST // GROUPS
    assert suits(drawn(LEAST, queries=most)[0], key, value)
    assert not suits(drawn(LEAST, queries=most + 1)[0], key, value)
    assert not suits(query, key[:, :, 1:], value[:, :, 1:])
