"""`longfocus compare`: one book, some questions, and what several subjects answer to them."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longfocus.cli.options import KeyVariable, Model

if TYPE_CHECKING:
    from longfocus.evaluation.compare import Compared, Source
    from longfocus.evaluation.subjects import LocalModel

USUAL = ["memory", "window", "bm25"]
_SHOWN = 300


def compare(
    book: Annotated[str, typer.Argument(help="A document, or a Book as for `longfocus ask`.")],
    questions: Annotated[
        Path,
        typer.Argument(help="Questions, one a line; in a .jsonl file objects with `question` and maybe `answers`."),
    ],
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="Whom to ask; may be given several times: memory, window, nothing, full, bm25, dense:FOLDER, "
            "openai:MODEL, anthropic:MODEL, bm25+openai:MODEL.  [default: memory, window, bm25]"
        ),
    ] = None,
    model: Model = None,
    adapter: Annotated[str, typer.Option(help="As for `longfocus read`.")] = "usual",
    key_variable: KeyVariable = "",
    thinking: Annotated[
        int, typer.Option(help="Tokens on top of an answer's for models that think before they answer.", min=0)
    ] = 0,
    chunk: Annotated[int, typer.Option(help="Most tokens of a chunk, for retrieval.", min=2)] = 512,
    citations: Annotated[int, typer.Option(help="Most passages to cite.", min=0)] = 3,
    max_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.", min=1)] = 128,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON list with an object for each question.")
    ] = False,
) -> None:
    """Put questions on a book to several subjects, side by side."""
    from longfocus.cli.drawing import say, waiting
    from longfocus.cli.options import adapter_of
    from longfocus.errors import RequestError

    with waiting("opening"):
        from longfocus.evaluation.compare import compare as compare_all
        from longfocus.evaluation.compare import load_questions
        from longfocus.evaluation.subjects import SubjectOptions, subject_of

        asked = load_questions(questions)
        source, local = _opened(book, model, adapter_of(adapter), say)
        options = SubjectOptions(chunk=chunk, key_variable=key_variable, thinking=thinking)
        subjects = [subject_of(name, local, options, say) for name in dict.fromkeys(subject or _usual(say))]
    if source.book is None:
        say(f"{book} is read for this comparison alone; `longfocus read` keeps what it reads")
    found = []
    for compared in compare_all(subjects, source, asked, most=max_tokens, citations=citations):
        found.append(compared)
        told = compared.error or f"{compared.seconds:.1f} s"
        say(f"{compared.subject}: question {compared.number + 1} of {len(asked)}, {told}")
    by_question = [[compared for compared in found if compared.number == number] for number in range(len(asked))]
    if as_json:
        print(json.dumps([_as_json(group) for group in by_question], ensure_ascii=False, indent=2))
    else:
        for group in by_question:
            _draw(group)
    if all(compared.reply is None for compared in found):
        raise RequestError(f"nobody answered: {found[0].error}")


def _usual(say: Callable[[str], None]) -> list[str]:
    """Whom to ask if nobody is named; retrieval where its package is there."""
    if importlib.util.find_spec("bm25s") is not None:
        return USUAL
    say("bm25 is left out, as it needs the package bm25s: pip install longfocus[eval]")
    return [name for name in USUAL if name != "bm25"]


def _opened(
    book: str, model: str | None, adapter: str | None, say: Callable[[str], None]
) -> "tuple[Source, LocalModel]":
    """The Book of that name, or else the document; and the model that read it, or that is to."""
    from longfocus.books import load_for
    from longfocus.errors import BookError
    from longfocus.evaluation.compare import Source
    from longfocus.evaluation.subjects import LocalModel
    from longfocus.loading.load import load
    from longfocus.memory.book import StoredBook
    from longfocus.reading.documents import load_document
    from longfocus.reading.origin import book_of

    try:
        folder = book_of(book)
    except BookError:
        if not Path(book).is_file():
            raise
        source = Source.of_document(load_document(book))
        return source, LocalModel(lambda: load(model, adapter=adapter, progress=say), model)
    stored = StoredBook.open(folder)
    return Source.of_book(stored), LocalModel(lambda: load_for(stored, model, adapter, say), model)


def _as_json(group: "Sequence[Compared]") -> dict[str, Any]:
    asked = group[0].asked
    return {
        "question": asked.question,
        "answers": list(asked.answers),
        "replies": [compared.to_json() for compared in group],
    }


def _draw(group: "Sequence[Compared]") -> None:
    """Print a question with a table of answers, and below it what they rest on."""
    from rich.console import Console
    from rich.table import Table

    from longfocus.cli.drawing import draw_citations
    from longfocus.cli.text import plain

    asked = group[0].asked
    print(f"> {plain(asked.question)}")
    if asked.answers:
        print(f"  wanted: {plain('; '.join(asked.answers))}")
    table = Table("subject", "answer", "reading", "answering", "tokens", box=None)
    for compared in group:
        reply = compared.reply
        table.add_row(
            plain(compared.subject),
            plain(f"({compared.error})" if reply is None else " ".join(reply.text.split())),
            f"{compared.reading_seconds:.1f} s",
            f"{compared.seconds:.1f} s",
            f"{reply.prompt_tokens:,}" if reply is not None and reply.prompt_tokens is not None else "",
        )
    Console(width=140, markup=False, highlight=False).print(table)
    for compared in group:
        if compared.reply is not None and compared.reply.citations:
            print(f"{plain(compared.subject)}:")
            draw_citations(
                replace(c, text=shorten(c.text, _SHOWN, placeholder=" ...")) for c in compared.reply.citations
            )
    print()
