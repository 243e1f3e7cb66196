"""Answers to what is no longer asked: when a task's words or data have changed, what was kept is asked anew.

Each answer is kept with the hash of what was asked. Before a run goes on, the sheets of what it kept are made again,
and answers to other prompts are withdrawn: they stay in their file, but count no more. Answers beyond what the run asks
for are looked at as well, since its figures are of all that there is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from longfocus.evaluation.records import Attempt, AttemptFile, prompt_hash
from longfocus.evaluation.subject import Subject
from longfocus.evaluation.task import DoesNotFit, Length, Sheet, Task


def withdraw_stale(
    task: Task,
    subject: Subject,
    length: Length,
    seed: int,
    questions: int | None,
    kept: AttemptFile,
    share: tuple[int, int] = (0, 1),
) -> int:
    """Withdraw kept answers to prompts other than those that the task has now; each file is looked through once.

    What was answered to the prompt of now before another came between counts again.

    Args:
        task: Makes the prompts.
        subject: Counts tokens; only its own answers are looked at.
        length: Of documents.
        seed: Of the run.
        questions: Most questions on one document; None for what the task has.
        kept: What was answered.
        share: Which of how many processes this is: sheets are dealt out in turn.

    Returns:
        How many answers are to be asked for anew.

    Raises:
        RequestError: The task cannot be made.
    """
    group = task.name, subject.identity, str(length), seed
    if (group, share) in kept.checked:
        return 0
    kept.checked.add((group, share))
    sheets: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in kept.attempts:
        if attempt.place[:4] == group and not attempt.refused and attempt.sheet % share[1] == share[0]:
            sheets[attempt.sheet].append(attempt)
    withdrawn = 0
    for number, attempts in sheets.items():
        most = max(questions or task.questions, 1 + max(attempt.question for attempt in attempts))
        sheet = _sheet(task, length, number, subject, most, seed)
        for attempt in attempts:
            if attempt.question < len(sheet.questions):
                now = sheet.questions[attempt.question]
                prompt = prompt_hash(sheet.document, now.text)
                if (attempt.prompt, attempt.answers) == (prompt, now.answers):
                    continue
                earlier = kept.earlier(attempt.place, prompt)
                if earlier is not None and earlier.answers == now.answers:
                    kept.add(earlier)
                    continue
            kept.add(replace(attempt, withdrawn=True))
            withdrawn += 1
    return withdrawn


def _sheet(task: Task, length: Length, number: int, subject: Subject, most: int, seed: int) -> Sheet:
    """The sheet as it is now; without questions where there is none of this number and length."""
    if not task.size(number, most, seed):
        return Sheet("", ())
    try:
        return task.sheet(length, number, subject.count, most, seed)
    except DoesNotFit:
        return Sheet("", ())
