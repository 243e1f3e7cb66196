"""What every memory must do, run over each of them.

A memory is added by one line in MEMORIES: a function from entries (keys and values [B, G, N, D], keep [B, N] or None)
to a memory that holds them. One that rounds what it is given is held to attend exactly to what it then has, and to have
rounded by no more than its step. Shapes: B batch, H query heads, G key heads, T queries, N entries, D head_dim.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from longfocus.memory.disk import DiskMemory, PackedDiskMemory
from longfocus.memory.held import held_by
from longfocus.memory.int8 import Int8Memory, centre_of, pack
from longfocus.memory.recent import RecentMemory
from longfocus.memory.top_k import TopKMemory
from longfocus.model.attend import attend, merge
from longfocus.model.memory import ChainedMemory, DenseMemory, Memory

HEADS, GROUPS, DIM, SCALE = 4, 2, 8, 0.4


def chained(keys: Tensor, values: Tensor, keep: Tensor | None) -> Memory:
    """A first memory that is only read, and one behind it that grew by the last third of the entries."""
    count = keys.shape[2] - keys.shape[2] // 3
    split = [(tensor[:, :, :count], tensor[:, :, count:]) for tensor in (keys, values)]
    masks = (None, None) if keep is None else (keep[:, :count], keep[:, count:])
    first = DenseMemory.of(split[0][0], split[1][0], masks[0])
    return ChainedMemory(first).append(split[0][1], split[1][1], masks[1])


def grown(keys: Tensor, values: Tensor, keep: Tensor | None) -> Memory:
    """A dense memory that was filled bit by bit; a short one, entry by entry."""
    memory: Memory = DenseMemory.of(keys[:, :, :0], values[:, :, :0], None if keep is None else keep[:, :0])
    step = 1 + keys.shape[2] // 50
    for place in range(0, keys.shape[2], step):
        here = slice(place, place + step)
        memory = memory.append(keys[:, :, here], values[:, :, here], None if keep is None else keep[:, here])
    return memory


def reordered(keys: Tensor, values: Tensor, keep: Tensor | None) -> Memory:
    """Rows of a dense memory that holds them backwards, with one more between."""
    rows = torch.tensor([*range(keys.shape[0] - 1, -1, -1), 0])
    held = [None if tensor is None else tensor[rows] for tensor in (keys, values, keep)]
    assert held[0] is not None and held[1] is not None
    return DenseMemory.of(held[0], held[1], held[2]).select(rows[:-1])


def grown_packed(keys: Tensor, values: Tensor, keep: Tensor | None) -> Memory:
    """A packed memory that began empty; its centre is that of the first entries that came."""
    memory: Memory = Int8Memory.of(keys[:, :, :0], values[:, :, :0], None if keep is None else keep[:, :0])
    step = 1 + keys.shape[2] // 3
    for place in range(0, keys.shape[2], step):
        here = slice(place, place + step)
        memory = memory.append(keys[:, :, here], values[:, :, here], None if keep is None else keep[:, here])
    return memory


def packed_on_disk(keys: Tensor, values: Tensor, keep: Tensor | None) -> Memory:
    """What a packed Book's memory is; it hides nothing."""
    centre = centre_of(keys)
    assert centre is not None
    return PackedDiskMemory.of(pack(keys, centre), pack(values), keys.shape[1], centre)


MEMORIES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Memory]] = {
    "dense": DenseMemory.of,
    "dense, grown": grown,
    "rows of another": reordered,
    "chained": chained,
    "chained, nothing behind": lambda *entries: ChainedMemory(DenseMemory.of(*entries)),
    "recent, all of it": lambda *entries: RecentMemory(DenseMemory.of(*entries), None),
    "int8": Int8Memory.of,
    "int8, grown": grown_packed,
    "int8, recent": lambda *entries: RecentMemory(Int8Memory.of(*entries), None),
}
ONE_ROW: dict[str, Callable[[Tensor, Tensor, Tensor | None], Memory]] = {
    "on disk": lambda keys, values, keep: DiskMemory(keys, values),
    "on disk, int8": packed_on_disk,
    "the best, all of them": lambda *entries: TopKMemory(DenseMemory.of(*entries), 10**6),
    "the best, all of them, int8": lambda *entries: TopKMemory(Int8Memory.of(*entries), 10**6),
}
HIDES_NOTHING = ("on disk", "on disk, int8")
MODES = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


