"""What a client asks of the model: OpenAI's two forms, and the fields of ours, checked.

A field that would change the answer and is not served is refused, one that makes no difference is not looked at, and
so is one that asks for nothing, since many programs send all that there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from longfocus.asking.generation import Sampling
from longfocus.asking.session import Uses
from longfocus.serving.fields import Fields, checked_text
from longfocus.serving.limits import Limits
from longfocus.serving.refusals import Refusal

MODEL = "default"
"""What the server's model is called; `default@BOOK` is the model with a Book before it."""

_HARMLESS = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
    "prediction",
    "chat_template_kwargs",
    "keep_alive",
    "num_ctx",
)
_ONLY: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    # what chat programs send to other servers, where it asks for nothing
    "top_k": (0, -1),
    "min_p": (0, 0.0),
    "top_a": (0, 0.0),
    "typical_p": (1, 1.0),
    "tfs": (1, 1.0),
    "tfs_z": (1, 1.0),
    "mirostat": (0,),
    "mirostat_mode": (0,),
    "length_penalty": (1, 1.0),
    "no_repeat_ngram_size": (0,),
    "dry_multiplier": (0, 0.0),
    "xtc_probability": (0, 0.0),
    "smoothing_factor": (0, 0.0),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "use_beam_search": (False,),
    "early_stopping": (False,),
    "skip_special_tokens": (True,),
    "include_reasoning": (False, True),
}
_STOPS = 4
_STOP_CHARACTERS = 200


@dataclass(frozen=True)
class Wishes:
    """What chat and completions have in common.

    Attributes:
        model: As the client calls it.
        book: The Book's name; None for the model alone.
        sampling: How tokens are chosen, of the first answer.
        choices: How many answers.
        stop: Where an answer ends.
        stream: Whether it comes while it is written.
        counts: Whether a stream ends with the numbers of tokens.
        citations: How many passages to cite at most.
        look_up: How many passages to look up; None for what suits the model.
        uses: What the answer may rest on.
        attention: Into how many stretches of equal length the text is cut, to tell how much attention each had.
    """

    model: str
    book: str | None
    sampling: Sampling
    choices: int = 1
    stop: tuple[str, ...] = ()
    stream: bool = False
    counts: bool = False
    citations: int = 3
    look_up: int | None = None
    uses: Uses = "memory"
    attention: int = 0


@dataclass(frozen=True)
class ChatRequest:
    """A question, with what was said before it.

    Attributes:
        wishes: How it is to be answered.
        instructions: What the system says.
        turns: Questions and answers before.
        question: What is asked now.
        places: Where the question of each turn stands among the messages, from 0; empty where that is not known.
    """

    wishes: Wishes
    instructions: str
    turns: tuple[tuple[str, str], ...]
    question: str
    places: tuple[int, ...] = ()


@dataclass(frozen=True)
class CompletionRequest:
    """Texts to go on with.

    Attributes:
        wishes: How.
        prompts: The texts; each gets `choices` continuations.
    """

    wishes: Wishes
    prompts: tuple[str, ...]


def parse_chat(body: Mapping[str, Any], limits: Limits) -> ChatRequest:
    """A request to `/v1/chat/completions`.

    Raises:
        Refusal: A field is missing, wrong or not served.
    """
    fields = Fields(dict(body))
    messages = fields.take("messages")
    wishes = _wishes(fields, limits, ("max_completion_tokens", "max_tokens"))
    instructions, turns, question, places = _told(messages)
    _within(limits, instructions, question, *(said for turn in turns for said in turn))
    if turns and wishes.uses != "memory":
        raise Refusal(400, "`uses` is for one question without others before it", "invalid_value", "uses")
    return ChatRequest(wishes, instructions, turns, question, places)


def parse_completion(body: Mapping[str, Any], limits: Limits) -> CompletionRequest:
    """A request to `/v1/completions`.

    Raises:
        Refusal: A field is missing, wrong or not served.
    """
    fields = Fields(dict(body))
    given = fields.take("prompt")
    fields.only("uses", "memory")
    fields.only("look_up", 0)
    wishes = _wishes(fields, limits, ("max_tokens",))
    prompts = tuple(checked_text(each, "prompt") for each in (given if isinstance(given, list) else [given]))
    if not prompts or not all(prompts):
        raise Refusal(400, "`prompt` is empty; give a text to go on with", "invalid_value", "prompt")
    if len(prompts) * wishes.choices > limits.choices:
        raise Refusal(400, f"at most {limits.choices} answers to one request; ask for fewer", "invalid_value", "prompt")
    _within(limits, *prompts)
    return CompletionRequest(wishes, prompts)


def book_of(model: str, field: str | None = None) -> str | None:
    """The Book that a model's name or a field of its own chooses; None for the model alone.

    Raises:
        Refusal: There is no such model, or two Books are chosen.
    """
    name, at, named = model.partition("@")
    if name != MODEL or (at and not named):
        wanted = f"there is no model {model[:100]!r} here; wanted {MODEL!r}, or {MODEL}@BOOK with one of /v1/books"
        raise Refusal(404, wanted, "model_not_found", "model")
    if named and field and named != field:
        raise Refusal(400, "`model` and `book` choose different books; choose one", "invalid_value", "book")
    return named or field or None


