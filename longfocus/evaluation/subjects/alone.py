"""The last window of a document alone: a prompt of its own from position 0, which nothing was read before.

What a model keeps in its window after it read a document is no such baseline: those keys and values were computed with
all that came before in sight, so they carry some of it along.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from longfocus.asking.generation import Sampling, Written, write
from longfocus.asking.session import room_for_document
from longfocus.evaluation.replies import Reply
from longfocus.evaluation.subjects.behind import Behind, question_ids
from longfocus.evaluation.task import DoesNotFit, Writing
from longfocus.loading.load import LoadedModel
from longfocus.loading.prompts import encode_text
from longfocus.model.cache import LongLlamaCache


class Alone(Behind):
    """Goes on behind as much of a document's end as fits the window together with what follows.

    Args:
        loaded: The model.
        opening: Tokens that come first in every prompt.
        document: Tokens of the document; none for a model that is not given it.
        empty: Whether there is no document at all, so that a question is the whole prompt.
    """

    def __init__(self, loaded: LoadedModel, opening: list[int], document: list[int], *, empty: bool = False) -> None:
        super().__init__(loaded.tokenizer, opening, 0)
        self._loaded = loaded
        self._document = document
        self._empty = empty
        self._window: int = loaded.model.config.window

    def reply(self, question: str, most: int, citations: int = 0) -> Reply:
        """See `Replying.reply`; it cites nothing.

        Raises:
            DoesNotFit: The question has more tokens than the window has room for.
        """
        ids = question_ids(self._tokenizer, question, alone=self._empty)
        room = self._window - len(self._opening)
        if len(ids) > room:
            raise DoesNotFit(f"the question has {len(ids)} tokens with its frame, the window has room for {room}")
        prompt = self._behind_the_end(ids, room_for_document(self._window, len(self._opening) + len(ids), most))
        return Reply("".join(self._pieces(prompt, Writing(most))).strip(), len(prompt))

    def continued(self, text: str, writing: Writing) -> str:
        """See `Opened.continued`; of a text that is longer than the window its end."""
        ids = encode_text(self._tokenizer, text)
        kept = max(self._window - len(self._opening) - writing.most, self._window // 2)
        ids = ids[-kept:]
        room = self._window - len(self._opening) - len(ids) - writing.most
        return self._written(self._behind_the_end(ids, room), writing)

    def loss(self, text: str) -> tuple[float, int]:
        """See `Opened.loss`; all but the text's first token are predicted.

        A text that is longer than half a window is predicted half a window at a time, each half behind what fits of
        all before it.
        """
        ids = encode_text(self._tokenizer, text)
        total, step = 0.0, max(self._window // 2 - len(self._opening), 1)
        for start in range(0, len(ids), step):
            piece = ids[start : start + step]
            before = _last(self._document + ids[:start], self._window - len(self._opening) - len(piece))
            prompt = self._opening + before + piece
            wanted = torch.tensor(piece if start else piece[1:], device=self._loaded.model.device)
            if len(wanted):
                logits = self._logits(prompt)[-len(wanted) - 1 : -1].float()
                total += float(F.cross_entropy(logits, wanted, reduction="sum"))
        return total, len(ids) - 1

    def _behind_the_end(self, ids: list[int], room: int) -> list[int]:
        return self._opening + _last(self._document, room) + ids

    def _nothing_read(self) -> LongLlamaCache:
        return LongLlamaCache.of_memories({}, self._loaded.model.config.num_hidden_layers)

    def _logits(self, prompt: list[int]) -> Tensor:
        model = self._loaded.model
        with torch.inference_mode():
            ids = torch.tensor([prompt], device=model.device)
            output = model(ids, past_key_values=self._nothing_read(), use_cache=True, last_context_length=len(prompt))
        logits: Tensor = output.logits[0]
        return logits

    def _pieces(self, ids: list[int], writing: Writing) -> Iterator[str]:
        sampling = Sampling(writing.most, writing.temperature, writing.top_p, 1.0, writing.seed)
        for piece in write(self._loaded.model, self._tokenizer, ids, self._nothing_read(), sampling):
            if isinstance(piece, Written):
                return
            yield piece

    def _predictions(self, ids: list[int]) -> Iterator[Tensor]:
        yield self._logits(ids)


def _last(ids: list[int], most: int) -> list[int]:
    return ids[-most:] if most > 0 else []