@pytest.fixture(params=MEMORIES)
def make(request):
    return MEMORIES[request.param]


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def some(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def some_keep(rows, count, seed=0):
    return torch.rand((rows, count), generator=torch.Generator().manual_seed(seed)) > 0.4


def some_entries(rows=2, count=9, seed=0, masked=False):
    keep = some_keep(rows, count, seed) if masked else None
    return some(rows, GROUPS, count, DIM, seed=seed), some(rows, GROUPS, count, DIM, seed=seed + 100), keep


def plain(query, keys, values, keep):
    """One softmax, in double precision; zeros and -inf for a query that sees nothing."""
    rows = max(query.shape[0], keys.shape[0])
    keys, values = (
        tensor.double().expand(rows, -1, -1, -1).repeat_interleave(HEADS // GROUPS, 1) for tensor in (keys, values)
    )
    scores = query.double() @ keys.mT * SCALE
    if keep is not None:
        scores = scores.masked_fill(~keep[:, None, None], float("-inf"))
    return torch.softmax(scores, -1).nan_to_num(0) @ values, torch.logsumexp(scores, -1)


def rounds(memory):
    """Whether a memory, or a part of it, keeps its entries packed."""
    parts = [getattr(memory, name, None) for name in ("first", "second", "inner", "_inner")]
    return isinstance(memory, Int8Memory | PackedDiskMemory) or any(rounds(part) for part in parts if part is not None)


def as_held(memory, keys, values, keep):
    """The entries as the memory has them, which may differ from these by the rounding of packed numbers."""
    found = memory.entries()
    if not keys.shape[2]:
        return keys, values, keep
    for there, were in ((found.keys, keys), (found.values, values)):
        # a step is a 127th of the largest number of its head, which a centre may have doubled
        step = 2 * were.float().abs().amax() / 127 if rounds(memory) else 0.0
        assert_close(there.float(), were.float(), rtol=0, atol=0.57 * float(step))
    return found.keys, found.values, keep


def holds(memory, keys, values, keep, atol=2e-5):
    """That a memory consists of these entries, by everything that it can be asked."""
    assert len(memory) == keys.shape[2]
    assert memory.rows == keys.shape[0]
    counts = torch.as_tensor(memory.counted()).expand(keys.shape[0])
    assert counts.tolist() == ([keys.shape[2]] * keys.shape[0] if keep is None else keep.sum(1).tolist())
    found = memory.entries()
    keys, values, keep = as_held(memory, keys, values, keep)
    if keys.shape[2]:
        assert torch.equal(
            found.keep if found.keep is not None else torch.ones_like(keys[:, 0, :, 0], dtype=torch.bool),
            keep if keep is not None else torch.ones_like(keys[:, 0, :, 0], dtype=torch.bool),
        )
    query = some(keys.shape[0], HEADS, 3, DIM, seed=7)
    for found, expected in zip(memory.attend(query, SCALE), plain(query, keys, values, keep), strict=True):
        assert found.dtype == torch.float32
        assert_close(found.double(), expected, rtol=0, atol=atol)


def joined(*several):
    """Entries one behind the other."""
    keep = None
    if any(entries[2] is not None for entries in several):
        keep = torch.cat(
            [
                mask if mask is not None else torch.ones_like(keys[:, 0, :, 0], dtype=torch.bool)
                for keys, _, mask in several
            ],
            dim=1,
        )
    return (*(torch.cat([entries[part] for entries in several], dim=2) for part in (0, 1)), keep)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 3),
    count=st.integers(1, 40),
    queries=st.integers(1, 4),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("name", MEMORIES)
def test_attention_is_one_softmax(name, rows, count, queries, masked, seed):
    entries = some_entries(rows, count, seed, masked)
    query = some(rows, HEADS, queries, DIM, seed=seed + 1)
    with torch.no_grad():
        memory = MEMORIES[name](*entries)
        output, lse = memory.attend(query, SCALE)
    expected = plain(query, *as_held(memory, *entries))
    assert_close(output.double(), expected[0], rtol=0, atol=2e-5)
    assert_close(lse.double(), expected[1], rtol=0, atol=2e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
def test_holds_what_it_was_made_of(make, rows, masked):
    entries = some_entries(rows, masked=masked)
    holds(make(*entries), *entries)


@pytest.mark.parametrize("masked", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("rows", [1, 3])
def test_append(make, rows, masked):
    before, new = (some_entries(rows, 9, seed, mask) for seed, mask in enumerate(masked))
    memory = make(*before)
    longer = memory.append(*new)
    holds(longer, *joined(before, new))
    holds(memory, *before)


@pytest.mark.parametrize("mode", MODES)
def test_every_version_stays_as_it_was(make, mode):
    """Also those from which several others grew."""
    with MODES[mode]():
        start = some_entries(2, 5)
        first = make(*start)
        versions = [(first, start, first.entries().keys.clone())]
        for step in range(30):
            memory, entries, _ = versions[step * 7 % len(versions)] if step % 3 == 0 else versions[-1]
            new = some_entries(2, 1 + step % 4, seed=step, masked=step > 20)
            longer = memory.append(*new)
            versions.append((longer, joined(entries, new), longer.entries().keys.clone()))
        for memory, entries, keys in versions:
            holds(memory, *entries)
            assert torch.equal(memory.entries().keys, keys)


def test_growing_in_one_mode_then_in_another(make):
    entries = some_entries()
    memory = make(*entries)
    for step, mode in enumerate(["inference", "no_grad", "grad", "inference", "grad", "no_grad"]):
        with MODES[mode]():
            new = some_entries(seed=step)
            memory, entries = memory.append(*new), joined(entries, new)
            holds(memory, *entries)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows", [[1], [2, 0], [0, 0, 1, 2]])
def test_rows_can_be_chosen(make, rows, masked):
    entries, rows = some_entries(3, masked=masked), torch.tensor(rows)
    memory = make(*entries)
    chosen = tuple(None if tensor is None else tensor[rows] for tensor in entries)
    holds(memory.select(rows), *chosen)
    new = some_entries(len(rows), 4, seed=5, masked=masked)
    holds(memory.select(rows).append(*new), *joined(chosen, new))
    holds(memory, *entries)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", [*MEMORIES, *ONE_ROW])
def test_one_row_serves_many(name, masked):
    if masked and name in HIDES_NOTHING:
        return
    entries = some_entries(1, 30, masked=masked)
    memory = {**MEMORIES, **ONE_ROW}[name](*entries)
    query = some(5, HEADS, 3, DIM)
    wanted = plain(query, *as_held(memory, *entries))
    for found, expected in zip(memory.attend(query, SCALE), wanted, strict=True):
        assert_close(found.double(), expected, rtol=0, atol=2e-5)
    # what each then adds is its own
    new = some_entries(5, 4, seed=1, masked=masked)
    longer = memory.append(*new)
    expanded = tuple(None if tensor is None else tensor.expand(5, *tensor.shape[1:]) for tensor in entries)
    holds(longer, *joined(expanded, new))
    holds(longer.append(*new), *joined(expanded, new, new))
    rows = torch.tensor([4, 4, 0])
    holds(longer.select(rows), *(None if tensor is None else tensor[rows] for tensor in joined(expanded, new)))
    holds(memory, *entries)


def test_rows_that_do_not_fit(make):
    with pytest.raises(ValueError, match="rows"):
        make(*some_entries(2)).append(*some_entries(3))


def test_empty(make):
    """A memory of no entries counts for nothing, and can grow."""
    nothing, new = some_entries(2, 0), some_entries(2, 4, seed=1)
    memory = make(*nothing)
    assert len(memory) == 0
    query = some(2, HEADS, 3, DIM)
    output, lse = memory.attend(query, SCALE)
    assert not output.any()
    assert (lse == float("-inf")).all()
    holds(memory.append(*new), *new)


def test_a_row_that_is_all_padding(make):
    keys, values, keep = some_entries(2, masked=True)
    keep[1] = False
    output, lse = make(keys, values, keep).attend(some(2, HEADS, 3, DIM), SCALE)
    assert not output[1].any()
    assert (lse[1] == float("-inf")).all()
    assert torch.isfinite(lse[0]).all()


@pytest.mark.parametrize("masked", [False, True])
def test_window_and_memory_are_one_softmax(make, masked):
    memory_entries, window_entries = some_entries(2, 20, masked=masked), some_entries(2, 6, seed=3)
    query = some(2, HEADS, 6, DIM)
    window = attend(query, *window_entries[:2], scale=SCALE)
    memory = make(*memory_entries)
    output, lse = merge([window, memory.attend(query, SCALE)])
    expected = plain(query, *joined(as_held(memory, *memory_entries), window_entries))
    assert_close(output.double(), expected[0], rtol=0, atol=2e-5)
    assert_close(lse.double(), expected[1], rtol=0, atol=2e-5)
    memory.attended(query, SCALE, lse)  # which must not change what it holds
    holds(memory, *memory_entries)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("count", [9, 5000])
def test_entries_of_another_dtype(make, dtype, count):
    """The entries are rounded once, when they are stored; attention has the query's precision and dtype."""
    keys, values, _ = some_entries(2, count)
    keys, values = keys.to(dtype), values.to(dtype)
    memory = make(keys, values, None)
    assert memory.entries().keys.dtype == memory.entries().values.dtype == (torch.float32 if rounds(memory) else dtype)
    holds(memory, keys, values, None)
    keys, values, _ = as_held(memory, keys, values, None)
    query = some(2, HEADS, 3, DIM).bfloat16()
    output, lse = memory.attend(query, SCALE)
    assert output.dtype == torch.bfloat16
    assert lse.dtype == torch.float32
    assert_close(output.double(), plain(query, keys, values, None)[0], rtol=0, atol=3e-2)


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), start=st.integers(0, 40), stop=st.integers(0, 40), seed=st.integers(0, 99))
@pytest.mark.parametrize("name", [*MEMORIES, *ONE_ROW])
def test_entries_can_be_used_a_part_at_a_time(name, count, start, stop, seed):
    """What chooses among entries asks for a stretch of keys, for single entries, and for all products."""
    start, stop = min(start, stop, count), min(max(start, stop), count)
    with torch.no_grad():
        memory = {**MEMORIES, **ONE_ROW}[name](*some_entries(1, count, seed))
        held, (keys, values, _) = held_by(memory), memory.entries()
        assert (len(held), held.heads) == (len(memory), GROUPS)
        assert_close(held.keys(start, stop), keys[:, :, start:stop], rtol=0, atol=1e-6)
        places = torch.arange(count).roll(seed)[: 1 + start].expand(GROUPS, 2, -1)
        for pick, whole in ((held.picked_keys, keys), (held.picked_values, values)):
            picked = pick(places)
            assert_close(picked, whole[0][:, places[0, 0]][:, None].expand_as(picked), rtol=0, atol=1e-6)
        query = some(GROUPS, 3, DIM, seed=seed)
        products = held.scores(query).view(-1, GROUPS, 3)
        expected = torch.einsum("grd,gnd->ngr", query, keys[0])
        # they are told up to a constant for each query
        assert_close(products - products[0], expected - expected[0], rtol=0, atol=2e-5)
        query = some(1, HEADS, 2, DIM, seed=seed)
        wanted = plain(query, keys[:, :, start:], values[:, :, start:], None)
        for found, expected in zip(held.attend(query, SCALE, start), wanted, strict=True):
            assert_close(found.double(), expected, rtol=0, atol=2e-5)
