"""Tasks of EleutherAI's lm-evaluation-harness, put to a model with memory.

The harness brings its hundreds of tasks (RULER, LongBench and BABILong among them) and their metrics; from here it gets
a model whose input may be as long as memory allows. Its own figures are kept as it gives them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longfocus.errors import RequestError
from longfocus.evaluation.figures import Figure
from longfocus.evaluation.harness_answers import HarnessAnswers
from longfocus.evaluation.identity import identity_of
from longfocus.evaluation.records import Attempt, AttemptFile
from longfocus.loading.load import LoadedModel
from longfocus.loading.prompts import bare_opening_ids

PREFIX = "harness:"
"""What a task of the harness has before its name."""
SUITES = {
    "longllama": (
        "anli_r1", "anli_r2", "anli_r3", "arc_challenge", "arc_easy", "boolq", "hellaswag", "openbookqa", "piqa",
        "record", "rte", "truthfulqa_mc1", "truthfulqa_mc2", "wic", "winogrande",
    ),
}  # fmt: skip
"""Several tasks by one name. "longllama": those of LongLLaMA's table of tasks with short input, zero-shot, which has 21
figures of them."""
_MISSING = "these tasks need the harness: pip install longfocus[harness]"
_LONGEST = 1 << 30
_SHOWN = 2000  # characters of an answer that are kept with its score
_Z = 1.959963984540054


@dataclass(frozen=True)
class HarnessPlan:
    """What to run.

    Attributes:
        tasks: Names as the harness has them, or of SUITES.
        limit: Most examples of a task; None for all.
        shots: Examples in the prompt; None for what the task has.
        include: A folder with further tasks in the harness's form.
        chat: Whether prompts go through the tokenizer's chat template.
        batch: Examples at once.
        seed: Of all that is drawn.
    """

    tasks: tuple[str, ...]
    limit: int | None = None
    shots: int | None = None
    include: Path | None = None
    chat: bool = False
    batch: int = 1
    seed: int = 0


def harness_model(loaded: LoadedModel, batch: int = 1, answers: HarnessAnswers | None = None) -> Any:
    """The harness's `LM` around a model; what it said before is taken from `answers`, and what it says goes there.

    A beginning-of-sequence token stands first where the tokenizer puts one, as LLaMA's do; without it LongLLaMA's
    models lose some points. Nothing is cut off at the left, however long.

    Raises:
        RequestError: The harness is not installed.
    """
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError:
        raise RequestError(_MISSING) from None
    begins = bool(bare_opening_ids(loaded.tokenizer))

    class Kept(HFLM):  # type: ignore[misc]
        """Asks nothing twice, but for what is sampled."""

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._kept("loglikelihood", requests, super().loglikelihood)

        rolling = False

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            self.rolling = True
            try:
                return self._kept("loglikelihood_rolling", requests, super().loglikelihood_rolling)
            finally:
                self.rolling = False

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> Any:
            # of whole texts the harness puts a beginning before what has one already, and would predict the second
            return super().tok_encode(string, False if self.rolling else add_special_tokens, **options)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            if any(request.args[1].get("do_sample") for request in requests):
                return super().generate_until(requests)
            return self._kept("generate_until", requests, super().generate_until)

        def _kept(self, kind: str, requests: Any, ask: Any) -> Any:
            return ask(requests) if answers is None else answers.asked(kind, requests, ask)

    model = Kept(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        backend="causal",
        add_bos_token=begins,
        max_length=_LONGEST,
        batch_size=batch,
    )
    if answers is not None:
        model.set_cache_hook(answers)
    return model


def known_tasks(plan: HarnessPlan) -> Any:
    """The harness's `TaskManager`, which knows the plan's tasks; needs no model.

    Raises:
        RequestError: The harness is not installed, or does not know a task.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise RequestError(_MISSING) from None
    if plan.include is not None and not plan.include.is_dir():
        raise RequestError(f"{plan.include} is no folder; --include wants one with tasks in the harness's form")
    manager = TaskManager(include_path=None if plan.include is None else str(plan.include))
    if unknown := [name for name in _names(plan.tasks) if not manager.match_tasks([name])]:
        raise RequestError(f"the harness has no task {unknown[0]}; `lm-eval ls tasks` lists them")
    return manager


