"""`longfocus eval`: tasks put to models, with every answer kept."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longfocus.cli.options import KeyVariable, Model

if TYPE_CHECKING:
    from longfocus.evaluation.figures import Figure
    from longfocus.evaluation.runner import Plan
    from longfocus.evaluation.sharing import Sharing
    from longfocus.evaluation.subject import Subject
    from longfocus.evaluation.task import Length, Task
    from longfocus.evaluation.tasks.topics import Judge

ALL = "all"
_VERDICT = 8  # tokens, of which one should do


def eval(
    tasks: Annotated[
        list[str], typer.Argument(help="Which tasks, or `harness:TASK` of lm-evaluation-harness; `list` names them.")
    ],
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Lengths of documents with commas between them: 4k,32k are tokens; or 200lines, 20topics, whole. "
            "Each task takes those in its units.  [default: what suits the task]"
        ),
    ] = None,
    limit: Annotated[str, typer.Option(help="Questions at each length; `all` where a task has an end.")] = "10",
    per_document: Annotated[
        int | None, typer.Option(help="Most questions on one document; by default what suits the task.", min=1)
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Over how many draws of documents to spread the questions evenly.  [default: 20 for trec and webqs]",
            min=1,
        ),
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="Whom to ask; may be given several times: memory, window, nothing, full, full:yarn, bm25, "
            "dense:FOLDER, openai:MODEL, anthropic:MODEL, bm25+openai:MODEL.  [default: memory]"
        ),
    ] = None,
    model: Model = None,
    adapter: Annotated[str, typer.Option(help="As for `longfocus read`.")] = "usual",
    data: Annotated[Path, typer.Option(help="Folder with the data sets that some tasks need.")] = Path("data"),
    cases: Annotated[Path | None, typer.Option(help="For the task `cases`: a file of LongEval's test cases.")] = None,
    books: Annotated[Path | None, typer.Option(help="For `bookqa`: a folder of your own books.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="For `bookqa`: questions on them, JSON lines of book, question, answers.")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="A subject, such as openai:MODEL, that also judges the answers to `topics`, as in LongEval."),
    ] = None,
    include: Annotated[Path | None, typer.Option(help="A folder of tasks in the harness's form.")] = None,
    shots: Annotated[
        int | None, typer.Option(help="For the harness: examples in the prompt.  [default: what the task has]", min=0)
    ] = None,
    batch: Annotated[int, typer.Option(help="For the harness: examples at once.", min=1)] = 1,
    chat: Annotated[
        bool, typer.Option("--chat", help="For the harness: prompts in the model's own form of a conversation.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where every answer is kept; what is there is not done again.")] = Path(
        "eval"
    ),
    plots: Annotated[Path | None, typer.Option(help="Folder for pictures, as for `longfocus report`.")] = None,
    seed: Annotated[int, typer.Option(help="What examples are drawn from.")] = 0,
    key_variable: KeyVariable = "",
    thinking: Annotated[
        int, typer.Option(help="Tokens on top of an answer's for models that think before they answer.", min=0)
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Measure a model, at any length, with every answer kept.

    Started by `accelerate launch` or `torchrun` in several processes, these share the documents out.
    """
    from longfocus.cli.drawing import draw_figures, say, waiting
    from longfocus.cli.options import adapter_of
    from longfocus.evaluation.tasks import TASKS, Sources, tasks_of

    if tasks == ["list"]:
        print("\n".join(TASKS))
        return
    with waiting("loading"):
        from longfocus.evaluation.alone_in import alone_in
        from longfocus.evaluation.harness import PREFIX, HarnessPlan, known_tasks, run_harness
        from longfocus.evaluation.runner import Plan
        from longfocus.evaluation.sharing import Sharing
        from longfocus.evaluation.subjects import LocalModel, SubjectOptions, subject_of
        from longfocus.loading.load import load

        # what cannot be is told before anything is loaded
        named = [name for name in tasks if not name.startswith(PREFIX)]
        theirs = tuple(name.removeprefix(PREFIX) for name in tasks if name.startswith(PREFIX))
        harness = HarnessPlan(theirs, _number(limit), shots, include, chat, batch, seed)
        if theirs:
            _only_memory(subject)
            known_tasks(harness)
        local = LocalModel(lambda: load(model, adapter=adapter_of(adapter), progress=say), model)
        options = SubjectOptions(key_variable=key_variable, thinking=thinking)
        sources = Sources(data, cases, books, questions)
        made = tasks_of(named, sources)
        for task in made:
            _examples(task, limit)
            _lengths(task, lengths)
            task.look()
        if judge is not None:
            made = tasks_of(named, replace(sources, judge=_judging(subject_of(judge, local, options, say))))
        measured = {task.name: _lengths(task, lengths) for task in made}
        asked = dict.fromkeys(subject or ["memory"]) if made else ()
        subjects = [subject_of(name, local, options, say) for name in asked]
        sharing = Sharing.here()
    with alone_in(out, sharing.first):
        sharing.wait()  # the others begin when the first has found the folder free
        for task in made:
            for one in subjects:
                plan = Plan(measured[task.name], _examples(task, limit), per_document, seed, draws)
                _run(task, one, plan, out, sharing)
        sharing.wait()
        if not sharing.first:
            return
        found = [
            figure
            for task in made
            for one in subjects
            for figure in _figures(task, one, measured[task.name], out, seed)
        ]
        found += run_harness(local.loaded, harness, out) if theirs else []
    if as_json:
        print(json.dumps([figure.to_json() for figure in found], indent=2))
    else:
        draw_figures(found)
    if plots is not None and made:
        from longfocus.evaluation.plots import save_pictures
        from longfocus.evaluation.results import attempts_in, grids

        attempts = attempts_in([out])
        for path in save_pictures(attempts, grids(attempts), plots):
            say(str(path))


