"""The kinds of approximate index, made by Faiss (Johnson et al., "Billion-scale similarity search with GPUs", 2017).

An index holds the keys of one head in 8-bit numbers, and finds those with the largest products with a query. Keys are
centred first: they share a large offset, which a softmax does not see but a search is misled by. The scores of what is
found are worked out from the true keys, so an index decides what is seen and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from longfocus.errors import RequestError
from longfocus.memory.held import Held

_NEIGHBOURS = 32  # of an entry in the graph
_BUILD_EFFORT = 80
SEARCH_EFFORT = 256
"""Candidates that a search of the graph keeps: recall against time, see docs/memories.md."""
_SEARCHED = 8  # of so many lists one is searched
_TRAINED_ON = 39  # entries to a list below which Faiss warns that there are too few
_CHUNK = 1 << 16  # entries laid out at a time while an index is built


def faiss_library() -> Any:
    """Faiss, with as many threads as torch; each brings its own and they would get into each other's way.

    Raises:
        RequestError: It is not installed.
    """
    try:
        faiss = import_module("faiss")
    except ImportError:
        raise RequestError(
            "an approximate index needs Faiss, which is not installed: pip install 'longfocus[search]'"
        ) from None
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def _graph(faiss: Any, dim: int, entries: int) -> Any:
    """A graph whose edges are followed towards larger products: time grows with the logarithm of the entries."""
    index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _BUILD_EFFORT
    index.hnsw.efSearch = SEARCH_EFFORT
    return index


def _lists(faiss: Any, dim: int, entries: int) -> Any:
    """Lists of entries around centres, of which the nearest are searched: small, and quick to build."""
    lists = max(min(int(entries**0.5), entries // _TRAINED_ON), 1)
    coarse = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFScalarQuantizer(coarse, dim, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.nprobe = -(-lists // _SEARCHED)
    return index


def _flat(faiss: Any, dim: int, entries: int) -> Any:
    """All keys, in 8-bit numbers: nothing is missed but by rounding."""
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)


INDEX_KINDS: dict[str, Callable[[Any, int, int], Any]] = {"hnsw": _graph, "ivf": _lists, "sq8": _flat}
"""By name: a function from Faiss, head_dim and the number of entries to an empty index."""


def check_kind(kind: str) -> None:
    """Refuse a kind that cannot be built.

    Raises:
        RequestError: There is no such index, or Faiss is not installed.
    """
    if kind not in INDEX_KINDS:
        raise RequestError(f"there is no index {kind!r}; choose one of {', '.join(INDEX_KINDS)}")
    faiss_library()


def build_head(kind: str, held: Held, head: int) -> Any:
    """An index of this kind over the keys of one head."""
    faiss = faiss_library()
    count = len(held)
    total = sum(chunk.double().sum(dim=0) for chunk in _chunks(held, head))
    assert isinstance(total, Tensor)
    centre = (total / count).float()
    index = INDEX_KINDS[kind](faiss, len(centre), count)
    # a sample from all over the document; the kinds need no more to know the range of the numbers
    stride = max(count // _CHUNK, 1)
    index.train(torch.cat([chunk[::stride] for chunk in _chunks(held, head)]).sub_(centre).numpy())
    for chunk in _chunks(held, head):
        index.add((chunk - centre).numpy())
    return index


def _chunks(held: Held, head: int) -> Iterator[Tensor]:
    """Keys of one head, [n, D] in float32."""
    for start in range(0, len(held), _CHUNK):
        yield held.keys(start, min(start + _CHUNK, len(held)))[0, head].float().contiguous()
