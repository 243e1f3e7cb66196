"""Read a document once, ask it two questions, and show the passages that the answers rest on.

python examples/read_and_ask.py [DOCUMENT [MODEL]]

Without arguments it reads the short story that comes with the package, with the default model. The Book stays on the
shelf: run it again and nothing is read twice.
"""

import sys
from pathlib import Path

import longfocus

SAMPLE = Path(longfocus.__file__).parent / "samples" / "cask_of_amontillado.txt"
QUESTIONS = ("Who is Fortunato?", "What does the narrator build at the end of the vault?")


def show(progress: longfocus.ReadProgress) -> None:
    print(f"\r{progress.tokens:,} of {progress.total:,} tokens", end="", file=sys.stderr)


def main(document: str | Path = SAMPLE, model: str | None = None) -> None:
    book = longfocus.read(document, model, on_progress=show)
    print(f"\n{book.title}: {len(book):,} tokens")
    for question in QUESTIONS:
        answer = book.ask(question, sampling=longfocus.Sampling(max_new_tokens=60))
        print(f"\n> {question}\n{answer.text}")
        for citation in answer.citations:
            place = citation.chapter or f"characters {citation.start:,} to {citation.end:,}"
            print(f"  [{citation.score:.2f}, {place}] {' '.join(citation.text.split())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