def _lengths(task: "Task", lengths: str | None) -> "tuple[Length, ...]":
    """Those that are in the task's units.

    Raises:
        RequestError: None is.
    """
    from longfocus.errors import RequestError
    from longfocus.evaluation.task import Length

    wanted = [Length.parse(length) for length in (lengths.split(",") if lengths else task.usual_lengths)]
    fitting = tuple(length for length in wanted if length.unit in task.units)
    if not fitting:
        raise RequestError(f"{task.name} measures documents in {' or '.join(task.units)}, not in {wanted[0].unit}")
    return fitting


def _number(limit: str) -> int | None:
    """How many questions; None for all.

    Raises:
        RequestError: It is neither.
    """
    from longfocus.errors import RequestError

    if limit.strip().lower() == ALL:
        return None
    if not limit.strip().isdecimal() or not int(limit):
        raise RequestError(f"--limit is a number of questions from 1, or {ALL}; {limit!r} came")
    return int(limit)


def _examples(task: "Task", limit: str) -> int:
    """How many questions to put to each subject at each length.

    Raises:
        RequestError: All are asked for and there is no end of them.
    """
    from longfocus.errors import RequestError

    number = task.everything() if _number(limit) is None else _number(limit)
    if number is None:
        raise RequestError(f"{task.name} makes up its questions without end; give --limit a number")
    return number


def _only_memory(subjects: list[str] | None) -> None:
    """Tasks of the harness are put to the model with memory alone.

    Raises:
        RequestError: Others are named.
    """
    from longfocus.errors import RequestError

    if others := [name for name in subjects or () if name != "memory"]:
        raise RequestError(
            f"tasks of the harness are put to the subject memory alone, not to {others[0]}; run them without --subject"
        )


def _judging(subject: "Subject") -> "Judge":
    """The subject as one that replies to a prompt."""
    from longfocus.evaluation.tasks.topics import Judge

    def judge(prompt: str) -> str:
        with subject.read("", "chat") as opened:
            return opened.answer(prompt, _VERDICT)

    return Judge(subject.name, judge)


def _run(task: "Task", subject: "Subject", plan: "Plan", out: Path, sharing: "Sharing") -> None:
    """Make what is missing, and show how far it is."""
    from longfocus.cli.drawing import counting, say, waiting
    from longfocus.evaluation.records import NOT_POSSIBLE, AttemptFile
    from longfocus.evaluation.runner import missing, run, stale

    kept = AttemptFile(out / f"{task.name}.jsonl", sharing.process)
    share = (sharing.process, sharing.processes)
    with waiting(f"{task.name}: looking through what {subject.name} answered"):
        changed = stale(task, subject, plan, kept, share)
    if changed:
        say(f"{task.name}: {changed} answers of {subject.name} in {kept.path.parent} are to other words or data; anew")
    with counting(f"{task.name}: {subject.name}", missing(task, subject, plan, kept, share)) as advance:
        for attempt in run(task, subject, plan, kept, share):
            result = f"score {attempt.score:.2f}" if attempt.score is not None else f"loss {attempt.loss or 0:.1f}"
            place = f"{task.name} {attempt.length} {attempt.sheet}.{attempt.question}"
            if attempt.refused:
                why = (
                    attempt.refused if attempt.refused.startswith(NOT_POSSIBLE) else f"does not fit: {attempt.refused}"
                )
                say(f"{subject.name}: {task.name} {attempt.length} {why}")
            elif not advance():
                say(f"{subject.name}: {place}: {result}, {attempt.seconds:.1f} s")


def _figures(task: "Task", subject: "Subject", lengths: "tuple[Length, ...]", out: Path, seed: int) -> "list[Figure]":
    """Of all processes, with what was there before."""
    from longfocus.evaluation.figures import figures
    from longfocus.evaluation.records import AttemptFile

    attempts = AttemptFile(out / f"{task.name}.jsonl").attempts
    shown = set(map(str, lengths))
    return figures([a for a in attempts if a.identity == subject.identity and a.seed == seed and a.length in shown])
