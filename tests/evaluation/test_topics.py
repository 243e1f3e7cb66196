"""Topics: the pools and how they are mended, records, what counts as an answer, and facts of the real conversations."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

from longfocus.errors import DocumentError, RequestError
from longfocus.evaluation.figures import figures
from longfocus.evaluation.records import AttemptFile
from longfocus.evaluation.runner import Plan, missing, run
from longfocus.evaluation.task import Length, Question, sheets
from longfocus.evaluation.tasks.topics import Judge, Topics, TopicsAny, ordinal
from longfocus.training.records import load_records
from tests.evaluation.small_topics import ANNOUNCED, FURTHER, OFFICIAL, SAID_OTHERWISE, write_conversations
from tests.evaluation.test_tasks import Known, by_words

REAL = Path(__file__).parents[3] / "shared/data"
OPENED = re.compile(r"USER: I would like to discuss the topic of (.*?)\.\s")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_conversations(folder)
    return folder


def titles(document: str) -> list[str]:
    """What the record's conversations say that they are on, in order."""
    return [found.lower() for found in OPENED.findall(document)]


def test_pools(data):
    held = {
        pool: [t.title for t in Topics(data, pool).topics()] for pool in ("longchat-30", "longchat", "anima", "all")
    }
    assert held["longchat-30"] == OFFICIAL
    assert held["longchat"] == [*OFFICIAL, *(title.rstrip(".") for title in FURTHER)]
    mended = ["How languages shape the way we think and see", ANNOUNCED[1], *SAID_OTHERWISE[:2]]
    assert held["anima"] == OFFICIAL + mended
    assert held["all"] == held["longchat"] + mended


def test_animas_conversations_open_as_announced(data):
    topics = {topic.title: topic.conversation for topic in Topics(data, "anima").topics()}
    assert all(titles(text) == [title.lower()] for title, text in topics.items())
    first = topics[SAID_OTHERWISE[0]]
    opening = "USER: I would like to discuss the topic of how voices carry, and why. What do you think?\n ASSISTANT: "
    assert first.startswith(opening)
    assert first.count("ASSISTANT") == 3  # the first of those with this title


def test_a_conversation_that_cannot_be_mended(data, tmp_path):
    (tmp_path / "anima").mkdir()
    path = tmp_path / "anima" / "extended_158_conversations.json"
    path.write_text(json.dumps([{"TOPIC": "Lamps", "CONVERSATION": "USER: Lamps, please.\nASSISTANT: Gladly."}]))
    with pytest.raises(DocumentError, match="the conversation on 'Lamps' does not begin"):
        Topics(tmp_path, "anima").topics()


def test_the_first_topic(data):
    for number in range(4):
        sheet = Topics(data).sheet(Length(5, "topics"), number, by_words, 3, 0)
        (question,) = sheet.questions
        found = titles(sheet.document)
        assert len(found) == 5 == len(set(found))
        assert question.answers[0].lower() == found[0]
        assert question.text.startswith("What is the first topic we discussed? Only give me the topic name.")
        assert sheet.document.startswith("Below is a record of our previous conversation on 5 different topics.")
        assert sheet.document[round(question.depth * len(sheet.document)) :].startswith("USER: I would like")


def test_topics_at_any_place(data):
    sheet = TopicsAny(data).sheet(Length(9, "topics"), 0, by_words, 9, 0)
    found = titles(sheet.document)
    assert sheet.document.endswith("]]]")
    assert len(sheet.questions) == 9 == len({question.text for question in sheet.questions})
    for question in sheet.questions:
        place = int(re.search(r"the (\d+)(st|nd|rd|th) topic", question.text)[1]) - 1
        assert question.answers[0].lower() == found[place]
        start = round(question.depth * len(sheet.document))
        assert titles(sheet.document[start:])[0] == found[place]
        assert len(titles(sheet.document[:start])) == place


def test_more_questions_come_after_the_ones_there_were(data):
    few, many = (TopicsAny(data).sheet(Length(9, "topics"), 1, by_words, each, 0) for each in (3, 8))
    assert few.questions == many.questions[:3]


