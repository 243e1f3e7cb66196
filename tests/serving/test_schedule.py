"""The order of turns: nobody is passed over, nothing is lost, no more wait than may."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longfocus.serving.schedule import Crowded, FairQueue, Schedule


@dataclass(eq=False)
class Asked:
    client: str
    is_reading: bool = False


ACTIONS = st.lists(st.one_of(st.sampled_from("abc"), st.just("take"), st.integers(0, 9)), max_size=60)


@given(ACTIONS, st.integers(1, 8), st.integers(1, 8))
def test_a_queue_is_fair_bounded_and_loses_nothing(actions, most, most_each):
    queue, waiting, seen = FairQueue(most, most_each), [], {}
    for action in actions:
        if action == "take":
            job = queue.take()
            assert (job is None) == (not waiting)
            if job is None:
                continue
            assert job is next(each for each in waiting if each.client == job.client), "first come, first served"
            waiting.remove(job)
            for each in waiting:
                seen[each][job.client] += 1
                if job.client != each.client:
                    assert seen[each][job.client] <= seen[each][each.client] + 1, "in turn among the clients"
        elif isinstance(action, int):
            if action < len(waiting):
                job = waiting.pop(action)
                assert queue.remove(job)
                assert not queue.remove(job)
        else:
            job = Asked(action)
            mine = sum(each.client == action for each in waiting)
            if len(waiting) >= most or mine >= most_each:
                with pytest.raises(Crowded):
                    queue.add(job)
            else:
                queue.add(job)
                waiting.append(job)
                seen[job] = Counter()
        assert len(queue) == len(waiting)
    left = []
    while (job := queue.take()) is not None:
        left.append(job)
    assert set(left) == set(waiting)
    assert len(left) == len(waiting)


@given(st.lists(st.sampled_from(["question", "reading", "turn", "turn", "end"]), max_size=60))
def test_questions_and_reading_take_turns(actions):
    schedule, questions, readings, last = Schedule(100, 100), [], [], None
    for action in actions:
        if action in ("question", "reading"):
            job = Asked("one", action == "reading")
            schedule.add(job)
            (readings if job.is_reading else questions).append(job)
            continue
        if action == "end":
            if schedule.reading is not None:
                readings.remove(schedule.reading)
                schedule.done(schedule.reading)
            continue
        had = bool(questions), bool(readings)
        job = schedule.take()
        assert (job is None) == (had == (False, False))
        if job is None:
            continue
        if had == (True, True) and last is not None:
            assert job.is_reading != last, "neither goes on while the other waits"
        if job.is_reading:
            assert job is readings[0], "one document after the other"
        else:
            assert job is questions.pop(0)
        last = job.is_reading
    assert set(schedule.empty()) == set(questions) | (set(readings) - {schedule.reading})
