"""Topics: a record of conversations, each on a topic that its first sentence names; a topic is asked for.

`Topics` asks for the first one, as LongChat's coarse-grained retrieval does (Li et al., "How Long Can Open-Source LLMs
Truly Promise on Context Length?", 2023); `TopicsAny` asks for topics by their place, as Anima 100K's longest prompt.

Pools, by name:
    longchat-30: LongChat's 30 conversations, as they are; published figures for 5 to 25 topics are of these.
    longchat: the 100 conversations of LongChat's longer test cases, as they are.
    anima: Anima 100K's 158 conversations, mended. Of each title that comes twice only the first conversation is kept,
        which leaves 151; one misspelt title is corrected; where the first sentence is not the announced one with the
        title in it, it is replaced by that. All else stays as it is.
    all: those of longchat and of anima, 221 topics.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from longfocus.errors import DocumentError
from longfocus.evaluation.answers import f1, in_ascii, normalised
from longfocus.evaluation.task import AnswerTask, Count, DoesNotFit, Length, Opened, Outcome, Question, Sheet
from longfocus.training.records import load_records, text_field

Pool = Literal["all", "longchat-30", "longchat", "anima"]

ROLES = (
    "You are the ASSISTANT, and I am the USER. At the beginning of each topic, the USER will say 'I would like to "
    "discuss the topic of <TOPIC>'. Memorize each <TOPIC>."
)
FIRST = "What is the first topic we discussed? Only give me the topic name. Do not summarize yourself."
ANY = "Please find out what is the {} topic we discussed. Only give me the topic name. Do not summarize yourself."
JUDGED = (
    "Somebody was asked to name a topic of an earlier conversation.\n"
    "The topic was: {}\nThe answer was: {}\n"
    "Does the answer name that topic? Other words for the same topic are right, and case and punctuation do not "
    "matter. Another topic is wrong, and so is a list of several. Reply with 1 for right or 0 for wrong, and nothing "
    "else."
)
_ANNOUNCED = "USER: I would like to discuss the topic of "
_MISSPELT = {"Howanguages shape the way we think": "How languages shape the way we think"}


@dataclass(frozen=True)
class Topic:
    """One conversation.

    Attributes:
        title: What it is about.
        conversation: What was said, from the user's first sentence on.
    """

    title: str
    conversation: str


@dataclass(frozen=True)
class Judge:
    """Who says whether answers are right.

    Attributes:
        name: Of the subject; verdicts of several judges are kept side by side.
        reply: Its reply to a prompt.
    """

    name: str
    reply: Callable[[str], str]


class Topics(AnswerTask):
    """The first topic of a record in which no topic comes twice.

    An answer is right if the first title in it, of all in the pool, is the one wanted; case, punctuation and articles
    do not matter. Further scores are `exact` (the title stands in the answer, letter for letter but for case), `f1`
    and, with a judge, `judged by` its name.

    Args:
        data: A folder with LongChat's and Anima's conversations (`longchat/`, `anima/`).
        pool: Which of them.
        judge: Is asked about each answer, also about those that were kept without it. As in LongEval, only its reply 1
            counts as right.
    """

    name = "topics"
    units: tuple[str, ...] = ("topics", "tokens")
    answer_tokens = 50

    def __init__(self, data: Path, pool: Pool = "all", judge: Judge | None = None) -> None:
        if pool != "all":
            self.name = f"{self.name}-{pool}"
        self._data = data
        self._pool = pool
        self._judge = judge
        self.verdicts = None if judge is None else f"judged by {judge.name}"
        self._found: list[Topic] | None = None

    def sheet(self, length: Length, number: int, count: Count, questions: int, seed: int) -> Sheet:
        """See `Task.sheet`. A length in tokens is that of the longest record that is not longer.

        Raises:
            DoesNotFit: The pool has too few topics, or there is no room for one.
            DocumentError: The conversations cannot be read.
        """
        chance = random.Random(f"{self.name} {seed} {length} {number}")
        drawn = self._drawn(chance)
        if length.unit == "topics":
            topics = list(islice(drawn, length.amount))
            if len(topics) < length.amount:
                raise self._too_few(length)
        else:
            topics = self._fitting(drawn, length, count)
        places = self._asked(len(topics), chance)[:questions]
        starts = [len(self._opening(len(topics)))]
        for topic in topics:
            starts.append(starts[-1] + len(topic.conversation))
        document = self._record(topics)
        return Sheet(
            document,
            tuple(Question(self._question(p), (topics[p].title,), starts[p] / len(document)) for p in places),
        )

    def attempt(self, opened: Opened, question: Question) -> Outcome:
        """See `Task.attempt`."""
        answer = opened.answer(question.text, self.answer_tokens)
        (title,) = question.answers
        more = {"exact": float(title.lower() in answer.lower()), "f1": f1(answer, [title])}
        return Outcome(answer, self.score(question, answer), more=more)

    def verdict(self, answers: tuple[str, ...], answer: str) -> float:
        """See `Task.verdict`."""
        assert self._judge is not None
        reply = self._judge.reply(JUDGED.format(answers[0], " ".join(answer.split())))
        return float(reply.strip() == "1")

    def look(self) -> None:
        """See `Task.look`."""
        self.topics()

    def score(self, question: Question, answer: str) -> float:
        """1 if the first of the pool's titles in the answer is the one wanted."""
        said = f" {_comparable(answer)} "
        named = {said.find(f" {title} "): title for title in map(_comparable, (t.title for t in self.topics()))}
        named.pop(-1, None)
        return float(bool(named) and named[min(named)] == _comparable(question.answers[0]))

    def topics(self) -> list[Topic]:
        """The pool, read once."""
        if self._found is None:
            longchat, anima = self._data / "longchat", self._data / "anima" / "extended_158_conversations.json"
            found: list[Topic] = []
            if self._pool == "longchat-30":
                found += _longchat(longchat / "conversations_30.jsonl")
            if self._pool in ("longchat", "all"):
                found += _longchat(longchat / "conversations_100.jsonl.gz")
            if self._pool in ("anima", "all"):
                found += _anima(anima)
            kept: dict[str, Topic] = {}
            for topic in found:
                kept.setdefault(_comparable(topic.title), topic)
            self._found = list(kept.values())
        return self._found

    def _drawn(self, chance: random.Random) -> Iterator[Topic]:
        """Topics for a record, as many as there may be."""
        yield from chance.sample(self.topics(), len(self.topics()))

    def _opening(self, topics: int) -> str:
        return (
            f"Below is a record of our previous conversation on {topics} different topics. {ROLES} At the end of the "
            "record, I will ask you to retrieve the first topic. Now the record start. "
        )

    def _closing(self) -> str:
        return ""

    def _asked(self, topics: int, chance: random.Random) -> list[int]:
        """Places that may be asked for, from 0, in the order in which they are."""
        return [0]

    def _question(self, place: int) -> str:
        return FIRST

    def _record(self, topics: list[Topic]) -> str:
        return self._opening(len(topics)) + "".join(topic.conversation for topic in topics) + self._closing()

    def _fitting(self, drawn: Iterator[Topic], length: Length, count: Count) -> list[Topic]:
        """As many of the topics drawn as so many tokens hold.

        What each conversation has alone tells nearly how many that are; only the last few records are counted whole.
        """
        topics: list[Topic] = []
        sizes: dict[str, int] = {}
        total = 0
        for topic in drawn:
            topics.append(topic)
            if topic.title not in sizes:
                sizes[topic.title] = count(topic.conversation)
            total += sizes[topic.title]
            if total > length.amount:
                break
        total = count(self._record(topics))
        if total > length.amount:
            while topics and total > length.amount:
                topics.pop()
                total = count(self._record(topics))
            if not topics:
                raise DoesNotFit(f"a record of {length} has no room for a topic")
            return topics
        for topic in drawn:
            longer = count(self._record([*topics, topic]))
            if longer > length.amount:
                return topics
            topics.append(topic)
            total = longer
        if total + total // len(topics) <= length.amount:
            raise self._too_few(length)
        return topics

    def _too_few(self, length: Length) -> DoesNotFit:
        return DoesNotFit(
            f"a record of {length} has more topics than the {len(self.topics())} of the pool {self._pool}; "
            "ask for a shorter one, or take topics-any, where topics may come again"
        )


