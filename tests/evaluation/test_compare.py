"""Comparing on a document of one's own: questions from a file, subjects by name, answers with places in the text."""

from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from longfocus.asking.passages import Citation
from longfocus.errors import DocumentError, RequestError
from longfocus.evaluation.compare import Asked, Source, compare, load_questions
from longfocus.evaluation.subjects import SUBJECTS, LocalModel, SubjectOptions, subject_of
from longfocus.evaluation.subjects.book import BookSubject
from longfocus.evaluation.subjects.retrieval import RetrievalSubject
from longfocus.evaluation.subjects.retrievers import Bm25
from longfocus.loading.prompts import encode_text
from longfocus.memory.book import StoredBook
from longfocus.memory.sections import Section
from longfocus.reading.documents import Document
from tests.evaluation.test_tasks import Known

ASKED = [Asked("Who is it?", ("a captain",)), Asked("Where?"), Asked("Who is it?")]


@dataclass
class Picky(Known):
    """Refuses a question, or any document."""

    documents: bool = False

    @contextmanager
    def read(self, document, form):
        if not self.documents:
            raise RequestError("the document is too long")
        yield self

    def answer(self, question, most):
        if question == "Where?":
            raise RequestError("nobody knows")
        return "It is a captain."


@pytest.fixture
def local(tiny_model, tiny_folder):
    return LocalModel(lambda: tiny_model, str(tiny_folder))


@pytest.mark.parametrize(
    ("name", "text", "asked"),
    [
        ("q.txt", "\ufeffWho is it? \n\n  Where?\r\n", [Asked("Who is it?"), Asked("Where?")]),
        ("q.txt", "Who is\x0b it?\nWhere\u2028 to?", [Asked("Who is\x0b it?"), Asked("Where\u2028 to?")]),
        ("q.jsonl", '{"question": "Who\u2028is\x85it?"}', [Asked("Who\u2028is\x85it?")]),
        ("q.txt", '{"question": "Who?"}', [Asked('{"question": "Who?"}')]),
        ("q.jsonl", '{"question": "Who?", "answers": ["a", "b"]}', [Asked("Who?", ("a", "b"))]),
        ("q.jsonl", '\n{"question": " Où? "}\n\n', [Asked("Où?")]),
        ("q.jsonl", '{"question": "Who?", "answers": "a", "depth": 3}', [Asked("Who?", ("a",))]),
    ],
)  # fmt: skip
def test_questions(tmp_path, name, text, asked):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert load_questions(tmp_path / name) == asked


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.txt", b" \n\n", "has no questions"),
        ("q.txt", b"\xff\xfe\x00", "is no UTF-8"),
        ("q.txt", None, "cannot be read: No such file"),
        ("q.jsonl", b'{"question": "Who?"}\nWhere?\n', "line 2 of .* is no question; wanted {"),
        ("q.jsonl", b'\n{"answers": []}', "line 2 of"),
        ("q.jsonl", b"[1]", "line 1 of"),
        ("q.jsonl", b'{"question": ""}', "wanted texts"),
        ("q.jsonl", b'{"question": "Who?", "answers": [1]}', "wanted texts"),
        ("q.jsonl", b'{"question": "Who?", "answers": 5}', "wanted texts"),
    ],
)
def test_what_is_no_question(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DocumentError, match=message):
        load_questions(tmp_path / name)


def test_one_who_fails_stops_nobody():
    subjects = [Picky({}, "none"), Picky({}, "some", documents=True), known := Known({"Where?": "At sea."}, "all")]
    found = list(compare(subjects, Source("A text.", ((0, 7),)), ASKED))
    assert [(c.subject, c.number, c.asked) for c in found] == [
        (name, number, asked) for name in ("none", "some", "all") for number, asked in enumerate(ASKED)
    ]
    assert [c.error for c in found] == ["the document is too long"] * 3 + ["", "nobody knows", "", "", "", ""]
    assert [c.reply.text for c in found if c.reply] == ["It is a captain."] * 2 + [
        "I do not know.",
        "At sea.",
        "I do not know.",
    ]
    assert known.read_documents == ["A text."]
    assert [sorted(c.to_json()) for c in found[:1] + found[3:4]] == [
        ["error", "reading_seconds", "seconds", "subject"],
        ["answer", "citations", "prompt_tokens", "reading_seconds", "seconds", "subject"],
    ]


def test_places_are_those_of_the_whole_text():
    text = "LICENCE one two CUT three four LICENCE"
    source = Source(text, ((8, 16), (20, 31)), (Section("chapter", "II", 20, 31), Section("page", "9", 0, 38)))
    assert source.read == "one two three four "
    for word, chapter in (("one", None), ("three", "II"), ("four", "II")):
        start = source.read.index(word)
        placed = source.placed(Citation(word, start, start + len(word), 0.5))
        assert text[placed.start : placed.end] == word
        assert (placed.chapter, placed.page, placed.score) == (chapter, "9", 0.5)
    across = source.placed(Citation("two three", 4, 13, 0.5))
    assert text[across.start : across.end] == "two CUT three"


