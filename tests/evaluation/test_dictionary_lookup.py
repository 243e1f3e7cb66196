"""Words that are defined and asked for: the sheets, and a tiny model that is made for them, by recipe and by Book."""

import json

import pytest

from longfocus.evaluation.records import AttemptFile
from longfocus.evaluation.runner import Plan, run
from longfocus.evaluation.subjects.book import BookSubject
from longfocus.evaluation.task import DoesNotFit, Length, Question
from longfocus.evaluation.tasks.dictionary import DictionaryLookup
from longfocus.loading.load import load
from longfocus.loading.prompts import encode_text
from longfocus.training.dictionary import Dictionary
from tests.evaluation.test_tasks import Known, by_words

SMALL = Dictionary(symbols=13, key=2, value=3)


def defined(document: str, task: Dictionary) -> dict[str, str]:
    """Values by key, told by another way of reading than the task's own writing."""
    entries = [entry.split("<v>") for entry in document.split("<k>")[1:]]
    found = {key.strip(): value.strip() for key, value in entries}
    assert len(found) == len(entries)
    assert {len(key.split()) for key in found} == {task.key}
    assert {len(value.split()) for value in found.values()} == {task.value}
    return found


@pytest.mark.parametrize("count", [1, 30, 169])
def test_each_word_is_defined_once_and_asked_as_it_was_defined(count):
    sheet = DictionaryLookup(SMALL).sheet(Length(count, "definitions"), 0, by_words, 10, 3)
    found = defined(sheet.document, SMALL)
    assert len(found) == count
    assert len({asked.text for asked in sheet.questions}) == len(sheet.questions) == min(count, 10)
    for asked in sheet.questions:
        key = asked.text.removeprefix(" <q> ").removesuffix(" <v>")
        assert asked.answers == (found[key],)
        assert list(found).index(key) == round(asked.depth * count)


def test_lengths_in_tokens(tiny_model):
    def by_model(text):
        return len(encode_text(tiny_model.tokenizer, text))

    for count, tokens in ((by_words, 5005), (by_model, 3000)):
        sheet = DictionaryLookup().sheet(Length(tokens), 0, count, 5, 0)
        one = len(defined(sheet.document, Dictionary()))
        more = DictionaryLookup().sheet(Length(one + 1, "definitions"), 0, count, 5, 0)
        assert count(sheet.document) <= tokens
        if count is by_words:
            assert one == 500
        assert count(more.document) + 40 > tokens


def test_there_are_not_more_words_than_keys():
    with pytest.raises(DoesNotFit, match="there are 169 keys"):
        DictionaryLookup(SMALL).sheet(Length(170, "definitions"), 0, by_words, 5, 0)
    with pytest.raises(DoesNotFit, match="no room for a definition"):
        DictionaryLookup(SMALL).sheet(Length(5), 0, by_words, 5, 0)


@pytest.mark.parametrize(
    ("written", "score", "exact"),
    [(" a B 3", 1.0, 1.0), ("a B 4 7", 2 / 3, 0.0), ("B a 3", 1 / 3, 0.0), ("", 0.0, 0.0), ("a", 1 / 3, 0.0)],
)
def test_symbols_count_in_their_places(written, score, exact):
    question = Question(" <q> 1 2 <v>", ("a B 3",))
    outcome = DictionaryLookup(SMALL).attempt(Known({question.text: written}), question)
    assert outcome.score == pytest.approx(score)
    assert outcome.more == {"exact": exact}


def test_text_and_tokens_are_the_same():
    """What is trained on and what is read: entries by the one way made into the other's."""
    task = Dictionary()
    tokenizer = task.tokenizer()
    ids, _ = task.documents(1, 20, 5, seed=4)
    text = tokenizer.decode(ids[0])
    assert encode_text(tokenizer, text) == ids[0].tolist()
    told, asked = text.split("<q>")[0], text.split("<q>")[1:]
    found = defined(told, task)
    assert [found[one.split("<v>")[0].strip()] for one in asked] == [one.split("<v>")[1].strip() for one in asked]
    sheet = DictionaryLookup().sheet(Length(20, "definitions"), 0, by_words, 5, 0)
    marks = [len(task.words) + n for n in range(3)]
    assert encode_text(tokenizer, sheet.document)[:: task.entry] == [marks[0]] * 20
    (first, *_), behind = sheet.questions, task.key + 1
    assert encode_text(tokenizer, first.text)[::behind] == [marks[2], marks[1]]


@pytest.fixture
def trained(command_line, tmp_path):
    """Runs the recipe with these fields; returns the model's folder."""

    def train(*fields):
        folder = tmp_path / "made"
        status, printed, said = command_line(
            "train", "dictionary", "--out", tmp_path / "run", "--merge", folder, *fields
        )
        assert status == 0, said
        assert printed.splitlines()[-1] == str(folder)
        return folder

    return train


def test_a_model_is_made_and_asked(trained, command_line, tmp_path):
    """Untaught: it answers, at about chance."""
    folder = trained(
        "--steps", 2, "--entries", "2", "--documents", "4", "--growth", "1", "--evaluate-every", 0, "--hidden", 16
    )
    arguments = ("--model", folder, "--out", tmp_path / "eval", "--lengths", "60definitions", "--limit", 10)
    status, printed, said = command_line("eval", "dictionary", *arguments, "--json")
    assert status == 0, said
    (row,) = json.loads(printed)
    assert row["examples"] == 10
    assert row["score"] < 0.5
    attempts = [json.loads(line) for line in (tmp_path / "eval" / "dictionary.jsonl").read_text().splitlines()]
    assert {attempt["tokens"] for attempt in attempts} == {600}
    assert all(attempt["answer"] for attempt in attempts)


def test_batches_with_more_words_than_keys_are_refused_before_training(command_line, tmp_path):
    status, _, said = command_line("train", "dictionary", "--out", tmp_path, "--alike", "61,3@50")
    assert status == 1
    assert said.splitlines()[-1].startswith(
        "longfocus: From step 50 on a batch defines 128 words, and 3 symbols make 81"
    )
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_what_a_book_holds_is_found(trained, tmp_path):
    """Taught for a minute to tell few keys apart; then 80 windows are read into a Book and asked."""
    task = Dictionary(symbols=29, key=2)
    fields = ("--symbols", 29, "--key", 2, "--entries", "4", "--documents", "32", "--growth", "1,8@300")
    loaded = load(str(trained(*fields, "--steps", 450, "--evaluate-every", 0)))
    plan = Plan((Length(320, "definitions"),), 20)
    found = {}
    for uses in ("memory", "window"):
        made = list(run(DictionaryLookup(task), BookSubject(loaded, uses), plan, AttemptFile(tmp_path / uses)))
        found[uses] = sum(attempt.score for attempt in made) / len(made)
    assert found["memory"] > 0.8
    assert found["window"] < 0.3
