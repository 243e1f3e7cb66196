"""Probing: how a checkpoint that was not trained to use memory best uses it, found in minutes by retrieval tests on it.

Which layers: all have memory at once while made-up documents are read, and each is judged by its own account of
attention (`sightings`). Then how much of a window stays in the next one, and how many entries a query sees, by what is
found and by perplexity. Last, documents that nothing was chosen by say how far the checkpoint can be trusted.

Documents are made up (`probing_texts`), so nothing has to be fetched.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from longfocus.asking.session import Session
from longfocus.errors import RequestError
from longfocus.evaluation.probing_texts import AskedText, planted, record, story
from longfocus.evaluation.sightings import Sighting, choose_layers, sighting, worth
from longfocus.evaluation.subjects.book import BookSubject
from longfocus.evaluation.task import Count, Length
from longfocus.evaluation.tasks.lines import Lines
from longfocus.evaluation.tasks.needle import sentence_end
from longfocus.loading.defaults import UNTRAINED, training_free
from longfocus.loading.load import LoadedModel
from longfocus.loading.profiles import Found, Profile
from longfocus.memory.book import StoredBook
from longfocus.memory.layout import Reading
from longfocus.reading.documents import Document
from longfocus.reading.reader import read_steps

ANSWERS = "lines answered"
"""What is told besides what is found: lines that the checkpoint gave the right answer to."""
OVERLAPS = (2, 1, 3)
"""Quarters of a window that stay in the next one; the first is the usual."""
ENTRIES = (16, 4, 64)
"""Entries that a query sees; the first is the usual."""
WINDOWS = (4, 8, 16, 16, 16, 16)
"""How many windows the record of each round has, as long as the budget lasts."""
FEWEST_ROUNDS = 2
_LAYERS_SHARE = 0.6  # of the budget
_JUDGING = 3  # every so many rounds one is for judging what the others chose
_CHANCE = 0.1  # what is worth less finds hardly more than blind choice does
_CLOSE = 0.01  # perplexities that differ by less are taken for equal
_LARGEST_BOOK = 2**31  # bytes of memory in all layers of one document

Loading = Callable[..., LoadedModel]
"""Loads the checkpoint without an adapter; takes `mem_layers`, `window`, `window_overlap` and `sink_tokens`."""


@dataclass(frozen=True)
class Extent:
    """How much is asked.

    Attributes:
        seconds: That the probing should take.
        lines: Questions on each record.
        needles: Facts in each story.
        answers: Questions that are answered in the end.
        window: Tokens of the window; None for what suits the model.
    """

    seconds: float = 300.0
    lines: int = 12
    needles: int = 8
    answers: int = 8
    window: int | None = None


@dataclass(frozen=True)
class ProbeStep:
    """How far probing has come.

    Attributes:
        share: Of all there is to do, from 0 to 1, roughly.
        told: What was found out, in a sentence.
    """

    share: float
    told: str


@dataclass(frozen=True)
class Probed:
    """What was found.

    Attributes:
        fingerprint: Of the checkpoint.
        profile: How it best uses memory.
        usual: Whether its layers are the usual ones, since no others were found to be better.
        perplexity: Of the end of a story, with memory.
        entry_bytes: Of one token on the disk.
        seconds: That it took.
    """

    fingerprint: str
    profile: Profile
    usual: bool
    perplexity: float
    entry_bytes: int
    seconds: float


@dataclass(frozen=True)
class _Trial:
    """What a setting came to: how many of the questions were found, and the loss of a token in nats."""

    found: tuple[Found, ...]
    loss: float

    @property
    def right(self) -> int:
        return sum(one.right for one in self.found)


def probe(loading: Loading, extent: Extent | None = None, seed: int = 0) -> Iterator[ProbeStep | Probed]:
    """Find out how a checkpoint best uses memory; yields what comes to light and, last, all of it.

    Args:
        loading: Loads the checkpoint.
        extent: How much is asked.
        seed: Of all that is drawn.

    Raises:
        RequestError: The checkpoint was trained to use memory, or the package wonderwords is missing.
        BookError: The folder for temporary files has no room for a document with memory in all layers.
    """
    extent, begun = extent or Extent(), time.perf_counter()
    usual = loading(window=extent.window)
    if usual.habits.top_k is None:
        raise RequestError(f"{usual.name} was trained to use memory, so there is nothing to probe; it knows its layers")
    config = usual.model.config
    # what is there already, such as a profile, must not change what is found
    memory = training_free(config, extent.window)
    window, sinks = memory["window_length"], memory["sink_tokens"]
    settings = {"window": window, "sink_tokens": sinks}
    layers = range(config.num_hidden_layers)
    del usual
    gc.collect()  # two copies of a large model may be one too many
    everywhere = _untrained(loading(mem_layers=list(layers), window_overlap=memory["window_overlap"], **settings))
    sightings: list[list[Sighting]] = []
    lengths: list[int] = []
    yield from _rounds(everywhere, extent, seed, begun, sightings, lengths)
    del everywhere
    choosing = [one for number, some in enumerate(sightings) if number % _JUDGING != 1 for one in some]
    judging = [one for number, some in enumerate(sightings) if number % _JUDGING == 1 for one in some]
    most = UNTRAINED.look_up
    found = choose_layers(choosing, layers, most)
    before = tuple(memory["mem_layers"])
    better = worth(judging, found, most) >= max(worth(judging, before, most), _CHANCE)
    chosen = found if better else before
    listed = ", ".join(map(str, chosen))
    yield ProbeStep(_LAYERS_SHARE, f"layers {listed}" + ("" if better else ", the usual ones: none find better"))

    trials: dict[int, _Trial] = {}
    for place, quarters in enumerate(OVERLAPS):
        staying = min(max(window * quarters // 4, 2 * sinks), window - 1)
        gc.collect()
        loaded = _untrained(loading(mem_layers=list(chosen), window_overlap=staying - sinks, **settings))
        (trials[staying],) = _tried(loaded, extent, seed, window, (UNTRAINED.top_k or ENTRIES[0],))
        share = _LAYERS_SHARE + 0.07 * (place + 1)
        yield ProbeStep(share, f"{staying} of {window} tokens staying: {_told(trials[staying])}")
    staying = _best(trials)
    gc.collect()
    loaded = _untrained(loading(mem_layers=list(chosen), window_overlap=staying - sinks, **settings))
    others = dict(zip(ENTRIES[1:], _tried(loaded, extent, seed, window, ENTRIES[1:]), strict=True))
    by_entries = {ENTRIES[0]: trials[staying], **others}
    for entries, trial in others.items():
        yield ProbeStep(0.9, f"best {entries} entries: {_told(trial)}")
    top_k = _best(by_entries)
    loaded = replace(loaded, habits=replace(loaded.habits, top_k=top_k))
    trusted = tuple(_trusted(loaded, extent, seed, max(lengths)))
    profile = Profile(loaded.name, len(layers), chosen, window, staying - sinks, sinks, top_k, trusted)
    reading = Reading.by(loaded.name, loaded.fingerprint, loaded.model.config, 0)
    yield Probed(
        loaded.fingerprint,
        profile,
        not better,
        math.exp(by_entries[top_k].loss),
        2 * reading.entry_bytes * len(chosen),
        time.perf_counter() - begun,
    )


def _untrained(loaded: LoadedModel) -> LoadedModel:
    return replace(loaded, habits=UNTRAINED)


def _rounds(
    loaded: LoadedModel,
    extent: Extent,
    seed: int,
    begun: float,
    found: list[list[Sighting]],
    lengths: list[int],
) -> Iterator[ProbeStep]:
    """Read made-up documents with memory in all layers, round after round; what questions attended to is
    added, and how many tokens the record had.
    """
    subject, config = BookSubject(loaded), loaded.model.config
    reading = Reading.by(loaded.name, loaded.fingerprint, config, 0)
    longest = _LARGEST_BOOK // (2 * reading.entry_bytes * config.num_hidden_layers)
    last_seconds = last_windows = 0.0
    for number, windows in enumerate(WINDOWS):
        if number >= FEWEST_ROUNDS:
            ahead = last_seconds * windows / last_windows
            if time.perf_counter() - begun + ahead > _LAYERS_SHARE * extent.seconds:
                break
        elif number and 2 * last_seconds * windows / last_windows > _LAYERS_SHARE * extent.seconds:
            windows = WINDOWS[0]
        started = time.perf_counter()
        tokens = min(windows * config.window, max(longest, WINDOWS[0] * config.window))
        some = []
        for asked in _texts(extent, subject.count, tokens, number, seed):
            with _read(loaded, asked.text) as book:
                session = Session(book, loaded)
                some += [sighting(session, one) for one in asked.questions]
        found.append(some)
        lengths.append(tokens)
        last_seconds, last_windows = time.perf_counter() - started, windows
        share = min((time.perf_counter() - begun) / extent.seconds, _LAYERS_SHARE)
        yield ProbeStep(share, f"round {number + 1}: {len(some)} questions on {tokens:,} tokens of lines and a story")


def _tried(loaded: LoadedModel, extent: Extent, seed: int, window: int, entries: Sequence[int]) -> list[_Trial]:
    """What a reading comes to with so many entries seen, each on the same documents."""
    counting = BookSubject(loaded).count
    told = story(WINDOWS[0] * window, counting)
    cut = sentence_end(told, len(told) * 3 // 4)
    with ExitStack() as kept:
        texts = _texts(extent, counting, 2 * WINDOWS[0] * window, 1000, seed)
        books = [(asked, kept.enter_context(_read(loaded, asked.text))) for asked in texts]
        begun = kept.enter_context(_read(loaded, told[:cut], framed=False))
        trials = []
        for number in entries:
            seeing = replace(loaded, habits=replace(loaded.habits, top_k=number))
            found = [one for asked, book in books for one in _found(Session(book, seeing), asked)]
            loss, tokens = BookSubject(seeing).opened(begun).loss(told[cut:])
            trials.append(_Trial(tuple(found), loss / tokens))
    return trials


def _trusted(loaded: LoadedModel, extent: Extent, seed: int, tokens: int) -> Iterator[Found]:
    """What is found, and answered, in documents by which nothing was chosen."""
    subject = BookSubject(loaded)
    for asked in _texts(extent, subject.count, tokens, 2000, seed):
        with _read(loaded, asked.text) as book:
            yield from _found(Session(book, loaded), asked)
    if extent.answers:
        task = Lines()
        sheet = task.sheet(
            Length(min(tokens, WINDOWS[0] * loaded.model.config.window)), 3000, subject.count, extent.answers, seed
        )
        with _read(loaded, sheet.document) as book:
            opened = subject.opened(book)
            scores = [task.attempt(opened, question).score or 0.0 for question in sheet.questions]
        yield Found(ANSWERS, int(sum(scores)), len(scores))


def _found(session: Session, asked: AskedText) -> list[Found]:
    """How many questions' passages are among those that would be put before the question, by measures."""
    right: dict[str, list[bool]] = {}
    for one in asked.questions:
        passages = session.looked_up(one.question, None).looked_up
        right.setdefault(one.measure, []).append(any(one.wanted(passage.text) for passage in passages))
    return [Found(measure, sum(found), len(found)) for measure, found in right.items()]


