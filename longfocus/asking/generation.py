"""Writing an answer token by token, handed over as text while it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from longfocus.model.cache import LongLlamaCache

COLDEST = 1e-4
"""Below this temperature the likeliest token is taken: the scores divided by it would be too large for a number."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_new_tokens: Where an answer is cut off.
        temperature: 0 for the likeliest token each time, as is all below `COLDEST`; above, sampling from a flatter
            distribution.
        top_p: With sampling, only the likeliest tokens that together have this probability.
        repetition_penalty: Above 1, tokens that were used become less likely.
        seed: With sampling, what makes it repeatable; None for a new answer each time.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 0.95
    repetition_penalty: float = 1.05
    seed: int | None = None


@dataclass(frozen=True)
class Written:
    """All that was generated.

    Attributes:
        ids: Token ids, without the one that ended the answer.
        state: The model's state after all but the last of the tokens generated went through it.
        pending: Tokens generated that have not gone through the model.
    """

    ids: list[int]
    state: LongLlamaCache
    pending: list[int]


class _Text:
    """Turns tokens into text as they come; text goes out when it is certain not to change any more."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._sent = ""

    def after(self, token: int) -> str:
        """The text that one more token makes certain; often empty."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if text.endswith("\ufffd"):  # in the middle of a character
            return ""
        new: str = text[len(self._sent) :]
        self._sent = text
        return new


def write(
    model: Any, tokenizer: Any, ids: list[int], state: LongLlamaCache, sampling: Sampling
) -> Iterator[str | Written]:
    """Generate after `ids`, starting from `state`; yields pieces of text and, last, what was written.

    As transformers' `generate` does it, but in the thread of the caller. There it would need one of its own to hand
    text over while it writes, and two threads that compute have more helpers than there are cores, which then no longer
    wait awake for each other: every small product takes twice as long.

    Closing the iterator stops the model.
    """
    ends, text, choose = _ends(model, tokenizer), _Text(tokenizer), _Choosing(sampling, ids, model.device)
    new: list[int] = []
    given = ids
    while True:
        logits, state = _step(model, torch.tensor([given], device=model.device), state)
        token = choose.next(logits)
        given = [token]
        new.append(token)
        if piece := text.after(token):
            yield piece
        if token in ends or len(new) == sampling.max_new_tokens:
            break
    yield Written(new[:-1] if token in ends else new, state, given)


def write_rows(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    state: LongLlamaCache,
    samplings: Sequence[Sampling],
    wanted: Callable[[int], bool] = lambda row: True,
) -> Iterator[tuple[int, str | list[int]]]:
    """Generate after several prompts at once, each as if it stood alone.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompts: One or more.
        state: With a row for each prompt.
        samplings: How the tokens of each are chosen; each has random numbers of its own.
        wanted: Whether the answer to a prompt, by its number, is still to be written; asked before each step.

    Yields:
        The number of a prompt with a piece of text, or, once, with all tokens of its answer but the one that ended it;
        of one that is not wanted any more, with those that there are.
    """
    ends = _ends(model, tokenizer)
    rows = list(range(len(prompts)))
    texts, new = [_Text(tokenizer) for _ in rows], [list[int]() for _ in rows]
    choosing = [_Choosing(sampling, ids, model.device) for sampling, ids in zip(samplings, prompts, strict=True)]
    given, seen = side_by_side(prompts, state.window)
    given, mask = given.to(model.device), seen.to(model.device) if len(prompts) > 1 else None
    while True:
        staying = []
        for place, row in enumerate(rows):
            if new[row] and (new[row][-1] in ends or len(new[row]) == samplings[row].max_new_tokens):
                yield row, new[row][:-1] if new[row][-1] in ends else new[row]
            elif wanted(row):
                staying.append(place)
            else:
                yield row, new[row]
        if not staying:
            return
        if len(staying) < len(rows):
            chosen = torch.tensor(staying, dtype=torch.long)
            with torch.inference_mode():
                state = state.for_rows(chosen)
            given, mask = given[chosen], None if mask is None else mask[chosen]
            rows = [rows[place] for place in staying]
        logits, state = _step(model, given, state, mask)
        tokens = [choosing[row].next(logits[place : place + 1]) for place, row in enumerate(rows)]
        given, mask = torch.tensor([[token] for token in tokens], device=model.device), None
        for row, token in zip(rows, tokens, strict=True):
            new[row].append(token)
            if piece := texts[row].after(token):
                yield row, piece


@torch.inference_mode()
def _step(model: Any, ids: Tensor, state: LongLlamaCache, mask: Tensor | None = None) -> tuple[Tensor, LongLlamaCache]:
    """The logits [B, V] behind tokens [B, T], all of which fit the window, and the state with them."""
    output = model(
        ids,
        attention_mask=mask,
        past_key_values=state,
        use_cache=True,
        last_context_length=ids.shape[1],
        logits_to_keep=1,
    )
    return output.logits[:, -1], output.past_key_values


def side_by_side(prompts: Sequence[list[int]], window: int) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] with padding on the left, and their mask [B, S + T], behind S tokens that are in the window."""
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[1] * window + [0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer."""
    known = model.generation_config
    end = known.eos_token_id if known.eos_token_id is not None else tokenizer.eos_token_id
    return end if isinstance(end, list) else [end]


class _Choosing:
    """Chooses tokens, by transformers' own processors of logits."""

    def __init__(self, sampling: Sampling, ids: list[int], device: torch.device) -> None:
        self._seen: Any = torch.tensor([ids], device=device)
        self._samples = sampling.temperature >= COLDEST
        self._processors = LogitsProcessorList()
        if sampling.repetition_penalty != 1.0:
            self._processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
        if self._samples:
            self._processors.append(TemperatureLogitsWarper(sampling.temperature))
            self._processors.append(TopPLogitsWarper(sampling.top_p))
        self._chance = torch.Generator(device)
        if sampling.seed is None:
            self._chance.seed()
        else:
            self._chance.manual_seed(sampling.seed)

    @torch.inference_mode()
    def next(self, logits: Tensor) -> int:
        """The token after those seen so far, by its logits [1, V]."""
        scores: Any = self._processors(self._seen, logits.float())
        if self._samples:
            token = torch.multinomial(scores.softmax(-1), 1, generator=self._chance)
        else:
            token = scores.argmax(-1, keepdim=True)
        self._seen = torch.cat([self._seen, token], dim=1)
        return int(token)
