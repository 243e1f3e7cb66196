"""Kinds of exercise: each makes up a document with questions whose answers lie in it."""

from __future__ import annotations

from collections.abc import Callable

from longfocus.errors import RequestError
from longfocus.training.exercise_source import Made, Question, Source, sentences
from longfocus.training.tales import Tale


def records(source: Source, tokens: int) -> Made:
    """A list of keys with numbers, in one of several forms; LongChat's lines are the first."""
    chance = source.chance
    form, ask, answer = chance.choice(_RECORDS)
    alike = [source.word() for _ in range(chance.choice([0, 8, 40]))]  # words that many keys share
    ids = source.encode(chance.choice(_RECORD_OPENINGS))
    pairs = []
    while len(ids) < tokens:
        pairs.append((source.key(alike), source.number()))
        ids += source.encode(form.format(*pairs[-1]))
    whole = range(max(len(pairs) - 1, 1))  # the last may be cut
    questions = []
    for place in chance.sample(whole, min(40, len(whole))):
        key, value = pairs[place]
        questions.append(Question(chance.choice(ask).format(key), answer.format(key, value), (place,)))
    return Made(ids, questions, [form.format(*pairs[place]).strip() for place in whole])


_RECORD_OPENINGS = [
    "Here is a register. Each line has a key and a value.\n\n",
    "Keep these records in mind; some of them will be asked for.\n\n",
    "",
]
# One form of answer for each: which of several was drawn could not be known, and would only be noise. Those that say
# the key again have found its record by then.
_RECORDS: list[tuple[str, list[str], str]] = [
    (
        "line {}: REGISTER_CONTENT is <{}>\n",
        [
            "Tell me what is the <REGISTER_CONTENT> in line {}? I need the number.",
            "What is the REGISTER_CONTENT in line {}?",
        ],
        "The <REGISTER_CONTENT> in line {0} is <{1}>.",
    ),
    ("{}: {}\n", ["What is the value of {}?", "Which number belongs to {}?"], "The value of {0} is {1}."),
    ("The code of {} is {}.\n", ["What is the code of {}?", "Tell me the code of {}."], "{1}"),
    ("- {} = {}\n", ["What does {} equal?", "Give the number for {}."], "{0} = {1}"),
]


def facts(source: Source, tokens: int) -> Made:
    """Pages of a book with made-up facts between the paragraphs."""
    chance = source.chance
    ids: list[int] = []
    passages: list[str] = []
    found: list[Question] = []
    while len(ids) < tokens:
        fact, question, answer = chance.choice(_FACTS)(source)
        page = source.prose(chance.randint(200, 1200))
        parts = [*sentences(page), fact]
        added = source.encode(f"{page}\n\n{fact}\n\n")
        if not found and len(added) > tokens:
            added, parts = source.encode(f"{fact}\n\n{page}\n\n"), [fact]
        if not found or len(ids) + len(added) <= tokens:
            passages += parts
            found.append(Question(question, answer, (passages.index(fact),)))
        ids += added
    return Made(ids, chance.sample(found, min(24, len(found))), passages)


def _pass_key(source: Source) -> tuple[str, str, str]:
    of, key = source.key().replace("-", " "), source.number()
    return (
        f"The pass key of the {of} is {key}. Remember it. {key} is the pass key of the {of}.",
        (f"What is the pass key of the {of}?"),
        key,
    )


def _kept(source: Source) -> tuple[str, str, str]:
    person, thing = source.person(), f"a {source.word()} {source.word()}"
    return f"{person} kept {thing} in the {source.word()} room.", f"What did {person} keep?", thing


def _born(source: Source) -> tuple[str, str, str]:
    person, town = source.person(), source.made_up()
    return f"{person} was born in the town of {town}.", f"Where was {person} born?", town


def _password(source: Source) -> tuple[str, str, str]:
    of, password = source.key().replace("-", " "), f"{source.word()} {source.word()}"
    return f'The password of the {of} was "{password}".', f"What was the password of the {of}?", password


def _paid(source: Source) -> tuple[str, str, str]:
    person, sum_ = source.person(), source.number()
    return f"{person} paid {sum_} pounds for the {source.word()}.", f"How much did {person} pay?", f"{sum_} pounds"


def _daughter(source: Source) -> tuple[str, str, str]:
    person, name = source.person(), source.made_up()
    return f"The daughter of {person} was called {name}.", f"What was the name of {person}'s daughter?", name


_FACTS = (_pass_key, _kept, _born, _password, _paid, _daughter)


