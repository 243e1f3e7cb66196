"""Cases that others have made: the official test cases of LongEval's lines, from a file.

Each record has `prompt`, a whole prompt whose last line is the question, and `expected_number`. They are scored as our
own `lines` are.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from longfocus.errors import DocumentError
from longfocus.evaluation.task import WHOLE, Count, DoesNotFit, Length, Question, Sheet
from longfocus.evaluation.tasks.lines import Lines
from longfocus.training.examples import Record
from longfocus.training.records import load_records, text_field


class Cases(Lines):
    """The cases of a file, each with its own document, in the file's order.

    Its name ends in a hash of them, as results for others cannot be joined.

    Args:
        path: `.jsonl`, perhaps with `.gz`.

    Raises:
        DocumentError: It is missing, damaged, or one of its records is no such case.
    """

    units: tuple[str, ...] = (WHOLE, "lines")
    questions = 1

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cases: list[tuple[int, Sheet]] = []
        for number, record in enumerate(load_records(path), 1):
            try:
                self._cases.append(_case(record))
            except DocumentError as error:
                raise DocumentError(f"case {number} of {path}: {error}") from None
        self.name = f"cases-{path.name.split('.')[0]}-{sha256(repr(self._cases).encode()).hexdigest()[:6]}"

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`; a seed changes nothing. Of a number of lines are the cases whose record has so many.

        Behind the last of them there are sheets without questions.

        Raises:
            DoesNotFit: The file has no such case.
        """
        made = [sheet for lines, sheet in self._cases if length.unit == WHOLE or lines == length.amount]
        if not made:
            there = ", ".join(str(lines) for lines in sorted({lines for lines, _ in self._cases}))
            raise DoesNotFit(f"{self._path} has cases of {there} lines, not of {length.amount}")
        return made[number] if number < len(made) else Sheet("", ())

    def look(self) -> None:
        """See `Task.look`; the file was read at first, and nothing else is needed."""
        return

    def everything(self) -> int | None:
        """See `Task.everything`."""
        return len(self._cases)

    def size(self, number: int, questions: int, seed: int) -> int:
        """See `Task.size`."""
        return int(number < len(self._cases))


def _case(record: Record) -> tuple[int, Sheet]:
    """How many lines a case has, and its sheet."""
    prompt, expected = text_field(record, "prompt"), record.get("expected_number")
    if isinstance(expected, bool) or not isinstance(expected, int):
        raise DocumentError(f"its expected_number was to be a whole number; it is {expected!r:.60}")
    document, end, asked = prompt.rstrip().rpartition("\n")
    if not document.strip():
        raise DocumentError("its prompt was to have a record and, in its last line, a question; it has one line")
    values = re.findall(r"^line .*<(\d+)>", document, re.MULTILINE)
    lines = len(values) or document.count("\n") + 1
    place = values.index(str(expected)) / lines if values.count(str(expected)) == 1 else None
    return lines, Sheet(document + end, (Question(asked.strip(), (str(expected),), place),))
