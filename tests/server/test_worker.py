"""One job at a time, in order, bounded, and gone when its caller is."""

from __future__ import annotations

import threading
from queue import Queue

import pytest

from prefix_studio.server import worker as worker_module
from prefix_studio.server.worker import Busy, Worker


@pytest.fixture
def worker():
    worker = Worker(max_waiting=2)
    yield worker
    worker.close()


def gathered(events: Queue) -> list:
    return list(iter(lambda: events.get(timeout=5), None))


class Gate:
    """A job that holds the worker until it is opened."""

    def __init__(self, worker):
        self.begun, self.opened, self.events = threading.Event(), threading.Event(), Queue()
        self.job = worker.submit(self.work, self.events.put)
        assert self.begun.wait(5)

    def work(self, should_stop):
        self.begun.set()
        assert self.opened.wait(5)
        yield "through"


def test_events_arrive_in_order_and_end_with_none(worker):
    events = Queue()
    worker.submit(lambda should_stop: iter("abc"), events.put)
    assert gathered(events) == ["a", "b", "c"]


def test_jobs_run_one_after_the_other(worker):
    gate, order, last = Gate(worker), [], Queue()
    worker.submit(lambda should_stop: order.append(1) or (), lambda event: None)
    worker.submit(lambda should_stop: order.append(2) or (), last.put)
    assert order == []
    gate.opened.set()
    gathered(last)
    assert order == [1, 2]


def test_an_error_is_the_last_event_and_the_worker_lives_on(worker):
    def work(should_stop):
        yield "before"
        raise ValueError("broken")

    events, after = Queue(), Queue()
    worker.submit(work, events.put)
    worker.submit(lambda should_stop: ["fine"], after.put)
    before, error = gathered(events)
    assert before == "before"
    assert isinstance(error, ValueError)
    assert gathered(after) == ["fine"]


def test_too_many_waiting_jobs_are_refused_until_one_gives_up(worker):
    gate = Gate(worker)
    first = worker.submit(lambda should_stop: (), lambda event: None)
    worker.submit(lambda should_stop: (), lambda event: None)
    with pytest.raises(Busy, match="2 requests wait already"):
        worker.submit(lambda should_stop: (), lambda event: None)
    first.cancel()
    events = Queue()
    worker.submit(lambda should_stop: ["its turn"], events.put)
    gate.opened.set()
    assert gathered(events) == ["its turn"]


def test_a_cancelled_job_stops_or_never_begins(worker):
    begun, events, after = threading.Event(), Queue(), Queue()

    def endless(should_stop):
        while not should_stop():
            begun.set()
            yield "more"

    running = worker.submit(endless, events.put)
    assert begun.wait(5)
    waiting = worker.submit(lambda should_stop: pytest.fail("begun after all"), lambda event: None)
    worker.submit(lambda should_stop: ["next"], after.put)
    waiting.cancel()
    running.cancel()
    assert gathered(after) == ["next"]


def test_idle_time_is_used(monkeypatch):
    monkeypatch.setattr(worker_module, "SECONDS_BETWEEN_IDLE_CALLS", 0.01)
    idle = threading.Event()
    worker = Worker(when_idle=idle.set)
    assert idle.wait(5)
    worker.close()
