"""Ending a text at a stop string, while it is still being written."""

from __future__ import annotations

from collections.abc import Sequence


class StopGate:
    """Lets pieces of a text through until a stop string begins; what may still become one is held back.

    What comes out does not depend on how the text was cut into pieces.

    Args:
        stop: Where the text ends; none of them comes out.
        trims: Whether white space at its beginning and at its end is left out too.

    Attributes:
        stopped: Whether a stop string has come.
    """

    def __init__(self, stop: Sequence[str] = (), trims: bool = False) -> None:
        self._stop = [each for each in stop if each]
        self._trims = trims
        self._held = ""
        self._begun = not trims
        self.stopped = False

    def feed(self, piece: str) -> str:
        """Take the next piece; returns what is certain to be part of the text."""
        if self.stopped:
            return ""
        self._held += piece
        found = [(place + len(each), place) for each in self._stop if (place := self._held.find(each)) >= 0]
        if found:  # the first that was complete, however long it had been coming
            self.stopped = True
            self._held = self._held[: min(found)[1]]
            return self.end()
        return self._let_out(len(self._held) - self._doubtful())

    def end(self) -> str:
        """The rest of the text, when no more pieces come."""
        if self._trims:
            self._held = self._held.rstrip()
        rest = self._let_out(len(self._held))
        self._held = ""
        return rest

    def _let_out(self, certain: int) -> str:
        out = self._held[:certain]
        if self._trims:
            out = out.rstrip()
        if not self._begun:
            out = out.lstrip()
        self._begun = self._begun or bool(out)
        taken = len(self._held[:certain].rstrip()) if self._trims else certain
        self._held = self._held[taken:]
        return out

    def _doubtful(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        for length in range(min(max(map(len, self._stop), default=1) - 1, len(self._held)), 0, -1):
            if any(each.startswith(self._held[-length:]) for each in self._stop):
                return length
        return 0
