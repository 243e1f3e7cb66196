"""Does an answer rest on the passages it cites? Hide each from the model and see how much less likely the answer is.

python examples/faithfulness.py [DOCUMENT [MODEL [QUESTION]]]
"""

import sys
from pathlib import Path

import longfocus

SAMPLE = Path(longfocus.__file__).parent / "samples" / "cask_of_amontillado.txt"


def main(
    document: str | Path = SAMPLE, model: str | None = None, question: str = "What wine does Fortunato hope to taste?"
) -> None:
    book = longfocus.read(document, model)
    answer = book.ask(question, sampling=longfocus.Sampling(max_new_tokens=40))
    print(f"> {question}\n{answer.text}")
    for citation in answer.citations:
        found = book.faithfulness(answer, citation)
        # in natural logarithms: 0 says that the passage did not matter, 2.3 that the answer is ten times less likely
        print(f"  drop {found.drop:+.2f} without {found.hidden_tokens} tokens: {' '.join(citation.text.split())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
