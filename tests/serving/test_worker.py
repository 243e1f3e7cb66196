"""Jobs in the worker's thread: each is told of to its end, exactly once, whatever becomes of it."""

import random
import threading
import time

import pytest

from longfocus.serving.asked import Asked
from longfocus.serving.refusals import Refusal
from longfocus.serving.schedule import Schedule
from longfocus.serving.worker import Begun, Ended, Given, Job, Worker


@pytest.fixture
def worker():
    working = Worker(Schedule(64, 8))
    working.start()
    yield working
    working.stop(5)


class Watched:
    """A job whose story is kept."""

    def __init__(self, work, client="one", is_reading=False):
        self.told = []
        self.ended = threading.Event()
        self.job = Job(client, work, self.tell, is_reading)

    def tell(self, told):
        self.told.append(told)
        if isinstance(told, Ended):
            self.ended.set()

    def end(self):
        assert self.ended.wait(10)
        assert sum(isinstance(told, Ended) for told in self.told) == 1
        return self.told[-1]


def blocked(worker):
    """Keeps the worker busy; returns what lets it go on."""
    gate, begun = threading.Event(), threading.Event()

    def work():
        begun.set()
        gate.wait(10)
        yield "passed"

    watched = Watched(work)
    worker.submit(watched.job)
    assert begun.wait(10)
    return gate, watched


def test_a_job_is_told_of(worker):
    watched = Watched(lambda: iter("ab"))
    worker.submit(watched.job)
    assert watched.end() == Ended("done")
    assert watched.told == [Begun(), Given("a"), Given("b"), Ended("done")]


def test_a_job_that_fails_harms_no_other(worker, caplog):
    def fails():
        yield 1
        raise ValueError("no")

    first, second = Watched(fails), Watched(lambda: iter("a"))
    worker.submit(first.job)
    worker.submit(second.job)
    assert first.end().how == "failed"
    assert isinstance(first.told[-1].error, ValueError)
    assert second.end().how == "done"
    assert "ValueError: no" in caplog.text


def test_a_question_waits_for_one_window_of_reading(worker):
    order = []

    def reading():
        for number in range(6):
            order.append(number)
            yield number

    gate, _ = blocked(worker)
    watched = [Watched(reading, "reader", True)]
    watched += [Watched(lambda: iter(order.append("question") or ())) for _ in range(3)]
    for each in watched:
        worker.submit(each.job)
    gate.set()
    for each in watched:
        each.end()
    assert order == [0, "question", 1, "question", 2, "question", 3, 4, 5]


def test_called_off_before_its_turn(worker):
    gate, first = blocked(worker)
    watched = Watched(lambda: iter("a"))
    worker.submit(watched.job)
    worker.cancel(watched.job)
    assert watched.told == [Ended("cancelled")]
    gate.set()
    assert first.end().how == "done"


@pytest.mark.parametrize("is_reading", [False, True])
def test_called_off_while_it_runs(worker, is_reading):
    closed = threading.Event()

    def work():
        try:
            while True:
                time.sleep(0.001)
                yield 1
        finally:
            closed.set()

    watched = Watched(work, is_reading=is_reading)
    worker.submit(watched.job)
    while len(watched.told) < 3:
        time.sleep(0.001)
    worker.cancel(watched.job)
    assert watched.end() == Ended("cancelled")
    assert closed.is_set()


def windows(read, closed):
    """A reading without end, and what it leaves behind."""
    try:
        while True:
            read.set()
            yield 1
    finally:
        closed.set()


def test_a_reading_between_its_turns_is_called_off_while_a_question_is_answered(worker):
    read, closed = threading.Event(), threading.Event()
    watched = Watched(lambda: windows(read, closed), is_reading=True)
    worker.submit(watched.job)
    assert read.wait(10)
    gate, question = blocked(worker)
    worker.cancel(watched.job)
    assert watched.told[-1] == Ended("cancelled")
    assert closed.is_set()
    again = Watched(lambda: iter("a"), is_reading=True)
    worker.submit(again.job)
    gate.set()
    assert again.end().how == question.end().how == "done"
    assert watched.end() == Ended("cancelled")


def test_a_reading_called_off_in_its_window_does_not_wait_for_a_question(worker):
    gate, begun, read, closed = (threading.Event() for _ in range(4))

    def reading():
        begun.set()
        gate.wait(10)
        yield from windows(read, closed)

    watched = Watched(reading, is_reading=True)
    worker.submit(watched.job)
    assert begun.wait(10)
    held = threading.Event()
    question = Watched(lambda: iter([held.wait(10)]))
    worker.submit(question.job)
    worker.cancel(watched.job)
    gate.set()
    assert watched.end() == Ended("cancelled")
    assert closed.is_set()
    assert not question.ended.is_set()
    held.set()
    assert question.end().how == "done"