class TopicsAny(Topics):
    """The topics at some places of a record.

    When the pool is used up it is drawn again in another order, as Anima's prompt repeats topics; what a place holds
    is certain all the same, and the record says that topics come again.
    """

    name = "topics-any"
    questions = 10

    def _drawn(self, chance: random.Random) -> Iterator[Topic]:
        last = None
        while True:
            drawn = chance.sample(self.topics(), len(self.topics()))
            if drawn[0] == last:  # the same twice running might be taken for one
                drawn.append(drawn.pop(0))
            yield from drawn
            last = drawn[-1]

    def _opening(self, topics: int) -> str:
        again = topics > len(self.topics())
        kind = "topics, of which some come more than once" if again else "different topics"
        return (
            f"Below between '[[[' and ']]]' is a record of our previous conversation on {topics} {kind}. {ROLES} At "
            "the end of the record, I will ask you to find out the topic at a certain place, counted from the first. "
            "Now the record start:\n\nRECORD:[[["
        )

    def _closing(self) -> str:
        return "]]]"

    def _asked(self, topics: int, chance: random.Random) -> list[int]:
        return chance.sample(range(topics), topics)

    def _question(self, place: int) -> str:
        return ANY.format(ordinal(place + 1))


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st ..."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _comparable(text: str) -> str:
    return normalised(in_ascii(re.sub(r"[-–—/]", " ", text.lower())))


def _longchat(path: Path) -> Iterable[Topic]:
    for record in load_records(path):
        yield Topic(text_field(record, "topic").rstrip("."), text_field(record, "conversation"))


def _anima(path: Path) -> Iterable[Topic]:
    for record in load_records(path):
        title, said = text_field(record, "TOPIC"), text_field(record, "CONVERSATION")
        for wrong, right in _MISSPELT.items():
            title = title.replace(wrong, right)
        first = re.match(r"USER: (?:I would like to discuss the topic of|I'd like to discuss) .+?\.(?=\s)", said)
        if first is None:
            raise DocumentError(f"{path}: the conversation on {title!r} does not begin as Anima's do")
        if first[0].lower() != f"{_ANNOUNCED}{title}.".lower():
            said = f"{_ANNOUNCED}{title[0].lower()}{title[1:]}.{said[first.end() :]}"
        yield Topic(title, said)