def pass_key(source: Source, tokens: int) -> Made:
    """One number in the middle of sentences that say nothing, over and over."""
    chance = source.chance
    said = chance.choice(_FILLINGS)
    key = str(chance.randint(1, 50_000))
    filling = source.encode(said)
    telling = f"The pass key is {key}. Remember it. {key} is the pass key."
    hidden = source.encode(f"{telling} ")
    ids = source.encode(chance.choice(_PASS_KEY_OPENINGS))
    times = max((tokens - len(ids) - len(hidden)) // len(filling), 1)
    place = chance.randint(0, times)
    ids += filling * place + hidden + filling * (times - place + 1)
    asked = chance.choice(["What is the pass key?", "What is the pass key? The pass key is"])
    return Made(ids, [Question(asked, key, (1,))], [said.strip(), telling, said.strip()])


_FILLINGS = [
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ",
    "The rain fell on the roof. Nobody came. The clock went on. It was late. ",
    "One day is like another. The road is long. The hills are far away. ",
]
_PASS_KEY_OPENINGS = [
    "Somewhere in this text, most of which says nothing, stands a number that matters. Find it and keep it in mind. ",
    "A number is hidden in this text. Find it. ",
    "",
]


def quotations(source: Source, tokens: int) -> Made:
    """A stretch of a book; asked for is how passages of it go on."""
    chance = source.chance
    ids = source.prose_ids(tokens)
    text = source.tokenizer.decode
    questions = []
    passages = [text(ids[start : start + 64]).strip() for start in range(0, len(ids), 64)]
    for _ in range(6):
        start = chance.randrange(max(len(ids) - 60, 1))
        quoted, following = (text(piece).strip() for piece in (ids[start : start + 16], ids[start + 16 : start + 40]))
        places = tuple(sorted({start // 64, min(start + 39, len(ids) - 1) // 64}))
        questions.append(Question(chance.choice(_GO_ON).format(quoted), following, places))
    return Made(ids, questions, passages)


_GO_ON = ['How does this passage go on: "{}"', 'Continue from the text: "{}"', 'What follows "{}" in the text?']


def topics(source: Source, tokens: int) -> Made:
    """A record of talks, each opened with its topic; asked for are the first, and those after and before another."""
    chance = source.chance
    ids: list[int] = []
    names: list[str] = []
    passages: list[str] = []
    while len(ids) < tokens:
        name = f"the {source.word()} of {source.key().replace('-', ' ')}"
        said = f"USER: I would like to discuss the topic of {name}."
        added = source.encode(
            f"{said}\nASSISTANT: Sure! What would you like to know?\nUSER: {source.prose(chance.randint(300, 1500))}\n"
        )
        if len(ids) + len(added) <= tokens or not names:
            names.append(name)
            passages.append(said)
        ids += added
    first = "What is the first topic we discussed? Give only the name of the topic."
    questions = [Question(first, names[0], (0,))]
    for place in chance.sample(range(1, len(names)), min(6, len(names) - 1)):
        after = f"Which topic did we discuss right after {names[place - 1]}?"
        questions.append(Question(after, names[place], (place - 1, place)))
    chance.shuffle(questions)
    return Made(ids, questions, passages)


def hops(source: Source, tokens: int) -> Made:
    """Keys that lead to keys that have values: two look-ups for one answer."""
    chance = source.chance
    ids: list[int] = []
    pairs: list[tuple[str, str, str]] = []
    waiting: list[str] = []
    written: list[str] = []
    while len(ids) < tokens:
        first, second, value = source.key(), source.key(), source.number()
        pairs.append((first, second, value))
        waiting += [f"{first} is kept by {second}.\n", f"{second} lives at number {value}.\n"]
        chance.shuffle(waiting)
        for _ in range(min(2, len(waiting))):
            if len(ids) >= tokens:
                break
            written.append(waiting.pop())
            ids += source.encode(written[-1])
    whole = written[:-1]  # the last may be cut
    places = {line: place for place, line in enumerate(whole)}
    questions = []
    for first, second, value in pairs:
        kept, lives = f"{first} is kept by {second}.\n", f"{second} lives at number {value}.\n"
        if kept in places and lives in places:
            asked = f"At which number does the keeper of {first} live?"
            questions.append(Question(asked, (kept + lives).replace("\n", " ").strip(), (places[kept], places[lives])))
    return Made(ids, chance.sample(questions, min(16, len(questions))), [line.strip() for line in whole])


def tales(source: Source, tokens: int) -> Made:
    """Pages of a book with a story retold between them, in its order; asked about is the story.

    Raises:
        RequestError: The source has no tales.
    """
    chance = source.chance
    if not source.tales:
        raise RequestError("exercises in tales need retold stories, and there are none")
    tale = chance.choice(source.tales)
    told = [source.encode(f"{sentence}\n\n") for sentence in tale.sentences]
    while len(told) > 1 and sum(map(len, told)) > tokens // 2:
        told.pop()
    cuts = sorted(chance.randrange(1, len(told) + 1) for _ in range(2))
    room = (tokens - sum(map(len, told))) // 3
    ids: list[int] = []
    passages: list[str] = []
    numbers: dict[int, int] = {}
    for first, last in zip([0, *cuts], [*cuts, len(told)], strict=True):
        page = source.prose(max(room, 40) * 4)
        ids += source.encode(f"{page}\n\n")[: max(room, 0)]
        passages += sentences(page)[: max(len(page) // 600, 1)]
        for number in range(first, last):
            numbers[number] = len(passages)
            passages.append(tale.sentences[number])
            ids += told[number]
    while len(ids) < tokens:
        ids += source.encode(source.prose(tokens * 4))
    known = [question for question in tale.questions if all(place in numbers for place in question.places)]
    asked = chance.sample(known, min(8, len(known)))
    form = chance.choice(_BRIEFLY)
    questions = [
        Question(form.format(each.text), chance.choice(each.answers), tuple(numbers[place] for place in each.places))
        for each in asked
    ]
    return Made(ids, questions or [_recital(tale, numbers)], passages)


def _recital(tale: Tale, numbers: dict[int, int]) -> Question:
    """Where a story's questions need what had no room: how it goes on from its first sentence."""
    return Question(_GO_ON[0].format(tale.sentences[0]), tale.sentences[min(1, len(numbers) - 1)], (numbers[0],))


_BRIEFLY = ["{}", "{} Answer in a few words.", "{} Answer with a single phrase if one will do, and explain nothing."]


EXERCISES: dict[str, Callable[[Source, int], Made]] = {
    "records": records,
    "facts": facts,
    "pass_key": pass_key,
    "quotations": quotations,
    "topics": topics,
    "hops": hops,
    "tales": tales,
}
"""Kinds of exercise; besides these there is "continuation", a book's own next words."""

PLAIN = tuple(kind for kind in EXERCISES if kind != "tales")
"""Kinds that need nothing but books."""

CROWDED = frozenset({"records", "hops"})
"""Kinds whose documents are nothing but things to be told apart."""
