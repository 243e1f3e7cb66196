"""Every task: known facts of the sets it follows, exact lengths, and what a subject gets that knows all, or nothing."""

import math
import re
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from longfocus.errors import RequestError
from longfocus.evaluation.figures import figures
from longfocus.evaluation.fitting import fit
from longfocus.evaluation.records import AttemptFile
from longfocus.evaluation.runner import Plan, run
from longfocus.evaluation.task import DoesNotFit, Length, Question, sheets
from longfocus.evaluation.tasks import TASKS, Sources, tasks_of
from longfocus.evaluation.tasks.lines import Lines, words
from longfocus.evaluation.tasks.passkey import FILLING, QUESTION, Passkey, ReferencePasskey
from longfocus.evaluation.tasks.perplexity import Perplexity
from longfocus.loading.prompts import encode_text

SHORT = {
    "passkey-reference": Length(900, "characters"),
    "perplexity": Length(2000),
    "humaneval": Length.parse("whole"),
    "humaneval-samples": Length.parse("whole"),
}


def by_words(text: str) -> int:
    """A tokenizer for which the tests need no model."""
    return len(text.split(" "))


@dataclass
class Known:
    """A subject that has seen all answers beforehand, or none: by question, or by document and question."""

    answers: dict[str | tuple[str, str], str]
    name: str = "known"
    identity: str = "known"
    read_documents: list[str] = field(default_factory=list)

    def count(self, text):
        return by_words(text)

    @contextmanager
    def read(self, document, form):
        self.read_documents.append(document)
        yield self

    def answer(self, question, most):
        document = self.read_documents[-1] if self.read_documents else ""
        return self.answers.get((document, question), self.answers.get(question, "I do not know."))

    def continued(self, text, writing):
        return self.answer(text, writing.most)

    def loss(self, text):
        return (0.0 if self.answers else 5.0 * by_words(text)), by_words(text)


@pytest.fixture(params=sorted(set(TASKS) - {"cases"}))
def task(request, reporting_data):
    if request.param.startswith("humaneval") and sys.platform != "linux":
        pytest.skip("programs of models are run on Linux only")
    (task,) = tasks_of([request.param], Sources(reporting_data))
    return task


def test_who_knows_all_and_who_knows_none(task, tmp_path):
    length = SHORT.get(task.name, Length(600))
    made = list(sheets(task, length, by_words, examples=6, questions=1))
    known = {(sheet.document, asked.text): "".join(asked.answers[:1]) for sheet in made for asked in sheet.questions}
    plan = Plan((length,), 6, 1)
    found = []
    for name, answers in (("all", known), ("none", {})):
        for _ in run(task, Known(answers), plan, kept := AttemptFile(tmp_path / name)):
            pass
        (figure,) = figures(kept.attempts)
        assert figure.examples == 6
        found.append(figure.score)
    assert found == pytest.approx([1.0, math.exp(5.0)] if task.name == "perplexity" else [1.0, 0.0])


