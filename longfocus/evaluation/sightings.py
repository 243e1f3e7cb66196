"""Which layers find what questions ask for: by the shares of attention that each layer puts on passages.

Layers are counted apart (`longfocus.asking.account.Tally`), so that what several find together is the sum of what each
puts on a passage. One reading in which all layers have memory therefore tells about any set of them.

Shapes: L layers, P passages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longfocus.asking.account import Tally
from longfocus.asking.passages import find_passages
from longfocus.asking.session import Session
from longfocus.evaluation.probing_texts import Asked

MARGIN = 0.02
"""What a layer must add to be taken, on the scale of `worth`; each costs disk and time with every token."""
MOST_LAYERS = 8


@dataclass(frozen=True)
class Sighting:
    """What a question's tokens attended to.

    Attributes:
        measure: What kind of question it was.
        shares: Each layer's on each passage, [L, P].
        wanted: Whether the passage has what was asked for, [P].
    """

    measure: str
    shares: Tensor
    wanted: Tensor

    def rank(self, layers: Collection[int]) -> float:
        """Of the best passage that is wanted, by these layers together; from 1, infinite if none has any attention."""
        total = self.shares[list(layers)].sum(0)
        best = float(total[self.wanted].max()) if self.wanted.any() else 0.0
        # passages with the same share come first, so that no attention at all finds nothing
        return float((total >= best).sum()) if best > 0 else float("inf")


def sighting(session: Session, asked: Asked) -> Sighting:
    """What a question's tokens attend to, layer by layer: those with memory in the Book."""
    book = session.book
    tally = session.looked_up(asked.question, 1).attention
    assert tally is not None
    inside = book.starts >= 0
    passages: dict[int, bool] = {}
    scores: dict[int, dict[int, float]] = {}
    for layer, counted in tally.layers.items():
        alone = Tally(len(book.ids))
        alone.layers[layer] = counted
        attention = alone.attention
        text = float(attention[inside].sum())  # the opening of the prompt takes the rest
        scores[layer] = {}
        for passage in find_passages(book, attention, len(book.text), join=False):
            passages.setdefault(passage.start, bool(asked.wanted(passage.text)))
            scores[layer][passage.start] = passage.score * text
    columns = {start: place for place, start in enumerate(passages)}
    shares = torch.zeros(session.loaded.model.config.num_hidden_layers, len(columns))
    for layer, by_start in scores.items():
        for start, score in by_start.items():
            shares[layer, columns[start]] = score
    return Sighting(asked.measure, shares, torch.tensor(list(passages.values()), dtype=torch.bool))


def worth(sightings: Sequence[Sighting], layers: Collection[int], most: int) -> float:
    """How well layers find together, from 0 to 1; each kind of question counts as much as the others.

    Half of it is the share of questions of which the passage is among the best `most`, half is the mean of 1 / rank.
    """
    if not layers:
        return 0.0
    kinds: dict[str, list[float]] = {}
    for one in sightings:
        rank = one.rank(layers)
        kinds.setdefault(one.measure, []).append(((rank <= most) + 1 / rank) / 2)
    return sum(sum(values) / len(values) for values in kinds.values()) / len(kinds)


def choose_layers(sightings: Sequence[Sighting], candidates: Iterable[int], most: int) -> tuple[int, ...]:
    """A small set of layers that finds well: the best one, then whichever adds most, until none adds enough.

    What has become of no use by then is taken out again. Empty where no layer finds anything.
    """
    left, chosen = list(candidates), list[int]()
    value = 0.0
    while left and len(chosen) < MOST_LAYERS:
        gains = {layer: worth(sightings, [*chosen, layer], most) - value for layer in left}
        best = max(left, key=lambda layer: gains[layer])
        if gains[best] < MARGIN:
            break
        chosen.append(best)
        left.remove(best)
        value += gains[best]
    for layer in list(chosen):
        rest = [one for one in chosen if one != layer]
        if worth(sightings, rest, most) > value - MARGIN / 2:
            chosen, value = rest, worth(sightings, rest, most)
    return tuple(sorted(chosen))
