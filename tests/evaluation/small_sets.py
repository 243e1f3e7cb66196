"""Data sets of a few made-up records, in the form of the ones that tasks read."""

import gzip
import json

CLASSES = ("ABBR:exp", "DESC:def", "ENTY:animal", "HUM:ind", "LOC:city", "NUM:date", "NUM:other")
SHARED = "What stands in both files ?"


def write_classified_questions(folder):
    """As TREC: 200 to learn from, 30 to be asked; one of the latter is among the former, in other letters."""
    (folder / "trec").mkdir()
    lines = [f"{CLASSES[number % len(CLASSES)]} What is the number {number} ?" for number in range(200)]
    lines += [f"HUM:ind {SHARED.upper()}", "HUM:ind Who is á ?", lines[0]]
    (folder / "trec" / "train_5500.label").write_text("\n".join(lines) + "\n", encoding="iso-8859-1")
    lines = [f"{CLASSES[number % len(CLASSES)]} What is the other number {number} ?" for number in range(29)]
    (folder / "trec" / "TREC_10.label").write_text("\n".join([*lines, f"HUM:ind {SHARED}"]) + "\n")


def write_answered_questions(folder):
    """As WebQuestions: 200 to learn from, 30 to be asked, with one answer or two."""
    (folder / "webquestions").mkdir()
    for name, amount in (("train", 200), ("test", 30)):
        with gzip.open(folder / "webquestions" / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            for number in range(amount):
                answers = [f"The {name} {number}", f"Number {number}"][: 1 + number % 2]
                asked = {"id": number, "question": f"what is {name} number {number}?", "answers": answers}
                file.write(json.dumps(asked) + "\n")


def write_programming_problems(folder, problems=8):
    """As HumanEval."""
    (folder / "humaneval").mkdir()
    with gzip.open(folder / "humaneval" / "HumanEval.jsonl.gz", "wt") as file:
        for number in range(problems):
            record = {
                "task_id": f"HumanEval/{number}",
                "prompt": f'\n\ndef add_{number}(x: int) -> int:\n    """ Add {number}. """\n',
                "entry_point": f"add_{number}",
                "canonical_solution": f"    return x + {number}\n",
                "test": f"\n\ndef check(candidate):\n    assert candidate(2) == {2 + number}\n",
            }
            file.write(json.dumps(record) + "\n")