def run_harness(loaded: LoadedModel, plan: HarnessPlan, out: Path | None = None) -> list[Figure]:
    """Run tasks of the harness.

    Args:
        loaded: The model.
        plan: What to run.
        out: A folder for the harness's whole result (`harness.json`), the score of each example (`harness.jsonl`) and
            what the model said (`harness/answers.jsonl`), from which a run that was stopped goes on; None for nowhere.

    Returns:
        A figure for each metric that the harness gives, named `harness:TASK METRIC`, with 1.96 of its standard errors
        on either side.

    Raises:
        RequestError: The harness is not installed, does not know a task, or cannot get its data.
    """
    identity = _identity(loaded, plan)
    answers = None if out is None else HarnessAnswers(out / "harness" / "answers.jsonl", identity)
    model = harness_model(loaded, plan.batch, answers)
    from lm_eval import simple_evaluate

    manager = known_tasks(plan)
    try:
        found = simple_evaluate(
            model=model,
            tasks=list(_names(plan.tasks)),
            num_fewshot=plan.shots,
            limit=plan.limit,
            apply_chat_template=plan.chat,
            task_manager=manager,
            random_seed=plan.seed,
            numpy_random_seed=plan.seed,
            torch_random_seed=plan.seed,
            fewshot_random_seed=plan.seed,
            log_samples=out is not None,
        )
    except (OSError, ConnectionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"the harness could not get what its tasks need ({reason})") from error
    assert found is not None  # in the one process that there is
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _keep(found["samples"], AttemptFile(out / "harness.jsonl"), Path(loaded.name).name, identity, plan.seed)
        kept = {name: found[name] for name in ("results", "n-samples", "versions") if name in found}
        (out / "harness.json").write_text(json.dumps(kept, indent=1, default=str) + "\n", encoding="utf-8")
    counts = {name: held["effective"] for name, held in found["n-samples"].items()}
    return _figures(found["results"], counts, Path(loaded.name).name)


def _identity(loaded: LoadedModel, plan: HarnessPlan) -> str:
    shots = "usual" if plan.shots is None else plan.shots
    return f"{identity_of(loaded)} harness shots={shots} chat={plan.chat}"


def _keep(
    samples: Mapping[str, Sequence[Mapping[str, Any]]], kept: AttemptFile, subject: str, identity: str, seed: int
) -> None:
    """Add each example's scores that are numbers from 0 to 1; the harness has others, of whole sets."""
    for task, examples in samples.items():
        for example in examples:
            for metric in example["metrics"]:
                value = example[metric]
                if not isinstance(value, int | float) or not 0 <= value <= 1:
                    continue
                kind = "" if example["filter"] == "none" else f" {example['filter']}"
                attempt = Attempt(
                    task=f"{PREFIX}{task} {metric}{kind}",
                    subject=subject,
                    identity=identity,
                    length="-",
                    seed=seed,
                    sheet=example["doc_id"],
                    question=0,
                    prompt=example["prompt_hash"][:16],
                    tokens=0,
                    depth=None,
                    answers=(str(example["target"]),),
                    answer=json.dumps(example["filtered_resps"], default=str, ensure_ascii=False)[:_SHOWN],
                    score=float(value),
                    loss=None,
                    predicted=0,
                    more={},
                    reading_seconds=0.0,
                    seconds=0.0,
                    peak_bytes=0,
                )
                before = kept.current(attempt.place)
                if before is None or before.prompt != attempt.prompt:
                    kept.add(attempt)


def _names(tasks: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for task in tasks for name in SUITES.get(task, (task,))))


def _figures(results: dict[str, dict[str, Any]], counts: dict[str, int], subject: str) -> list[Figure]:
    figures = []
    for task, metrics in results.items():
        for key, value in metrics.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = metrics.get(f"{metric}_stderr,{kind}")
            half = _Z * error if isinstance(error, int | float) else float("nan")
            name = f"{PREFIX}{task} {metric}" + ("" if kind == "none" else f" {kind}")
            ends = value, value - half, value + half
            count = counts.get(task, 0)
            figures.append(Figure(name, subject, "-", count, *ends, 0.0, 0.0, 0.0, 0, {}, documents=count))
    return figures
