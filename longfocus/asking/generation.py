"""Writing an answer token by token with transformers' `generate`, handed over as text while it is written."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from longfocus.model.cache import LongLlamaCache


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_new_tokens: Where an answer is cut off.
        temperature: 0 for the likeliest token each time; above, sampling from a flatter distribution.
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


class _Pieces(BaseStreamer):
    """Turns tokens into text as they come; text goes out when it is certain not to change any more."""

    def __init__(self, tokenizer: Any, out: queue.Queue[Any]) -> None:
        self._tokenizer = tokenizer
        self._out = out
        self._ids: list[int] = []
        self._sent = ""
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt (first) or the next token."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._ids.extend(value.reshape(-1).tolist())
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)
        if text.endswith("\ufffd"):  # in the middle of a character
            return
        if text != self._sent:
            self._out.put(text[len(self._sent) :])
            self._sent = text

    def end(self) -> None:
        """Nothing comes after the last token."""


def write(
    model: Any, tokenizer: Any, ids: list[int], state: LongLlamaCache, sampling: Sampling
) -> Iterator[str | Written]:
    """Generate after `ids`, starting from `state`; yields pieces of text and, last, what was written.

    Closing the iterator stops the model at the next token.
    """
    out: queue.Queue[Any] = queue.Queue()
    stop = threading.Event()
    options: dict[str, Any] = {"max_new_tokens": sampling.max_new_tokens, "do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        options |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    options["repetition_penalty"] = sampling.repetition_penalty  # 1.0 too, or else the checkpoint's own would count
    begun = LongLlamaCache(state.layers, state.positions, state.keep)  # `ids` do not begin with what it has seen
    known = model.generation_config
    config = GenerationConfig(
        eos_token_id=known.eos_token_id if known.eos_token_id is not None else tokenizer.eos_token_id,
        pad_token_id=known.pad_token_id if known.pad_token_id is not None else 0,
        return_dict_in_generate=True,
        **options,
    )

    def work() -> None:
        try:
            with torch.inference_mode():
                if sampling.seed is not None:
                    torch.manual_seed(sampling.seed)
                prompt = torch.tensor([ids], device=model.device)
                found = model.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    past_key_values=begun,
                    generation_config=config,
                    streamer=_Pieces(tokenizer, out),
                    stopping_criteria=StoppingCriteriaList([lambda *_: stop.is_set()]),
                    last_context_length=len(ids),
                )
            out.put((found.sequences[0, len(ids) :].tolist(), found.past_key_values))
        except BaseException as error:  # handed to the thread that waits
            out.put(error)

    thread = threading.Thread(target=work, name="longfocus-generation", daemon=True)
    thread.start()
    try:
        while True:
            item = out.get()
            if isinstance(item, str):
                yield item
            elif isinstance(item, BaseException):
                raise item
            else:
                break
    finally:
        stop.set()
        thread.join()
    new, after = item
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    spoken = new[:-1] if new and new[-1] in ends else new
    yield Written(spoken, after, new[-1:])
