"""Several sources as one, in proportion.

Weights are shares of tokens, not of documents: where one source has books and another short pages, a page has to come
far more often than a book. So a source is drawn with a probability of its weight over the mean length of its documents
so far.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from longfocus.errors import RequestError
from longfocus.training.sources import Source, Taken, TokenizedDocument


class Mixture:
    """Documents of several sources, drawn by seed so that each has its share of the tokens.

    A source that has ended is left out and the others go on; the mixture ends with the last of them.

    Args:
        sources: Of different names.
        weights: By name, each more than 0; only their proportions matter.
        seed: Draws which source comes next.

    Raises:
        RequestError: Names or weights that do not fit together.
    """

    def __init__(self, sources: Sequence[Source], weights: Mapping[str, float], *, seed: int) -> None:
        names = [source.name for source in sources]
        if not names or len(set(names)) < len(names):
            raise RequestError(f"A mixture wants sources of different names; these are {', '.join(names) or 'none'}.")
        if set(weights) != set(names):
            raise RequestError(f"There are weights for {', '.join(weights)} and sources {', '.join(names)}.")
        for name, weight in weights.items():
            if not (weight > 0 and math.isfinite(weight)):
                raise RequestError(f"The weight of {name!r} is {weight}; wanted more than 0.")
        if seed < 0:
            raise RequestError(f"The seed of the mixture is {seed}; wanted 0 or more.")
        self._sources = {source.name: source for source in sources}
        self._weights = {name: float(weights[name]) for name in names}
        self._seed = seed
        self._draws = 0
        self._ended: set[str] = set()

    def __iter__(self) -> Mixture:
        return self

    def __next__(self) -> TokenizedDocument:
        """The next document of the source that is drawn."""
        while len(self._ended) < len(self._sources):
            name = self._draw()
            try:
                return next(self._sources[name])
            except StopIteration:
                self._ended.add(name)
        raise StopIteration

    def again(self, source: str, index: int) -> TokenizedDocument:
        """A document that was given before.

        Raises:
            RequestError: There is no such source.
        """
        if source not in self._sources:
            raise RequestError(f"A document of {source!r} is wanted; the sources are {', '.join(self._sources)}.")
        return self._sources[source].again(source, index)

    def taken(self) -> dict[str, Taken]:
        """How much came of each source."""
        return {name: source.taken()[name] for name, source in self._sources.items()}

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""
        return {
            "seed": self._seed,
            "weights": self._weights,
            "draws": self._draws,
            "ended": sorted(self._ended),
            "sources": {name: source.state_dict() for name, source in self._sources.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Raises:
            RequestError: The state is of other sources, weights or another seed.
        """
        for field, here in (("seed", self._seed), ("weights", self._weights)):
            if state[field] != here:
                raise RequestError(
                    f"The mixture cannot go on: {field} was {state[field]} and is {here}. "
                    "Give what the state was saved with."
                )
        for name, source in self._sources.items():
            source.load_state_dict(state["sources"][name])
        self._draws, self._ended = state["draws"], set(state["ended"])

    def _draw(self) -> str:
        """The name of a source that has not ended; the same for the same seed, number of draws and counts."""
        names = [name for name in self._sources if name not in self._ended]
        counts = [self._sources[name].taken()[name] for name in names]
        documents, tokens = sum(count.documents for count in counts), sum(count.tokens for count in counts)
        overall = tokens / documents if documents else 1.0  # for a source that is still unknown
        means = [count.tokens / count.documents if count.documents else overall for count in counts]
        ends = list(accumulate(self._weights[name] / mean for name, mean in zip(names, means, strict=True)))
        # one fresh generator a draw: the number of draws is then all of its state
        place = bisect(ends, random.Random((self._seed << 64) + self._draws).random() * ends[-1])
        self._draws += 1
        return names[min(place, len(names) - 1)]
