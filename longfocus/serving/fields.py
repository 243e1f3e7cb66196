"""Reading the fields of a JSON object that came from outside: each is what it has to be, or the request is refused."""

from __future__ import annotations

import json
import math
from typing import Any

from longfocus.serving.refusals import Refusal


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        Refusal: There is none.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, 'the request\'s body is no JSON; send an object such as {"model": ...}') from None
    if not isinstance(found, dict):
        raise Refusal(400, f"the request's body is a JSON {_kind(found)}; send an object")
    return found


class Fields:
    """The fields of an object, each to be asked for once; what nobody asks for is refused at the end.

    A field that is null counts as left out.

    Args:
        held: The object.
    """

    def __init__(self, held: dict[str, Any]) -> None:
        self._held = dict(held)

    def take(self, name: str) -> Any:
        """A field's value as it is; None where it is left out."""
        return self._held.pop(name, None)

    def text(self, name: str, usual: str | None = None) -> str:
        """A field that holds text.

        Raises:
            Refusal: It holds something else, or is left out and has no usual value.
        """
        value = self.take(name)
        value = usual if value is None else value
        if value is None:
            raise Refusal(400, f"`{name}` is missing", "missing_required_parameter", name)
        return checked_text(value, name)

    def whole(self, name: str, usual: int | None, least: int, most: int) -> int | None:
        """A field that holds a whole number from `least` to `most`.

        Raises:
            Refusal: It holds something else.
        """
        value = self.take(name)
        if value is None:
            return usual
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Refusal(400, f"`{name}` must be a whole number from {least} to {most}", "invalid_value", name)
        return value

    def number(self, name: str, usual: float, least: float, most: float) -> float:
        """A field that holds a number from `least` to `most`.

        Raises:
            Refusal: It holds something else.
        """
        value = self.take(name)
        if value is None:
            return usual
        fits = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
        if not fits or not math.isfinite(value):
            raise Refusal(400, f"`{name}` must be a number from {least:g} to {most:g}", "invalid_value", name)
        return float(value)

    def flag(self, name: str) -> bool:
        """A field that is true or false; false where it is left out.

        Raises:
            Refusal: It holds something else.
        """
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise Refusal(400, f"`{name}` must be true or false", "invalid_value", name)
        return bool(value)

    def only(self, name: str, *served: Any) -> None:
        """A field of which we serve these values alone.

        Raises:
            Refusal: It holds another.
        """
        value = self.take(name)
        if value is not None and not any(type(value) is type(each) and value == each for each in served):
            raise Refusal(400, f"`{name}` is not supported here; leave it out", "unsupported_parameter", name)

    def skip(self, *names: str) -> None:
        """Fields that make no difference to an answer."""
        for name in names:
            self.take(name)

    def end(self) -> None:
        """All fields have been asked for.

        Raises:
            Refusal: There is another one.
        """
        for name, value in self._held.items():
            if value is not None:
                known = name[:60] if name.isprintable() else "?"
                raise Refusal(400, f"`{known}` is not known here; leave it out", "unknown_parameter", known)


def checked_text(value: Any, name: str) -> str:
    """Text that can be written as UTF-8.

    Raises:
        Refusal: It is something else.
    """
    if not isinstance(value, str):
        raise Refusal(400, f"`{name}` must be text, not a JSON {_kind(value)}", "invalid_type", name)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Refusal(400, f"`{name}` holds half of a character (a lone surrogate)", "invalid_value", name) from None
    return value


def _kind(value: Any) -> str:
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")
