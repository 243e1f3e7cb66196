"""Books and questions in the form of NarrativeQA's files."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path


def write_questioned_books(folder: Path, texts: Mapping[str, str], questions: int, split: str = "test") -> None:
    """Each book is a file of its own, with so many questions, of which each has two answers."""
    (folder / "books").mkdir()
    (folder / "narrativeqa").mkdir()
    books, asked = [], []
    for name, text in texts.items():
        (folder / "books" / f"{name}.txt").write_text(text, encoding="utf-8")
        book = {"file": f"books/{name}.txt", "title": name.title(), "body_start": 0, "body_end": len(text)}
        books.append(book | {"narrativeqa_document_id": name, "narrativeqa_set": split})
        for number in range(questions):
            answers = [f"captain number{number} of {name} .", f"number{number}"]
            question = f"Who is number {number} of {name} ?"
            asked.append({"id": f"{name}{number}", "document_id": name, "set": split, "question": question})
            asked[-1]["answers"] = answers
    (folder / "books" / "index.json").write_text(json.dumps(books))
    with gzip.open(folder / "narrativeqa" / "qa_valid_test.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, asked)))
