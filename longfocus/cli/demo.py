"""`longfocus demo`: the main job on a short book that ships with the package."""

import tempfile
from pathlib import Path

SAMPLE = Path(__file__).parent.parent / "samples" / "cask_of_amontillado.txt"
QUESTIONS = ("What is the motto of the Montresor family?", "What does the narrator build at the end of the vault?")


def demo() -> None:
    """Read a short book and ask it a question, to see it work."""
    from longfocus.cli.drawing import draw_citations, draw_reading, say, stream_text, waiting
    from longfocus.reading.documents import load_document

    document = load_document(SAMPLE)
    with waiting("getting the default model"):
        from longfocus.asking.session import Answer, Session
        from longfocus.loading.load import load
        from longfocus.loading.packed_weights import for_writing
        from longfocus.memory.book import StoredBook
        from longfocus.reading.reader import read_steps

        loaded = load(progress=say)
    with tempfile.TemporaryDirectory(prefix="longfocus-demo-") as folder:
        last = draw_reading(read_steps(document, loaded, Path(folder, "demo.book")), document.title)
        print(f"read “{document.title}”: {last.total:,} tokens in {last.seconds:.1f} s\n")
        session = Session(StoredBook.open(Path(folder, "demo.book")), for_writing(loaded))
        for question in QUESTIONS:
            print(f"> {question}")
            answer = stream_text(session.stream(question))
            assert isinstance(answer, Answer)
            draw_citations(answer.citations)
            print()
    print('Now with a book of yours: longfocus read BOOK.epub, then longfocus ask BOOK.epub "..."')
