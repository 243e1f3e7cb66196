"""`longfocus eval`: tasks put to a model, with every answer kept."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer


def eval(
    tasks: Annotated[list[str], typer.Argument(help="Which tasks: passkey, passkey-reference, lines, perplexity.")],
    lengths: Annotated[
        str, typer.Option(help="Lengths of documents with commas between them: 4k,32k are tokens; or 200lines.")
    ] = "4k",
    examples: Annotated[int, typer.Option("--limit", help="Questions at each length.", min=1)] = 10,
    questions: Annotated[
        int | None, typer.Option(help="Most questions on one document; by default what suits the task.", min=1)
    ] = None,
    uses: Annotated[
        Literal["memory", "window", "nothing"],
        typer.Option(help="What answers may rest on: the whole Book, its end, or nothing of it."),
    ] = "memory",
    model: Annotated[
        str | None, typer.Option(help="A folder, a GGUF file or a hub name; by default the default model.")
    ] = None,
    adapter: Annotated[str, typer.Option(help="As for `longfocus read`.")] = "usual",
    data: Annotated[Path, typer.Option(help="Folder with the data sets that some tasks need.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Where every answer is kept; what is there is not done again.")] = Path(
        "eval"
    ),
    seed: Annotated[int, typer.Option(help="What examples are drawn from.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Measure a model, at any length, with every answer kept."""
    from longfocus.cli.drawing import draw_figures, say, waiting
    from longfocus.cli.options import adapter_of
    from longfocus.errors import RequestError

    with waiting("loading the model"):
        from longfocus.evaluation.records import AttemptFile
        from longfocus.evaluation.runner import Plan, figures, run
        from longfocus.evaluation.subjects.book import BookSubject
        from longfocus.evaluation.task import Length
        from longfocus.evaluation.tasks import TASKS
        from longfocus.loading.load import load

        measured = tuple(Length.parse(length) for length in lengths.split(","))
        if unknown := [task for task in tasks if task not in TASKS]:
            raise RequestError(f"there is no task {unknown[0]}; there are {', '.join(TASKS)}")
        made = [TASKS[name](data) for name in tasks]
        subject = BookSubject(load(model, adapter=adapter_of(adapter), progress=say), uses)
    found = []
    for task in made:
        kept = AttemptFile(out / f"{task.name}.jsonl")
        plan = Plan(measured, examples, questions, seed)
        for attempt in run(task, subject, plan, kept):
            result = f"score {attempt.score:.2f}" if attempt.score is not None else f"loss {attempt.loss:.1f}"
            say(f"{task.name} {attempt.length} {attempt.sheet}.{attempt.question}: {result}, {attempt.seconds:.1f} s")
        mine = [a for a in kept.attempts if a.identity == subject.identity and a.seed == seed]
        found += figures([a for a in mine if a.length in map(str, measured)])
    if as_json:
        print(json.dumps([figure.to_json() for figure in found], indent=2))
    else:
        draw_figures(found)