def test_the_same_for_the_same_arguments(task):
    length = SHORT.get(task.name, Length(600))
    first, second, other = (list(sheets(task, length, by_words, examples=2, seed=seed)) for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_fewer_questions_are_the_first_of_more(task):
    """So a run with a larger --limit adds to what there is."""
    length = SHORT.get(task.name, Length(600))
    most = task.sheet(length, 1, by_words, 40, 3)
    for questions in (1, 2, task.questions, 7):
        fewer = task.sheet(length, 1, by_words, questions, 3)
        assert fewer.document == most.document
        assert fewer.questions == most.questions[: len(fewer.questions)]
        assert len(fewer.questions) == min(questions, len(most.questions))


def test_units_are_the_tasks_own(task):
    with pytest.raises(RequestError, match=f"{task.name} measures documents in"):
        list(sheets(task, Length(5, "acres"), by_words, examples=1))


@pytest.mark.parametrize("tokens", [200, 777, 5000, 20_011])
def test_passkeys_have_the_length_exactly(tokens, tiny_model):
    def count(text):
        return len(encode_text(tiny_model.tokenizer, text))

    for number in range(3):
        sheet = Passkey().sheet(Length(tokens), number, count, 1, 0)
        assert count(sheet.document) == tokens
        (question,) = sheet.questions
        assert f"The pass key is {question.answers[0]}." in sheet.document
        place = sheet.document.index("The pass key is") / len(sheet.document)
        assert place == pytest.approx(question.depth, abs=250 / len(sheet.document))


def test_passkeys_lie_everywhere():
    depths = [Passkey().sheet(Length(500), number, by_words, 1, 0).questions[0].depth for number in range(10)]
    assert sorted(depths) == pytest.approx([0.05 + 0.1 * tenth for tenth in range(10)])
    assert depths != sorted(depths)


@pytest.mark.parametrize(
    ("characters", "tokens", "key"),
    [
        (1, None, "4783"),
        (1000, 336, "4783"),
        (4000, None, "4783"),
        (8000, 2203, "4783"),
        (30_000, 8069, "15338"),
        (60_000, 16_071, "15338"),
        (120_000, 32_069, "15338"),
        (240_000, 64_071, "15338"),
    ],
)
def test_the_references_passkeys(characters, tokens, key, reference_count):
    """Facts of LongLLaMA's script with OpenLLaMA's tokenizers, the beginning of the sequence counted, for seed 555."""
    sheet = ReferencePasskey().sheet(Length(characters, "characters"), 0, reference_count, 1, 555)
    assert sheet.questions[0].answers == (key,)
    assert sheet.questions[0].text == f"\n{QUESTION}"
    assert tokens in (None, 1 + reference_count(f"{sheet.document}\n{QUESTION}"))


def test_the_references_filling_goes_on(reference_count):
    """The published figure at 256K tokens took more of it than the script has."""
    sheet = ReferencePasskey().sheet(Length(958_000, "characters"), 0, reference_count, 1, 555)
    _, before, _, after = sheet.document.split("\n")
    assert len(before) + len(after) == 958_000
    assert before == (f"{FILLING} " * 11_000)[: len(before)]
    assert after == (f"{FILLING} " * 11_000)[: len(after)]
    assert 250_000 < reference_count(sheet.document) < 262_144


@pytest.mark.parametrize(
    ("written", "score"),
    [(" 15338", 1), ("15338. Remember", 1), (" 153381", 1), ("is 15338", 0), (" 1533", 0), ("", 0)],
)
def test_the_references_keys_are_what_is_written_next(written, score):
    """As many tokens as the key has are compared, and no more."""
    told = []

    class Writes(Known):
        def continued(self, text, writing):
            told.append((text, writing))
            return written

    question = Question(f"\n{QUESTION}", ("15338",))
    assert ReferencePasskey().attempt(Writes({}), question).score == score
    assert told[0][0] == question.text
    assert told[0][1].temperature == 0


@pytest.mark.parametrize(("answer", "score"), [("4711", 1), ("The key is 4,711.", 1), ("4711 or 12", 1), ("14711", 0)])
def test_a_passkeys_answer_is_its_first_number(answer, score):
    question = Passkey().sheet(Length(300), 0, by_words, 1, 0).questions[0]
    assert Passkey().score(type(question)("", ("4711",)), answer) == score


@pytest.mark.parametrize("lines", [1, 200, 910, 911, 4000, 9000])
def test_lines_have_keys_once(lines):
    sheet = Lines().sheet(Length(lines, "lines"), 0, by_words, 25, 7)
    found = [line.split(": REGISTER_CONTENT is ") for line in sheet.document.split("\n") if line.startswith("line ")]
    keys = [key.removeprefix("line ") for key, _ in found]
    assert len(set(keys)) == lines
    adjectives, nouns = words()
    assert (len(adjectives), len(nouns)) == (910, 6782)
    first = adjectives if lines <= 910 else nouns
    assert all(key.startswith(tuple(f"{word}-" for word in first)) for key in keys[:50])
    values = dict(zip(keys, [value.strip("<>") for _, value in found], strict=True))
    assert len(sheet.questions) == min(25, lines) == len({question.text for question in sheet.questions})
    for question in sheet.questions:
        key = question.text.split("in line ")[1].split("?")[0]
        assert question.answers == (values[key],)
        assert keys[round(question.depth * lines)] == key


@pytest.mark.parametrize("tokens", [700, 3000, 30_011, 60_000])
def test_lines_have_the_length_exactly(tokens, tiny_model):
    def by_model(text):
        return len(encode_text(tiny_model.tokenizer, text))

    for count in (by_words, by_model):
        record = Lines().sheet(Length(tokens), 0, count, 5, 0).document
        assert count(record) == tokens
        rest = record.rpartition(">\n")[2]
        assert not rest.strip(" .\nx")  # what fills it says nothing
        assert count(rest) < 80  # and is less than a line
    with pytest.raises(DoesNotFit, match=r"no room for a line|shortest has"):
        Lines().sheet(Length(75), 0, by_model, 5, 0)


def test_lines_in_longevals_words():
    sheet = Lines().sheet(Length(2, "lines"), 0, by_words, 1, 0)
    opening, first, second, last = sheet.document.removeprefix("Below is a record of lines").split("\n")[1:]
    assert (opening, last) == ("", "")
    for line in (first, second):
        assert re.fullmatch(r"line [a-z-]+: REGISTER_CONTENT is <\d+>", line)
    (question,) = sheet.questions
    key = (first, second)[round(question.depth * 2)].split(": ")[0]
    asked = f"Now the record is over. Tell me what is the <REGISTER_CONTENT> in {key}? I need the number."
    assert question.text == asked


@pytest.mark.parametrize(("answer", "score"), [("<77>.", 1), ("In line 12 it is 77", 1), ("77, not 78", 0), ("no", 0)])
def test_a_lines_answer_is_its_last_number(answer, score):
    question = Lines().sheet(Length(3, "lines"), 0, by_words, 1, 0).questions[0]
    assert Lines().score(type(question)("", ("77",)), answer) == score


def test_the_same_passage_behind_more_of_the_book(reporting_data):
    task = Perplexity(reporting_data)
    short, long = (task.sheet(Length(tokens), 1, by_words, 1, 0) for tokens in (300, 9000))
    assert short.questions == long.questions
    assert long.document.endswith(short.document)
    assert [by_words(sheet.document) for sheet in (short, long)] == [300, 9000]
    assert 1490 <= len(short.questions[0].text) <= 1500
    # by_words a book has some 70,000 tokens, so that those that 64k stand before have no room for more
    with pytest.raises(DoesNotFit, match=r"no book of the test split in .* has a passage with 128k before it"):
        task.sheet(Length.parse("65k"), 0, by_words, 1, 0)


def test_passages_behind_more_than_64k(reporting_data):
    """As far as the books go, by the tokenizer's own count."""
    task = Perplexity(reporting_data)
    assert len(task.sheet(Length.parse("100k"), 0, len, 1, 0).document) == 100 * 1024
    short, long = (task.sheet(Length(tokens), 2, len, 1, 0) for tokens in (70_000, 128 * 1024))
    assert short.questions == long.questions
    assert long.document.endswith(short.document)


@pytest.mark.parametrize(
    ("text", "length", "shown"),
    [
        ("4k", Length(4096), "4k"),
        ("1m", Length(1 << 20), "1024k"),
        ("1000", Length(1000), "1000"),
        (" 200 Lines", Length(200, "lines"), "200lines"),
        ("2klines", Length(2000, "lines"), "2000lines"),
    ],
)
def test_lengths(text, length, shown):
    assert Length.parse(text) == length
    assert str(length) == shown
    assert Length.parse(shown) == length


@pytest.mark.parametrize("text", ["", "k", "0", "-4k", "4.5k", "4k-lines"])
def test_what_is_no_length(text):
    with pytest.raises(RequestError, match="cannot be read"):
        Length.parse(text)


@pytest.mark.parametrize("each", [1, 3, 7])
def test_fitting(each):
    """Tokens of several characters, of which a text may have the last in part."""

    def count(text):
        return -(-len(text) // each)

    for tokens in (10, 11, 5000, 123_457):
        assert count(fit(lambda n: "x" * (n + 5), tokens, count)) == tokens
    with pytest.raises(RequestError, match="the shortest has 5"):
        fit(lambda n: "x" * (n + 5), 4, len)


def test_fitting_takes_the_next_shorter():
    assert len(fit(lambda n: "x" * (10 * n), 57, len)) == 50