def test_topics_come_again_in_another_order(data):
    """Rounds of the whole pool, of which no one begins with what the last ended with."""
    for seed in range(20):
        sheet = TopicsAny(data).sheet(Length(42, "topics"), 0, by_words, 1, seed)
        found = titles(sheet.document)
        rounds = [found[start : start + 14] for start in (0, 14, 28)]
        assert len(found) == 42
        assert all(len(set(each)) == 14 for each in rounds)
        assert rounds[0] != rounds[1] != rounds[2]
        assert all(one != other for one, other in pairwise(found))
    assert "on 42 topics, of which some come more than once." in sheet.document
    assert "on 14 different topics." in TopicsAny(data).sheet(Length(14, "topics"), 0, by_words, 1, 0).document


@pytest.mark.parametrize("tokens", [300, 555, 1100])
@pytest.mark.parametrize("task", [Topics, TopicsAny])
def test_the_longest_record_that_is_not_longer(task, tokens, data):
    made = task(data)
    for number in range(3):
        document = made.sheet(Length(tokens), number, by_words, 1, 0).document
        longest = max(by_words(topic.conversation) for topic in made.topics())
        assert tokens - longest <= by_words(document) <= tokens


def test_sizes_of_single_conversations_need_not_add_up(data):
    """A tokenizer that makes more, or less, of a text than of its parts."""
    for extra in (-40, 40):
        document = TopicsAny(data).sheet(Length(3000), 0, lambda text, e=extra: by_words(text) + e, 1, 0).document
        assert 3000 - extra - 130 <= by_words(document) <= 3000 - extra


def test_too_few_topics(data):
    for length in (Length(15, "topics"), Length(9000)):
        with pytest.raises(RequestError, match=r"than the 14 of the pool all.*topics-any"):
            Topics(data).sheet(length, 0, by_words, 1, 0)
    with pytest.raises(RequestError, match="no room for a topic"):
        Topics(data).sheet(Length(100), 0, by_words, 1, 0)
    assert len(titles(TopicsAny(data).sheet(Length(9000), 0, by_words, 1, 0).document)) > 80


@pytest.mark.parametrize(
    ("answer", "score", "exact"),
    [
        ("The role of orange-growing in society", 1, 1),
        ("the role of orange-growing in society.", 1, 1),
        ('"Role of orange growing in a society"', 1, 0),
        ("It was the role of orange–growing in society, then the future of the lamp.", 1, 0),
        ("The future of the lamp. The role of orange-growing in society.", 0, 1),
        ("The role of oranges in society", 0, 0),
        ("The role of orange-growing in society's", 0, 1),
        ("growing", 0, 0),
        ("", 0, 0),
    ],
)
def test_what_counts_as_an_answer(answer, score, exact, data):
    question = Question("", ("The role of orange-growing in society",))
    outcome = Topics(data).attempt(Known({"": answer}), question)
    assert (outcome.answer, outcome.score, outcome.more["exact"]) == (answer, score, exact)
    assert outcome.more["f1"] == pytest.approx(1.0) if score and len(answer) < 40 and exact else True
    assert set(outcome.more) == {"exact", "f1"}


@pytest.mark.parametrize(("reply", "judged"), [("1", 1.0), (" 1\n", 1.0), ("0", 0.0), ("10", 0.0), ("1, I think", 0.0)])
def test_a_judge(reply, judged, data):
    asked = []

    def judge(prompt):
        asked.append(prompt)
        return reply

    task = Topics(data, judge=Judge("somebody", judge))
    assert task.verdict((SAID_OTHERWISE[0],), "how\nvoices\ncarry") == judged
    assert len(asked) == 1
    assert f"The topic was: {SAID_OTHERWISE[0]}\nThe answer was: how voices carry\n" in asked[0]