def test_a_document_for_memory_and_retrieval(tiny_model, tiny_document):
    first = tiny_document.sections[1].start
    body = Document("Part", tiny_document.text, (first, first + 3000), tiny_document.sections)
    subjects = [
        BookSubject(tiny_model),
        RetrievalSubject(BookSubject(tiny_model), Bm25(), tiny_model.tokenizer, size=50),
    ]
    remembered, retrieved = compare(subjects, Source.of_document(body), [Asked("The harbour?")], most=4, citations=2)
    tokens = len(encode_text(tiny_model.tokenizer, body.text[first : first + 3000]))
    assert 0 < remembered.reply.prompt_tokens - tokens < 30
    assert retrieved.reply.prompt_tokens < 200
    for compared in (remembered, retrieved):
        assert compared.reading_seconds > 0 and compared.seconds > 0
        assert len(compared.reply.citations) == 2
        for cited in compared.reply.citations:
            assert body.text[cited.start : cited.end] == cited.text
            assert first <= cited.start < cited.end <= first + 3000
            assert cited.chapter is not None


def test_a_book_is_not_read_again(tiny_model, tiny_book_folder, monkeypatch):
    from longfocus.evaluation.subjects import book as book_module

    monkeypatch.setattr(book_module, "read_steps", None)
    stored = StoredBook.open(tiny_book_folder)
    subjects = [BookSubject(tiny_model), BookSubject(tiny_model, "window"), known := Known({})]
    found = list(compare(subjects, Source.of_book(stored), [Asked("The harbour?")], most=4))
    memory, window, other = found
    assert memory.reply.text and memory.reply.citations and not window.reply.citations and not other.reply.citations
    assert memory.reading_seconds == window.reading_seconds == 0.0
    assert memory.reply.prompt_tokens > len(stored.ids) > window.reply.prompt_tokens > 30
    assert known.read_documents == [stored.text[slice(*stored.manifest.spans[0])]]
    assert all(stored.text[c.start : c.end] == c.text for c in memory.reply.citations)
    cited = memory.to_json()["citations"][0]
    assert {"text", "start", "end", "score"} <= cited.keys() and None not in cited.values()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("memory", "model memory"),
        ("memory:0", "model memory:0"),
        ("memory:int8", "model memory:int8"),
        ("window", "model window"),
        ("nothing", "model nothing"),
        ("full", "model full"),
        ("full:yarn", "model full yarn"),
        ("bm25", "bm25 + model full"),
        ("bm25+memory", "bm25 + model memory"),
        ("openai:gpt:x@http://127.0.0.1:9/v1", "gpt:x"),
        ("openai-text:m@https://example.org/v1", "m"),
        ("anthropic:m@v2@https://example.org/v1", "m@v2"),
        ("bm25+openai:m@https://example.org/v1", "bm25 + m"),
    ],
)
def test_subjects_by_name(local, text, name):
    subject = subject_of(text, local)
    assert subject.name == name
    assert subject.count("The harbour.") == len(encode_text(local.tokenizer, "The harbour."))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memories", "there is no subject 'memories'; there are memory, memory:N, memory:int8, window"),
        ("", "there is no subject ''"),
        ("openai:", "there is no subject 'openai:'"),
        ("memory:x", "there is no subject"),
        ("bm25+", "there is no subject ''"),
        ("full:ntk", "no extension 'ntk'"),
        ("dense", "wants the folder of an embedder: dense:FOLDER"),
        ("dense:/nowhere+full", "/nowhere is no folder"),
        ("openai:m", "OPENAI_API_KEY is not set"),
        ("bm25+anthropic:m", "ANTHROPIC_API_KEY is not set"),
    ],
)
def test_what_is_no_subject(local, text, message, monkeypatch):
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(RequestError, match=message):
        subject_of(text, local)


def test_a_model_behind_an_api_needs_none_here(tiny_model, tiny_folder):
    def load():
        pytest.fail("the model was loaded")

    local = LocalModel(load, str(tiny_folder))
    subject = subject_of("bm25+openai:m@https://example.org/v1", local, SubjectOptions(chunk=99, best=2))
    assert subject.count("The harbour.") == len(encode_text(tiny_model.tokenizer, "The harbour."))
    assert " 99/0 x2 " in subject.identity


def test_names_that_are_listed_are_known(local):
    for name in SUBJECTS:
        text = (
            name.replace("WAY", "linear")
            .replace(":N", ":2")
            .replace("MODEL", "m@https://example.org/v1")
            .replace("+SUBJECT", "+full")
        )
        if "FOLDER" not in text:
            subject_of(text, local)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")])
def test_out_of_memory_is_an_answer_too_and_a_defect_is_not(error):
    class Heavy(Known):
        def answer(self, question, most):
            raise error

    source = Source("A text.", ((0, 7),))
    heavy, light = compare([Heavy({}), Known({})], source, [Asked("Who?")])
    assert heavy.reply is None and heavy.error.startswith("out of memory")
    assert light.reply is not None
    error = RuntimeError("a defect")
    with pytest.raises(RuntimeError, match="a defect"):
        list(compare([Heavy({})], source, [Asked("Who?")]))
