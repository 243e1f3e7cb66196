"""Ways to find the chunks of a text that belong to a question: by its words, or by the nearness of embeddings."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from longfocus.errors import RequestError
from longfocus.loading.cache import sha256_of


class Index(Protocol):
    """Texts that can be searched."""

    def best(self, query: str, most: int) -> list[tuple[int, float]]:
        """Numbers and scores of the texts that fit best, best first; at most so many, and fewer if there are fewer."""
        ...


class Retriever(Protocol):
    """A way to search texts.

    Attributes:
        name: For people.
        identity: The same for the same weights and settings.
    """

    name: str
    identity: str

    def index(self, texts: Sequence[str]) -> Index:
        """Make one or more texts ready to be searched."""
        ...


class Bm25:
    """By words, the rare ones most (Robertson et al., 1994), as the package bm25s has it.

    Words are put in lower case, English stop words are left out, nothing is stemmed.

    Raises:
        RequestError: bm25s is not installed.
    """

    name = "bm25"

    def __init__(self) -> None:
        if importlib.util.find_spec("bm25s") is None:
            raise RequestError("retrieval by words needs the package bm25s: pip install longfocus[eval]")
        self.identity = "bm25 lucene k1=1.5 b=0.75 en"

    def index(self, texts: Sequence[str]) -> Index:
        """See `Retriever.index`."""
        return _Words(texts)


class _Words:
    def __init__(self, texts: Sequence[str]) -> None:
        import bm25s

        self._tokens = bm25s.tokenize
        self._count = len(texts)
        self._index = bm25s.BM25(k1=1.5, b=0.75, method="lucene", backend="numpy")
        found = self._split(list(texts))
        self._empty = not any(found)  # no text has a word
        if not self._empty:
            self._index.index(found, show_progress=False)

    def _split(self, texts: list[str]) -> list[list[str]]:
        words: list[list[str]] = self._tokens(texts, stopwords="en", return_ids=False, show_progress=False)
        return words

    def best(self, query: str, most: int) -> list[tuple[int, float]]:
        """See `Index.best`; where no word of the query is known, the first texts."""
        known = [] if self._empty else self._index.get_tokens_ids(self._split([query])[0])
        scores = self._index.get_scores_from_ids(known) if known else np.zeros(self._count)
        return _best(scores, most)


class Dense:
    """By the cosine between embeddings of query and text.

    Args:
        embedder: Has `encode`, from a list of texts to an array [texts, features], and may have `encode_query` for
            queries, as the models of sentence-transformers do.
        name: What to call it.
        identity: The same for the same embedder.
    """

    def __init__(self, embedder: Any, name: str, identity: str) -> None:
        self._embedder = embedder
        self.name = f"dense {name}"
        self.identity = f"dense {identity}"

    @classmethod
    def load(cls, folder: Path) -> Dense:
        """The embedder that sentence-transformers finds in a folder.

        Raises:
            RequestError: There is no such folder, sentence-transformers is not installed, or it cannot load it.
        """
        if not folder.is_dir():
            raise RequestError(f"{folder} is no folder; dense retrieval wants that of an embedder")
        if importlib.util.find_spec("sentence_transformers") is None:
            raise RequestError(
                "dense retrieval needs the package sentence-transformers: pip install sentence-transformers"
            )
        from sentence_transformers import SentenceTransformer

        try:
            embedder = SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RequestError(f"sentence-transformers cannot load {folder} ({reason})") from None
        weights = sorted(folder.rglob("*.safetensors"))
        identity = sha256(" ".join(map(sha256_of, weights)).encode()).hexdigest()[:16] if weights else folder.name
        return cls(embedder, folder.name, identity)

    def index(self, texts: Sequence[str]) -> Index:
        """See `Retriever.index`."""
        return _Vectors(self._embedder, texts)


class _Vectors:
    def __init__(self, embedder: Any, texts: Sequence[str]) -> None:
        self._of_query = getattr(embedder, "encode_query", embedder.encode)
        self._vectors = _unit(getattr(embedder, "encode_document", embedder.encode)(list(texts)))

    def best(self, query: str, most: int) -> list[tuple[int, float]]:
        """See `Index.best`."""
        return _best(self._vectors @ _unit(self._of_query([query]))[0], most)


def _unit(vectors: Any) -> np.ndarray:
    held = np.asarray(vectors, dtype=np.float32)
    found: np.ndarray = held / np.maximum(np.linalg.norm(held, axis=1, keepdims=True), 1e-12)
    return found


def _best(scores: np.ndarray, most: int) -> list[tuple[int, float]]:
    """Of equal scores the earlier text comes first, on every machine."""
    order = np.argsort(-scores, kind="stable")[:most]
    return [(int(number), float(scores[number])) for number in order]
