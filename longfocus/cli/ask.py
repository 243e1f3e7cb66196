"""`longfocus ask`: questions to a Book, answered with citations."""

import json
from typing import Annotated, Any

import typer

from longfocus.cli.options import LookUp, Memory, Quantize, open_session, uses_of


def ask(
    book: Annotated[str, typer.Argument(help="A Book: its folder, its document, or its name on the shelf.")],
    questions: Annotated[list[str], typer.Argument(help="What to ask; no question knows of the others.")],
    model: Annotated[
        str | None, typer.Option(help="The model that read the Book, if it is not the default one.")
    ] = None,
    adapter: Annotated[str, typer.Option(help="The adapter that it read with, as for `longfocus read`.")] = "usual",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON list with an object for each question.")
    ] = False,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Answer without the Book, to compare.")] = False,
    window_only: Annotated[
        bool, typer.Option("--window-only", help="Answer with only what fits the window at the Book's end, to compare.")
    ] = False,
    citations: Annotated[int, typer.Option(help="Most passages to cite.", min=0)] = 3,
    look_up: LookUp = None,
    memory: Memory = "auto",
    quantize: Quantize = "auto",
    max_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.", min=1)] = 128,
    temperature: Annotated[float, typer.Option(help="0 for the likeliest words; more for freer ones.", min=0.0)] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes an answer at a temperature above 0 repeatable.")] = None,
) -> None:
    """Ask a book a question; the answer cites its passages.

    Several questions are answered together, eight at a time, and told in turn.
    """
    from longfocus.cli.drawing import draw_citations, say, stream_text

    uses = uses_of(no_memory, window_only)
    session = open_session(book, model, adapter, memory, quantize)
    from longfocus.asking.generation import Sampling
    from longfocus.asking.session import Answer
    from longfocus.asking.together import one_by_one, stream_together

    sampling = Sampling(max_new_tokens=max_tokens, temperature=temperature, seed=seed)
    if len(questions) > 1 and uses == "memory":  # together they take little longer than one
        together = stream_together(session, questions, sampling=sampling, citations=citations, look_up=look_up)
        streams = one_by_one(together, len(questions))
    else:
        how: dict[str, Any] = {"uses": uses, "sampling": sampling, "citations": citations, "look_up": look_up}
        streams = (session.stream(question, **how) for question in questions)
    answers = []
    for question, pieces in zip(questions, streams, strict=True):
        if as_json:
            answer = [piece for piece in pieces if isinstance(piece, Answer)][-1]
            answers.append(answer.to_json())
            continue
        if len(questions) > 1:
            print(f"> {question}")
        written = stream_text(pieces)
        assert isinstance(written, Answer)
        draw_citations(written.citations)
        times = written.timings
        say(
            f"{times.first_token:.2f} s to the first word, "
            f"{times.answer_tokens} tokens at {times.tokens_per_second:.1f}/s"
        )
    if as_json:
        print(json.dumps(answers, ensure_ascii=False, indent=2))