def _best(trials: dict[int, _Trial]) -> int:
    """The setting that finds most; among those about as good the one of lowest loss, or the first if that is close.

    One question more or less is no difference.
    """
    most = max(trial.right for trial in trials.values())
    able = {setting: trial for setting, trial in trials.items() if trial.right >= most - 1}
    lowest = min(trial.loss for trial in able.values())
    return next(setting for setting, trial in able.items() if trial.loss <= lowest + _CLOSE)


def _told(trial: _Trial) -> str:
    found = ", ".join(f"{one.right} of {one.asked} {one.measure}" for one in trial.found)
    return f"{found}; perplexity {math.exp(trial.loss):.2f}"


def _texts(extent: Extent, count: Count, tokens: int, number: int, seed: int) -> Iterator[AskedText]:
    """A record of so many tokens, and the story with facts in it."""
    yield record(tokens, extent.lines, number, seed, count)
    yield planted(story(tokens, count), extent.needles, number, seed)


@contextmanager
def _read(loaded: LoadedModel, text: str, framed: bool = True) -> Iterator[StoredBook]:
    """A Book of the text, for as long as it is asked."""
    with tempfile.TemporaryDirectory(prefix="longfocus-probe-") as folder:
        for _ in read_steps(Document("probe", text, (0, len(text))), loaded, Path(folder, "book"), framed=framed):
            pass
        yield StoredBook.open(Path(folder, "book"))