def _wishes(fields: Fields, limits: Limits, lengths: tuple[str, ...]) -> Wishes:
    model = fields.text("model")
    book = book_of(model, fields.text("book", "") or None)
    given = [fields.whole(name, None, 1, limits.answer_tokens) for name in lengths]
    top_p = fields.number("top_p", Sampling.top_p, 0, 1)
    temperature = fields.number("temperature", 0, 0, 2)
    sampling = Sampling(
        max_new_tokens=next((length for length in given if length is not None), limits.usual_tokens),
        temperature=temperature if top_p > 0 else 0.0,  # nothing but the likeliest is left
        top_p=top_p or Sampling.top_p,
        repetition_penalty=fields.number("repetition_penalty", Sampling.repetition_penalty, 0.1, 2),
        seed=fields.whole("seed", None, -(2**62), 2**62),
    )
    stream = fields.flag("stream")
    options = fields.take("stream_options")
    if options is not None and not isinstance(options, dict):
        raise Refusal(400, "`stream_options` must be an object", "invalid_value", "stream_options")
    settings = Fields(options or {})
    counts = settings.flag("include_usage") and stream
    settings.skip("include_obfuscation")
    settings.end()
    uses = fields.text("uses", "memory")
    if uses not in ("memory", "window", "nothing"):
        raise Refusal(400, "`uses` must be memory, window or nothing", "invalid_value", "uses")
    if uses != "memory" and book is None:
        raise Refusal(400, "`uses` says what of a book is used; choose a book", "invalid_value", "uses")
    wishes = Wishes(
        model,
        book,
        sampling,
        choices=fields.whole("n", 1, 1, limits.choices) or 1,
        stop=_stops(fields.take("stop")),
        stream=stream,
        counts=counts,
        citations=fields.whole("citations", 3, 0, 20) or 0,
        look_up=fields.whole("look_up", None, 0, 20),
        uses=cast(Uses, uses),
        attention=fields.whole("attention", 0, 0, 2000) or 0,
    )
    for name, served in _ONLY.items():
        fields.only(name, *served)
    fields.skip(*_HARMLESS)
    fields.end()
    return wishes


def _stops(given: Any) -> tuple[str, ...]:
    stops = tuple(
        checked_text(each, "stop") for each in (given if isinstance(given, list) else [given] if given else [])
    )
    if len(stops) > _STOPS or any(not 0 < len(each) <= _STOP_CHARACTERS for each in stops):
        wanted = f"`stop` must be up to {_STOPS} texts of 1 to {_STOP_CHARACTERS} characters"
        raise Refusal(400, wanted, "invalid_value", "stop")
    return stops


def _told(messages: Any) -> tuple[str, tuple[tuple[str, str], ...], str, tuple[int, ...]]:
    """Instructions, earlier turns and the question that a list of messages holds, and where the turns begin in it."""
    if not isinstance(messages, list) or not messages:
        raise Refusal(400, "`messages` must be a list with at least one message", "invalid_value", "messages")
    instructions: list[str] = []
    said: list[tuple[Literal["user", "assistant"], str]] = []
    places: list[int] = []
    for number, message in enumerate(messages):
        place = f"messages[{number}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("system", "developer"):
            instructions.append(_content(message.get("content"), place))
        elif role in ("user", "assistant"):
            text = _content(message.get("content"), place)
            if said and said[-1][0] == role:
                text = f"{said.pop()[1]}\n\n{text}"
            else:
                places.append(number)
            said.append((role, text))
        else:
            wanted = f"`{place}` must have the role system, developer, user or assistant"
            raise Refusal(400, wanted, "invalid_value", place)
    if said and said[0][0] == "assistant":  # a program's greeting, to which nothing was asked
        del said[0], places[0]
    if not said or said[-1][0] != "user":
        raise Refusal(400, "the last message must be the user's", "invalid_value", "messages")
    texts = [text for _, text in said]
    turns = tuple(zip(texts[:-1:2], texts[1::2], strict=True))
    return "\n\n".join(instructions), turns, texts[-1], tuple(places[:-1:2])


def _content(content: Any, place: str) -> str:
    """The text of a message, which may stand in parts."""
    if not isinstance(content, list):
        return checked_text(content, f"{place}.content")
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    if len(parts) < len(content):
        raise Refusal(400, f"`{place}` holds something else than text, which is all we read", "invalid_value", place)
    return "".join(checked_text(part.get("text"), f"{place}.content") for part in parts)


def _within(limits: Limits, *texts: str) -> None:
    length = sum(map(len, texts))
    if length > limits.prompt_characters:
        came = f"the request holds {length:,} characters of text, more than {limits.prompt_characters:,}; shorten it"
        raise Refusal(400, came, "context_length_exceeded", "messages")