def test_over_the_bound_a_time_to_come_back_is_told(worker):
    gate, _ = blocked(worker)
    for number in range(64):
        worker.submit(Watched(lambda: iter(()), f"client {number}").job)
    with pytest.raises(Refusal) as caught:
        worker.submit(Watched(lambda: iter(()), "another").job)
    assert caught.value.status == 429
    assert int(caught.value.headers["Retry-After"]) >= 1
    gate.set()


def test_stopping_lets_what_runs_end_and_tells_the_others():
    worker = Worker(Schedule(8, 8))
    worker.start()
    gate, first = blocked(worker)
    waits = Watched(lambda: iter("a"))
    worker.submit(waits.job)
    threading.Timer(0.1, gate.set).start()
    worker.stop(10)
    assert first.end().how == "done"
    assert waits.end().error.status == 503
    with pytest.raises(Refusal):
        worker.submit(Watched(lambda: iter(())).job)
    assert not worker.is_alive


class Shared:
    """Questions of one group, and the turns that they had; each has an answer after so many turns."""

    def __init__(self, turns=1):
        self.turns, self.needed = [], turns
        self.let = threading.Event()

    def __call__(self, asked):
        self.let.wait(10)
        self.turns.append(len(asked))
        for each in asked:
            each.had = getattr(each, "had", 0) + 1
            if each.cancelled.is_set():
                yield each, Ended("cancelled")
            elif each.had < self.needed:
                yield each, None
            else:
                yield each, "answer"
                yield each, Ended("done")

    def watched(self, client="one"):
        made = Watched(None, client)
        made.job = Job.of_question(client, Asked(None, group="book"), made.tell)
        return made


def test_questions_of_a_group_share_turns_and_each_is_told_of():
    shared = Shared(turns=2)
    worker = Worker(Schedule(64, 8), shared, at_once=3)
    worker.start()
    watched = [shared.watched(f"client {number}") for number in range(5)]
    for each in watched:
        worker.submit(each.job)
    while not worker._running:
        time.sleep(0.001)
    worker.cancel(watched[0].job)
    shared.let.set()
    for each in watched[1:]:
        assert each.end() == Ended("done")
        assert each.told == [Begun(), Given("answer"), Ended("done")]
    assert watched[0].end() == Ended("cancelled")
    assert max(shared.turns) > 1
    assert len(shared.turns) < 9
    worker.stop(5)


def test_a_turn_that_fails_ends_all_in_it_and_no_other(caplog):
    def fails(asked):
        if len(asked) > 1:
            raise ValueError("no")
        yield asked[0], Ended("done")

    worker = Worker(Schedule(64, 8), fails, at_once=2)
    watched = [Shared().watched() for _ in range(3)]
    for each in watched:
        worker.submit(each.job)
    worker.start()
    assert [each.end().how for each in watched] == ["failed", "failed", "done"]
    assert "ValueError: no" in caplog.text
    worker.stop(5)


def test_stopping_refuses_a_question_that_waits_for_another_turn():
    shared = Shared(turns=2)
    worker = Worker(Schedule(64, 8), shared)
    worker.start()
    watched = shared.watched()
    worker.submit(watched.job)
    while not worker._running:
        time.sleep(0.001)
    worker.drain()
    shared.let.set()
    assert watched.end().error.status == 503
    worker.stop(5)


@pytest.mark.parametrize(("is_reading", "how"), [(False, "cancelled"), (True, "failed")])
def test_stopping_calls_off_what_takes_too_long_and_leaves_reading_after_its_window(is_reading, how):
    worker = Worker(Schedule(8, 8))
    worker.start()
    watched = Watched(lambda: (time.sleep(0.005) for _ in iter(int, 1)), is_reading=is_reading)
    worker.submit(watched.job)
    while len(watched.told) < 2:
        time.sleep(0.001)
    worker.stop(0.05)
    assert watched.end().how == how


def test_nothing_is_lost_among_many_clients(worker):
    """Submitted and called off from several threads at random: each job ends, and only those called off unfinished."""
    watched = [Watched(lambda: iter(range(3)), f"client {number % 5}") for number in range(60)]
    refused = []

    def client(number):
        chance = random.Random(number)
        for each in watched[number::4]:
            try:
                worker.submit(each.job)
            except Refusal:
                refused.append(each)
                continue
            if chance.random() < 0.3:
                worker.cancel(each.job)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in watched:
        if each not in refused:
            end = each.end()
            assert end.how == "done" or each.job.cancelled.is_set()
            assert end.how != "done" or len(each.told) == 5
