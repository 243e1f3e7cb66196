"""Does an answer rest on a passage? Hide the passage from memory and see how much less likely the answer becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from longfocus.asking.passages import Citation
from longfocus.asking.session import Answer, Session
from longfocus.errors import RequestError
from longfocus.memory.around import AroundMemory
from longfocus.memory.choosing import ChoosingMemory
from longfocus.model.attend import Part
from longfocus.model.cache import LongLlamaCache
from longfocus.model.memory import Entries, Memory, attend_in_blocks


@dataclass(frozen=True)
class Faithfulness:
    """What an answer loses without a passage, in natural logarithms.

    Attributes:
        log_likelihood: Of the answer with all of the memory.
        without_passage: Of the same answer with the passage hidden.
        hidden_tokens: How many tokens of memory were hidden.
    """

    log_likelihood: float
    without_passage: float
    hidden_tokens: int

    @property
    def drop(self) -> float:
        """How much the log-likelihood falls; near 0 where the answer does not rest on the passage."""
        return self.log_likelihood - self.without_passage


class _HidingMemory(AroundMemory):
    """A memory of one row of which some entries cannot be seen."""

    def __init__(self, inner: Memory, keep: Tensor) -> None:
        super().__init__(inner)
        self._keep = keep

    def append(self, keys: Tensor, values: Tensor, keep: Tensor | None) -> Memory:
        more = keys.new_ones((1, keys.shape[2]), dtype=torch.bool) if keep is None else keep
        return _HidingMemory(self.inner.append(keys, values, keep), torch.cat((self._keep, more), dim=1))

    def attend(self, query: Tensor, scale: float) -> Part:
        return attend_in_blocks(query, self.entries(), scale)

    def entries(self) -> Entries:
        keys, values, _ = self.inner.entries()
        return Entries(keys, values, self._keep)

    def select(self, rows: Tensor) -> Memory:
        return _HidingMemory(self.inner.select(rows), self._keep[rows])


def check_faithfulness(session: Session, answer: Answer, citation: Citation) -> Faithfulness:
    """Compare an answer's likelihood with and without a passage; a few passes of the model over question and answer.

    Hidden are the passage's entries of memory, and what was looked up for the question if it touches the passage.

    Args:
        session: The session that gave the answer.
        answer: The answer.
        citation: The passage to hide; its characters are what counts.

    Raises:
        RequestError: The answer has no tokens.
    """
    if not answer.ids:
        raise RequestError("the answer is empty; there is nothing that could rest on a passage")
    book = session.book
    hidden = (book.ends > citation.start) & (book.starts < citation.end) & (book.starts >= 0)
    state = session.state
    whole = _log_likelihood(session, answer, state, answer.looked_up)
    layers, keep, sinks = [], ~hidden, book.manifest.reading.sinks
    for layer in state.layers:
        if layer.memory is not None:
            layer = replace(layer, memory=_hiding(layer.memory, keep[None, sinks : sinks + len(layer.memory)]))
        layers.append(layer)
    in_window = None
    if state.positions is not None:
        in_window = torch.cat((keep[:sinks], keep[len(keep) - (state.window - sinks) :]))[None]
        in_window = None if bool(in_window.all()) else in_window
    without = LongLlamaCache(layers, state.positions, in_window, state.seen)
    others = [each for each in answer.looked_up if each.end <= citation.start or citation.end <= each.start]
    return Faithfulness(whole, _log_likelihood(session, answer, without, others), int(hidden.sum()))


def _hiding(memory: Memory, keep: Tensor) -> Memory:
    if isinstance(memory, ChoosingMemory):
        return memory.over(_HidingMemory(memory.inner, keep))
    return _HidingMemory(memory, keep)


def _log_likelihood(session: Session, answer: Answer, state: LongLlamaCache, looked_up: Sequence[Citation]) -> float:
    """Of the answer's tokens, which go through the model with the windows in which they were written."""
    model = session.loaded.model
    total, done = 0.0, 0
    piece = session.question_ids(answer.question, looked_up)
    with torch.inference_mode():
        while True:
            output = model(
                torch.tensor([piece], device=model.device),
                past_key_values=state,
                use_cache=True,
                last_context_length=len(piece),
                logits_to_keep=len(piece) if done else 1,
            )
            state = output.past_key_values
            chosen = torch.tensor(answer.ids[done : done + output.logits.shape[1]], device=model.device)
            total += float(output.logits[0].float().log_softmax(-1).gather(1, chosen[:, None]).sum())
            done += len(chosen)
            if done == len(answer.ids):
                return total
            # as many as fit beside what is in the window; where it is full, one, for which room is made
            room = max(session.window - state.window, 1)
            piece = list(answer.ids[done - 1 : -1][:room])
