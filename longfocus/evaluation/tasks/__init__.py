"""The tasks by name.

To add one, write a file here with a class that is a `longfocus.evaluation.task.Task` and add a line to TASKS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from longfocus.errors import RequestError
from longfocus.evaluation.task import Task
from longfocus.evaluation.tasks.bookqa import BookQa, OwnBookQa, QuestionsOnBooks
from longfocus.evaluation.tasks.cases import Cases
from longfocus.evaluation.tasks.dictionary import DictionaryLookup
from longfocus.evaluation.tasks.humaneval import HumanEval, HumanEvalSamples
from longfocus.evaluation.tasks.icl import CoarseTrec, FineTrec, WebQuestions
from longfocus.evaluation.tasks.key_values import KeyValues
from longfocus.evaluation.tasks.lines import LettersLines, Lines, UuidLines
from longfocus.evaluation.tasks.needle import BookNeedle, FillingNeedle
from longfocus.evaluation.tasks.passkey import Passkey, ReferencePasskey
from longfocus.evaluation.tasks.perplexity import Perplexity
from longfocus.evaluation.tasks.topics import Judge, Topics, TopicsAny


@dataclass(frozen=True)
class Sources:
    """Where tasks take what they do not make up.

    Attributes:
        data: The folder of data sets.
        cases: A file of LongEval's test cases.
        books: A folder of one's own books.
        questions: A file of questions on them.
        judge: Who also says whether an answer is right; None for a task's own rule alone.
    """

    data: Path = Path("data")
    cases: Path | None = None
    books: Path | None = None
    questions: Path | None = None
    judge: Judge | None = None


def _bookqa(sources: Sources) -> QuestionsOnBooks:
    if sources.books is None and sources.questions is None:
        return BookQa(sources.data)
    if sources.books is None or sources.questions is None:
        raise RequestError("one's own books need their questions, and questions their books: give both")
    return OwnBookQa(sources.books, sources.questions)


def _cases(sources: Sources) -> Cases:
    if sources.cases is None:
        raise RequestError("the task `cases` needs a file of test cases; name it with --cases")
    return Cases(sources.cases)


TASKS: dict[str, Callable[[Sources], Task]] = {
    "passkey": lambda _: Passkey(),
    "passkey-reference": lambda _: ReferencePasskey(),
    "lines": lambda _: Lines(),
    "lines-letters": lambda _: LettersLines(),
    "lines-uuids": lambda _: UuidLines(),
    "cases": _cases,
    "key-values": lambda _: KeyValues(),
    "dictionary": lambda _: DictionaryLookup(),
    "topics": lambda sources: Topics(sources.data, judge=sources.judge),
    "topics-longchat-30": lambda sources: Topics(sources.data, "longchat-30", sources.judge),
    "topics-anima": lambda sources: Topics(sources.data, "anima", sources.judge),
    "topics-any": lambda sources: TopicsAny(sources.data, judge=sources.judge),
    "needle": lambda sources: BookNeedle(sources.data),
    "needle-filling": lambda _: FillingNeedle(),
    "bookqa": _bookqa,
    "trec-coarse": lambda sources: CoarseTrec(sources.data),
    "trec-fine": lambda sources: FineTrec(sources.data),
    "webqs": lambda sources: WebQuestions(sources.data),
    "humaneval": lambda sources: HumanEval(sources.data),
    "humaneval-samples": lambda sources: HumanEvalSamples(sources.data),
    "perplexity": lambda sources: Perplexity(sources.data),
}
"""What makes each task."""


def tasks_of(names: Iterable[str], sources: Sources) -> list[Task]:
    """The tasks of these names.

    Raises:
        RequestError: There is no such task, or it lacks its source.
        DocumentError: A source holds something else.
    """
    named = list(dict.fromkeys(names))
    if unknown := [name for name in named if name not in TASKS]:
        raise RequestError(f"there is no task {unknown[0]}; there are {', '.join(TASKS)}")
    return [TASKS[name](sources) for name in named]
