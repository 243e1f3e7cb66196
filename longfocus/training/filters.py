"""Which records to train on: the little rule language of LongLLaMA's instruction tuning.

Rules are joined by `<;>`, and a record is kept when all of them hold:

    PATH<M>REGEX        the text matches from its beginning (a dot matches line ends too)
    PATH<LENLT>NUMBER   the text has fewer characters
    PATH<LENGT>NUMBER   ... more characters
    PATH<TOKLT>NUMBER   ... fewer tokens
    PATH<TOKGT>NUMBER   ... more tokens

A path is the steps to a text, joined by dots: the name of a field, or for lists `<int>N` for the element N (negative
from the end), `<int>*^` or `<int>*v` for all of them or any of them (with `<M>`), `<int>*` for their sum (with the
others). `lang<M>en<;>conversations.<int>0.value<LENLT>8000` keeps what is in English and begins with less than 8,000
characters. Rules for several data sets are joined by `<,>`, an empty place keeps everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from longfocus.errors import DocumentError, RequestError
from longfocus.loading.prompts import encode_text
from longfocus.training.examples import Record

BETWEEN_DATASETS = "<,>"
BETWEEN_RULES = "<;>"
MATCH = "<M>"
LIMITS: dict[str, tuple[bool, bool]] = {  # whether it counts tokens, whether it is an upper limit
    "<LENLT>": (False, True),
    "<LENGT>": (False, False),
    "<TOKLT>": (True, True),
    "<TOKGT>": (True, False),
}
_INDEX = "<int>"
_ALL, _ANY, _SUM = "*^", "*v", "*"

Step = str | int
Count = Callable[[str], int]


@dataclass(frozen=True)
class _Each:
    """A step into every element of a list; `how` is what is made of the results."""

    how: str


@dataclass(frozen=True)
class Rule:
    """One condition.

    Attributes:
        text: As it was written.
        path: The steps to the texts.
        pattern: What these must match; None where `limit` holds.
        limit: Which count of theirs is too much, or too little.
        tokens: Whether tokens are counted rather than characters.
        upper: Whether the limit is one from above.
    """

    text: str
    path: tuple[Step | _Each, ...]
    pattern: re.Pattern[str] | None = None
    limit: int = 0
    tokens: bool = False
    upper: bool = False

    def holds(self, record: Record, count_tokens: Count) -> bool:
        """Whether a record fulfils this.

        Raises:
            DocumentError: There is no text at the path.
        """
        if self.pattern is not None:
            return self._matches(record, self.path, self.pattern)
        found = self._count(record, self.path, count_tokens if self.tokens else len)
        return found < self.limit if self.upper else found > self.limit

    def _matches(self, value: Any, path: tuple[Step | _Each, ...], pattern: re.Pattern[str]) -> bool:
        if not path:
            return pattern.match(self._text(value)) is not None
        if isinstance(path[0], _Each):
            results = (self._matches(element, path[1:], pattern) for element in self._elements(value))
            return all(results) if path[0].how == _ALL else any(results)
        return self._matches(self._step(value, path[0]), path[1:], pattern)

    def _count(self, value: Any, path: tuple[Step | _Each, ...], count: Count) -> int:
        if not path:
            return count(self._text(value))
        if isinstance(path[0], _Each):
            return sum(self._count(element, path[1:], count) for element in self._elements(value))
        return self._count(self._step(value, path[0]), path[1:], count)

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise DocumentError(f"the filter {self.text!r} wanted text and came to {value!r:.60}")
        return value

    def _elements(self, value: Any) -> Iterator[Any]:
        if not isinstance(value, list | tuple):
            raise DocumentError(f"the filter {self.text!r} wanted a list and came to {value!r:.60}")
        return iter(value)

    def _step(self, value: Any, step: Step) -> Any:
        if isinstance(step, int):
            elements = list(self._elements(value))
            if not -len(elements) <= step < len(elements):
                raise DocumentError(f"the filter {self.text!r} wanted element {step} of a list of {len(elements)}")
            return elements[step]
        if not isinstance(value, Mapping) or step not in value:
            there = ", ".join(map(str, value)) if isinstance(value, Mapping) else f"{value!r:.60}"
            raise DocumentError(f"the filter {self.text!r} wanted the field {step!r}; there is {there}")
        return value[step]


@dataclass(frozen=True)
class Filter:
    """Conditions that must all hold; without any, everything is kept."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Read the rules for one data set.

        Raises:
            RequestError: They are not written as the language wants.
        """
        return cls(tuple(_parse_rule(rule) for rule in text.split(BETWEEN_RULES)) if text else ())

    def keeps(self, record: Record, tokenizer: Any) -> bool:
        """Whether to train on a record. Tokens are counted without those that begin and end a sequence.

        Raises:
            DocumentError: A rule's path leads nowhere in it.
        """
        return all(rule.holds(record, lambda text: len(encode_text(tokenizer, text))) for rule in self.rules)


def parse_filters(text: str) -> list[Filter]:
    """Read the rules for several data sets, joined by `<,>`.

    Raises:
        RequestError: They are not written as the language wants.
    """
    return [Filter.parse(rules) for rules in text.split(BETWEEN_DATASETS)]


def _parse_rule(text: str) -> Rule:
    modes = [mode for mode in (MATCH, *LIMITS) if mode in text]
    if len(modes) != 1 or text.count(modes[0]) != 1:
        raise RequestError(
            f"the filter {text!r} has {len(modes) and sum(map(text.count, modes))} conditions; "
            f"wanted one of {', '.join((MATCH, *LIMITS))}"
        )
    mode = modes[0]
    path, _, value = text.partition(mode)
    steps = tuple(_parse_step(text, step, mode) for step in path.split("."))
    if mode == MATCH:
        try:
            return Rule(text, steps, pattern=re.compile(value, re.DOTALL))
        except re.error as error:
            raise RequestError(f"the filter {text!r} has no regular expression behind {MATCH}: {error}") from error
    try:
        limit = int(value)
    except ValueError:
        raise RequestError(f"the filter {text!r} has {value!r} behind {mode}; wanted a whole number") from None
    tokens, upper = LIMITS[mode]
    return Rule(text, steps, limit=limit, tokens=tokens, upper=upper)


def _parse_step(rule: str, step: str, mode: str) -> Step | _Each:
    if not step:
        raise RequestError(f"the filter {rule!r} has an empty step in its path; wanted PATH{mode}...")
    if not step.startswith(_INDEX):
        return step
    index = step.removeprefix(_INDEX)
    each = (_ALL, _ANY) if mode == MATCH else (_SUM,)
    if index in each:
        return _Each(index)
    try:
        return int(index)
    except ValueError:
        wanted = " or ".join(_INDEX + how for how in each)
        raise RequestError(
            f"the filter {rule!r} has the step {step!r}; with {mode}, wanted <int>N or {wanted}"
        ) from None
