"""Batches by number: an epoch takes every row once in an order of its own; any batch may be asked for at any time."""

import pytest
import torch

from longfocus.errors import RequestError
from longfocus.training.batches import BorderedBatches, Interleaved, RowBatches


class Numbers:
    """Ten rows, each of its own number and the epoch."""

    epoch = -1

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return {"input_ids": torch.tensor([index, self.epoch])}

    def set_epoch(self, epoch):
        self.epoch = epoch


def batches(rows_each=4, seed=0, count=10):
    return RowBatches(
        Numbers(),
        lambda rows: {"ids": torch.stack([row["input_ids"] for row in rows])},
        rows_each=rows_each,
        batches=count,
        seed=seed,
    )


def test_every_epoch_has_every_row_once_in_an_order_of_its_own():
    found = torch.cat([batch["ids"] for batch in batches()])
    epochs = found.view(4, 10, 2)
    for number, epoch in enumerate(epochs):
        assert sorted(epoch[:, 0].tolist()) == list(range(10))
        assert set(epoch[:, 1].tolist()) == {number}
    orders = {tuple(epoch[:, 0].tolist()) for epoch in epochs}
    assert len(orders) == 4
    assert tuple(range(10)) not in orders


def test_a_batch_is_the_same_whenever_it_is_asked_for():
    """Also the one that has rows of two epochs."""
    whole = [batch["ids"] for batch in batches()]
    data = batches()
    for number in (7, 2, 9, 2, 0):
        assert torch.equal(data[number]["ids"], whole[number])
    assert set(whole[2][:, 1].tolist()) == {0, 1}
    assert not torch.equal(batches(seed=1)[0]["ids"], whole[0])
    assert torch.equal(torch.cat([batch["ids"] for batch in batches(rows_each=8, count=5)]), torch.cat(whole))


def test_numbers_that_there_are_not():
    assert len(batches()) == 10
    for number in (-1, 10):
        with pytest.raises(IndexError, match="of 10"):
            batches()[number]
    with pytest.raises(RequestError, match="batches of 0 rows of 10"):
        batches(rows_each=0)


def test_borders_are_drawn_by_number():
    data = BorderedBatches(batches(count=300), 8)
    drawn = [int(data[number]["last_context_length"]) for number in range(len(data))]
    assert set(drawn) == set(range(1, 9))
    assert drawn == [int(batch["last_context_length"]) for batch in BorderedBatches(batches(count=300), 8)]
    assert torch.equal(data[3]["ids"], batches()[3]["ids"])


def test_two_sets_among_each_other():
    """Each in its own order, none left out; the seed says how they mix."""
    few, many = list("abc"), list(range(9))

    def order(seed):
        return [*Interleaved(few, many, seed)]

    assert len(Interleaved(few, many, 1)) == 12
    for seed in range(3):
        assert [item for item in order(seed) if isinstance(item, str)] == few
        assert [item for item in order(seed) if isinstance(item, int)] == many
    assert order(1) == order(1)
    assert len({tuple(map(str, order(seed))) for seed in range(3)}) == 3
    assert [Interleaved(few, many, 1)[number] for number in (5, 2)] == [order(1)[5], order(1)[2]]
    with pytest.raises(IndexError):
        Interleaved(few, many, 1)[12]