def test_a_judge_sees_what_was_answered_before(data, tmp_path):
    """With a judge that comes late, and another after that; nobody is asked again, and no mean is of a part."""
    plan, subject = Plan((Length(6, "topics"),), examples=4), Known({})
    path = tmp_path / "topics.jsonl"
    list(run(Topics(data), subject, plan, AttemptFile(path)))
    subject.read_documents.clear()
    one, other = (Judge(name, lambda _, reply=reply: reply) for name, reply in (("one", "1"), ("other", "0")))
    kept = AttemptFile(path)
    assert missing(Topics(data, judge=one), subject, plan, kept) == 4
    judging = run(Topics(data, judge=one), subject, plan, kept)
    next(judging)
    judging.close()
    (figure,) = figures(AttemptFile(path).attempts)
    assert set(figure.more) == {"exact", "f1"}  # one of four is judged
    for judge in (one, other):
        list(run(Topics(data, judge=judge), subject, plan, AttemptFile(path)))
        assert missing(Topics(data, judge=judge), subject, plan, AttemptFile(path)) == 0
    assert not subject.read_documents
    (figure,) = figures(AttemptFile(path).attempts)
    assert (figure.examples, figure.more["judged by one"], figure.more["judged by other"]) == (4, 1.0, 0.0)
    more = Plan(plan.lengths, 6)
    assert missing(Topics(data, judge=one), subject, more, AttemptFile(path)) == 2 * 2
    list(run(Topics(data, judge=one), subject, more, AttemptFile(path)))
    (figure,) = figures(AttemptFile(path).attempts)
    assert (figure.examples, set(figure.more)) == (6, {"exact", "f1", "judged by one"})


@pytest.mark.parametrize("task", [Topics, TopicsAny])
def test_who_knows_all_and_who_knows_none(task, data, tmp_path):
    made, plan = task(data), Plan((Length(6, "topics"),), examples=5, questions=5)
    known = next(sheets(made, plan.lengths[0], by_words, examples=5, questions=5))
    for answers, score in (({q.text: f"It is {q.answers[0]}!" for q in known.questions}, 1.0), ({}, 0.0)):
        one = Plan(plan.lengths, len(known.questions), 5)
        list(run(made, Known(answers), one, kept := AttemptFile(tmp_path / f"{score}.jsonl")))
        (figure,) = figures(kept.attempts)
        assert (figure.score, figure.more["exact"]) == (score, score)


def test_ordinals():
    found = [ordinal(number) for number in (1, 2, 3, 4, 10, 11, 12, 13, 21, 22, 101, 111, 1003)]
    assert " ".join(found) == "1st 2nd 3rd 4th 10th 11th 12th 13th 21st 22nd 101st 111th 1003rd"


@pytest.mark.skipif(not (REAL / "anima").is_dir(), reason="the published conversations are not here")
def test_the_published_conversations(reference_count):
    """What is known of them: 158 under 151 titles, of which 53 do not open as announced and 18 never name theirs."""
    published = load_records(REAL / "anima" / "extended_158_conversations.json")
    assert len(published) == 158
    assert len({record["TOPIC"] for record in published}) == 151
    assert sum(not record["CONVERSATION"].startswith("USER: I would like to discuss") for record in published) == 53
    pools = {pool: Topics(REAL, pool).topics() for pool in ("longchat-30", "longchat", "anima", "all")}
    assert {pool: len(topics) for pool, topics in pools.items()} == {
        "longchat-30": 30, "longchat": 100, "anima": 151, "all": 221,
    }  # fmt: skip
    assert pools["anima"][:30] == pools["longchat"][:30] == pools["longchat-30"]
    for topic in pools["all"]:
        assert topic.conversation.lower().startswith(
            f"user: i would like to discuss the topic of {topic.title.lower()}."
        )
    known = {record["CONVERSATION"]: record for record in published}
    untouched = [topic for topic in pools["anima"] if topic.conversation in known]
    assert len(untouched) == 30 + 74 - 7 + 1  # LongChat's, GPT-4's but for those that say it otherwise, one of Claude's
    # By LLaMA's tokenizer Anima's prompt of 120 topics has 74,235 tokens, its prompts of 130 have 87,204 on average and
    # LongChat's of 5 and of 25 have 3.2K and 15.8K; another tokenizer makes about as much less of the one as of the
    # others.
    (prompt,) = load_records(REAL / "anima" / "120_topics_en.jsonl.gz")
    share = reference_count(prompt["prompt"] + prompt["prompt_postfix"]) / prompt["prompt_length"]
    for pool, topics, tokens in (("anima", 130, 87_204), ("longchat-30", 5, 3200), ("longchat-30", 25, 15_800)):
        made = [Topics(REAL, pool).sheet(Length(topics, "topics"), number, by_words, 1, 0) for number in range(2)]
        found = sum(reference_count(sheet.document) / share for sheet in made) / 2
        assert found == pytest.approx(tokens, rel=0.05)
