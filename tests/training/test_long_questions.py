"""Long question answering: what a row says, what is learnt of it, and what is left out of a book."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from longfocus.errors import RequestError
from longfocus.loading.prompts import Frame
from longfocus.training.book_questions import Question, QuestionedBook, books_of
from longfocus.training.examples import IGNORED
from longfocus.training.long_questions import ANIMA_FRAME, INSTRUCTION, OMISSION, LengthBand, LongQuestions
from longfocus.training.padding import Collator

DATA = Path(__file__).parents[3] / "shared/data"
WORDS = ["river", "stone", "lamp", "captain", "🦊", "winter — é", "garden", "letter"]
STORY = " ".join(f"{WORDS[n % 8]} {n}" + (".\n" if n % 9 == 0 else "") for n in range(700))
CHATML = (
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
ENOUGH = [LengthBand(20_000, 20_000)]


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    return PreTrainedTokenizerFast.from_pretrained(tiny_folder, pad_token="<|pad|>")


@pytest.fixture(scope="module")
def chatting(tiny_folder):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_folder)
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="module")
def books(tmp_path_factory) -> list[QuestionedBook]:
    folder = tmp_path_factory.mktemp("books")
    found = []
    for name in ("a", "b"):
        (folder / name).write_text("header\n\n" + name + STORY + "\n\nlicence", "utf-8")
        asked = tuple(Question(f"{name}{n}", f"Who is {n}?", (f"Anne {n}", f"Emma {n}")) for n in range(5))
        found.append(QuestionedBook(name, name, "valid", folder / name, (7, 10 + len(STORY)), asked))
    return found


def learnt(tokenizer, row) -> str:
    return tokenizer.decode(row["input_ids"][row["labels"] != IGNORED])


def test_a_row_in_plain_words(tokenizer, books):
    data = LongQuestions(books, tokenizer, lengths=ENOUGH)
    assert len(data) == 10
    record, row = data.record(7), data[7]
    (asked,) = (each for each in books[1].questions if each.id == record.questions[0])
    assert record.prompt == f"{INSTRUCTION}b{STORY}\n\nQuestion: {asked.text}\nAnswer:"
    assert record.completion.strip() in asked.answers
    assert record.left_out is None
    assert tokenizer.decode(row["input_ids"]) == f"<|begin|>{record.prompt}{record.completion}<|end|>"
    assert learnt(tokenizer, row) == f"{record.completion}<|end|>"
    assert record.completion.startswith(" ")
    assert len(row["input_ids"]) == record.tokens
    assert bool(row["attention_mask"].all())


def test_a_row_by_the_chat_template(chatting, books):
    data = LongQuestions(books, chatting, lengths=ENOUGH, questions_per_row=2, instruction="")
    record, row = data.record(0), data[0]
    first, second = ({each.id: each for each in books[0].questions}[name] for name in record.questions)
    answers = [text for text, counted in record.parts if counted]
    turns = [("user", f"a{STORY}\n\n{first.text}"), ("assistant", answers[0]), ("user", second.text)]
    rendered = chatting.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns], tokenize=False, add_generation_prompt=True
    )
    assert chatting.decode(row["input_ids"]) == f"{rendered}{answers[1]}<|end|>"
    assert record.completion == answers[1]
    assert learnt(chatting, row) == f"{answers[0]}<|end|>{answers[1]}<|end|>"


@pytest.mark.parametrize("shared", [1, 2, 5, 9])
def test_every_question_stands_in_one_row(tokenizer, books, shared):
    data = LongQuestions(books, tokenizer, lengths=ENOUGH, questions_per_row=shared)
    records = [data.record(index) for index in range(len(data))]
    asked = [name for record in records for name in record.questions]
    assert sorted(asked) == sorted(each.id for book in books for each in book.questions)
    assert all(name[0] == record.document for record in records for name in record.questions)
    assert max(len(record.questions) for record in records) == min(shared, 5)


@pytest.mark.parametrize("frame", [ANIMA_FRAME, None])
def test_the_middle_of_a_long_book_is_left_out(chatting, books, frame):
    """Whatever the length, head, tail and question are there, and the record says what is not."""
    data = LongQuestions(books, chatting, lengths=[LengthBand(100, 900)], frame=frame, instruction="Read.\n")
    lefts = set()
    for epoch in range(3):
        data.set_epoch(epoch)
        for index in range(len(data)):
            record, row = data.record(index), data[index]
            assert record.left_out is not None
            book = next(each for each in books if each.id == record.document)
            text = book.path.read_text("utf-8")
            start, end = record.left_out
            kept = text[book.body[0] : start].lstrip() + OMISSION + text[end : book.body[1]].rstrip()
            whole = chatting.decode(row["input_ids"])
            assert "Read.\n" + kept in whole
            assert kept in record.prompt
            (asked,) = (each for each in book.questions if each.id == record.questions[0])
            assert asked.text in whole
            assert 100 - 6 <= len(row["input_ids"]) == record.tokens <= 900
            lefts.add(record.left_out)
    assert len(lefts) > 20


def test_lengths_are_drawn_from_their_bands(tokenizer, books):
    bands = [LengthBand(1_000, 2_000, 3.0), LengthBand(200, 300, 1.0)]
    many = [QuestionedBook(**{**vars(books[0]), "questions": books[0].questions * 60})]
    data = LongQuestions(many, tokenizer, lengths=bands)
    drawn = [data.record(index).tokens for index in range(300)]
    short = [length for length in drawn if length <= 300]
    assert all(190 <= length <= 300 or 990 <= length <= 2_000 for length in drawn)
    assert 45 < len(short) < 105  # 75 expected, standard deviation 7.5
    assert max(drawn) > 1_900 and min(length for length in drawn if length > 300) < 1_100


def test_rows_are_by_seed_and_epoch(tokenizer, books):
    def rows(seed: int, epoch: int = 0) -> list[list[int]]:
        data = LongQuestions(books, tokenizer, lengths=[LengthBand(200, 600)], seed=seed)
        data.set_epoch(epoch)
        return [data[index]["input_ids"].tolist() for index in (0, 9, 3, 0)]

    assert rows(0) == rows(0)
    assert rows(0)[0] == rows(0)[3]
    assert rows(0) != rows(1)
    assert rows(0) != rows(0, epoch=1)


def test_texts_are_read_when_asked_for(tokenizer, books):
    """One at a time, and once for rows that follow each other."""
    read = []

    class Watched(QuestionedBook):
        def story(self) -> str:
            read.append(self.id)
            return super().story()

    data = LongQuestions([Watched(**vars(book)) for book in books], tokenizer, lengths=ENOUGH)
    assert not read
    for _ in data:
        pass
    assert read == ["a", "b"]


def test_frames_whose_end_is_a_special_token_behind_others(tokenizer, books):
    frame = Frame("[INST] ", "\n", " [/INST]", " <|end|><|begin|>[INST] ", begins_sequence=True)
    data = LongQuestions(books, tokenizer, lengths=ENOUGH, frame=frame, questions_per_row=2)
    answers = [text for text, counted in data.record(0).parts if counted]
    assert learnt(tokenizer, data[0]) == f"{answers[0]} <|end|>{answers[1]} <|end|>"
    assert f"{answers[0]} <|end|><|begin|>[INST] Who" in tokenizer.decode(data[0]["input_ids"])


def test_a_sentencepiece_tokenizer_puts_the_space_itself(tmp_path, books):
    model = DATA / "tokenizers/openllama_v2_tokenizer.model"
    if not model.exists():
        pytest.skip("the shared folder of data is not here")
    from longfocus.loading.vocabulary import load_tokenizer
    from longfocus.model.config import LongLlamaConfig

    (tmp_path / "tokenizer.model").write_bytes(model.read_bytes())
    llama = load_tokenizer(tmp_path, LongLlamaConfig(vocab_size=32_000, mem_layers=[]), "longllama")
    data = LongQuestions(books, llama, lengths=ENOUGH)
    row = data[0]
    ids = row["input_ids"][row["labels"] != IGNORED]
    name = data.record(0).completion.split()[0]
    assert llama.convert_ids_to_tokens(ids[:1].tolist()) == [f"▁{name}"]
    assert ids[-1] == llama.eos_token_id
    assert row["input_ids"][0] == llama.bos_token_id


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"questions_per_row": 0}, "0 questions were to share a row"),
        ({"head_share": (0.0, 0.5)}, "head_share is"),
        ({"head_share": (0.8, 0.5)}, "head_share is"),
        ({"lengths": []}, "0 bands of lengths"),
    ],
)
def test_settings_that_make_no_sense(tokenizer, books, changes, message):
    with pytest.raises(RequestError, match=message):
        LongQuestions(books, tokenizer, **changes)
    with pytest.raises(RequestError, match="lengths from 9 to 8"):
        LengthBand(9, 8)


def test_rows_without_room_for_a_book(tokenizer, books):
    with pytest.raises(RequestError, match="a row about a has 0 tokens left for the book"):
        LongQuestions(books, tokenizer, lengths=[LengthBand(30, 30)])[0]


def test_a_model_with_memory_learns_from_long_and_short_rows(tiny_model, tokenizer, books):
    """The loss on the answer reaches the book through memory, over windows of 64 tokens; both rows in one batch."""
    data = LongQuestions(books, tokenizer, lengths=[LengthBand(300, 300)])
    short = LongQuestions(books, tokenizer, lengths=[LengthBand(110, 110)])
    batch = Collator.of(tokenizer)([data[0], short[1]])
    states = tiny_model.model.model.embed_tokens(batch.pop("input_ids")).detach().requires_grad_()
    tiny_model.model(inputs_embeds=states, **batch).loss.backward()
    reached = states.grad.abs().sum(dim=-1)
    tokens = batch["attention_mask"].bool()
    last = tokens.sum(dim=1) - 1  # the end of the answer predicts nothing
    assert bool((reached[:, 1:100] > 0).all())  # the beginning of either book
    assert bool((reached[~tokens] == 0).all())
    assert reached[0, last[0]] == reached[1, last[1]] == 0


@pytest.mark.skipif(not DATA.exists(), reason="the shared folder of data is not here")
def test_a_real_book(chatting):
    books = books_of(DATA)
    holmes = next(each for each in books if "Devil" in each.title)
    data = LongQuestions([holmes], chatting, lengths=[LengthBand(4_000, 8_000)], questions_per_row=10)
    assert len(data) == 3
    story = holmes.story()
    for index in range(3):
        record, row = data.record(index), data[index]
        assert record.left_out is not None
        start, end = (place - holmes.body[0] for place in record.left_out)
        text = chatting.decode(row["input_ids"])
        assert story[:start].lstrip() + OMISSION + story[end:].rstrip() in text
        answers = "".join(f"{said}<|end|>" for said, counted in record.parts if counted)
        assert learnt(chatting, row) == answers
