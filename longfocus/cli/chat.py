"""`longfocus chat`: a conversation with a Book."""

import sys
from typing import Annotated

import typer

from longfocus.cli.options import LookUp, Memory, Quantize, open_session


def chat(
    book: Annotated[str, typer.Argument(help="A Book: its folder, its document, or its name on the shelf.")],
    model: Annotated[
        str | None, typer.Option(help="The model that read the Book, if it is not the default one.")
    ] = None,
    adapter: Annotated[str, typer.Option(help="The adapter that it read with, as for `longfocus read`.")] = "usual",
    citations: Annotated[int, typer.Option(help="Most passages to cite.", min=0)] = 3,
    look_up: LookUp = None,
    memory: Memory = "auto",
    quantize: Quantize = "auto",
    max_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.", min=1)] = 128,
    temperature: Annotated[float, typer.Option(help="0 for the likeliest words; more for freer ones.", min=0.0)] = 0.0,
) -> None:
    """Talk with a book, one question after another."""
    from longfocus.cli.drawing import draw_citations, say, stream_text
    from longfocus.errors import RequestError

    session = open_session(book, model, adapter, memory, quantize)
    from longfocus.asking.conversation import Conversation
    from longfocus.asking.generation import Sampling
    from longfocus.asking.session import Answer

    talk = Conversation(session, Sampling(max_new_tokens=max_tokens, temperature=temperature), citations, look_up)
    say(f"{session.book.manifest.title}: ask; an empty line or Ctrl-D ends")
    while True:
        if sys.stdin.isatty():
            sys.stderr.write("> ")
            sys.stderr.flush()
        question = sys.stdin.readline()
        if not question.strip():
            return
        try:
            answer = stream_text(talk.stream(question))
        except RequestError as error:  # a question that is too long ends no conversation
            say(str(error))
            continue
        assert isinstance(answer, Answer)
        draw_citations(answer.citations)
