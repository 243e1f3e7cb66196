"""Which layers find what a question asks for, untrained: the share of questions whose passage is among the best 8.

    python benchmarks/finding.py DATA [--layers 4-29] [--together 9,14,15,18] [--records 680lines,100k] [--number 12]
                                   [--books 6]

DATA is a folder with books and NarrativeQA's questions, as for `longfocus eval bookqa`; only books of the split "valid"
are used. Every layer in question gets a memory and is judged by its own account of attention; so are the layers
`--together`, each scaled to one, and BM25 over the same passages.

    records   LongChat's lines of these lengths, `--number` questions on each
    needles   so many facts in 16K tokens of books, that share no word with their questions
    books     questions whose answer stands in the book word for word; any passage that has it counts
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

LARGEST_BOOK = 400_000  # characters
BEST = 8


def hits(session, question: str, wanted, layers, together) -> dict[str, bool]:
    """Whether a passage that is `wanted`, told by its text, is among the best ones, by ways to find it."""
    from longfocus.asking.account import Tally
    from longfocus.asking.passages import find_passages, split_sentences
    from longfocus.evaluation.subjects.retrievers import Bm25

    book = session.book
    tally = session.looked_up(question, 1).attention
    accounts = {f"layer {layer}": [layer] for layer in layers}
    accounts["together"] = together
    found = {}
    for name, chosen in accounts.items():
        part = Tally(len(book.ids))
        part.layers = {layer: tally.layers[layer] for layer in chosen}
        best = find_passages(book, part.attention, BEST, join=False)
        found[name] = any(wanted(passage.text) for passage in best)
    texts = [book.text[a:b] for span in book.manifest.spans for a, b in split_sentences(book.text, *span)]
    found["BM25"] = any(wanted(texts[place]) for place, score in Bm25().index(texts).best(question, BEST) if score > 0)
    return found


def sheets(options, count):
    """Name of the measure, document, and its questions, each with what tells a passage that is wanted."""
    from longfocus.evaluation.task import Length
    from longfocus.evaluation.tasks.lines import Lines
    from longfocus.evaluation.tasks.needle import BookNeedle
    from longfocus.training.book_questions import books_of

    for length in options.records.split(","):
        sheet = Lines().sheet(Length.parse(length), 1, count, options.number, options.seed)
        keys = [re.search(r"in line (\S+)\?", question.text)[1] for question in sheet.questions]
        starts = [f"line {key}:" for key in keys]
        yield (
            length,
            sheet.document,
            [
                (each.text, lambda line, start=start: line.startswith(start))
                for each, start in zip(sheet.questions, starts, strict=True)
            ],
        )
    for number in range(options.number):
        sheet = BookNeedle(options.data, "valid").sheet(Length(16384), number, count, 1, options.seed)
        name = re.compile(rf"\b{sheet.questions[0].answers[0]}\b")
        yield "needles", sheet.document, [(sheet.questions[0].text, name.search)]
    stories = [(book, book.story()) for book in books_of(options.data)]
    for book, story in [pair for pair in stories if len(pair[1]) <= LARGEST_BOOK][: options.books]:
        asked = []
        for question in book.questions:
            answers = [re.sub(r"^(the|an?|his|her|by|in|to|at) ", "", each.lower()) for each in question.answers]
            spaced = [r"\s+".join(map(re.escape, each.rstrip(" .").split())) for each in answers if len(each) > 3]
            wanted = re.compile(rf"\b({'|'.join(spaced)})\b", re.IGNORECASE)
            if spaced and 0 < len(wanted.findall(story)) < 40:
                asked.append((question.text, wanted.search))
        yield "books", story, asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--layers", default="4-29")
    parser.add_argument("--together", default="9,14,15,18")
    parser.add_argument("--records", default="680lines,100k")
    parser.add_argument("--number", type=int, default=12)
    parser.add_argument("--books", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from longfocus.evaluation.subjects.book import BookSubject
    from longfocus.loading.layer_numbers import layer_numbers
    from longfocus.loading.load import load

    layers, together = layer_numbers(options.layers), layer_numbers(options.together)
    subject = BookSubject(load(adapter=None, mem_layers=layers))
    figures = defaultdict(lambda: defaultdict(list))
    for name, document, questions in sheets(options, subject.count):
        with subject.read(document, "chat") as opened:
            for text, wanted in questions:
                for way, hit in hits(opened.session, text, wanted, layers, together).items():
                    figures[way][name].append(hit)
        print(f"{name}: {len(figures['BM25'][name])} questions so far", flush=True)
    names = list(figures["BM25"])
    print(" " * 12 + "".join(f"{name:>12}" for name in names))
    for way, found in figures.items():
        print(f"{way:12}" + "".join(f"{sum(found[name]) / len(found[name]):12.2f}" for name in names))


if __name__ == "__main__":
    main()
