"""The progress file: what is written, what is left out, and reading it while it grows."""

from __future__ import annotations

import json

import pytest

from prefix_studio.runs.progress import TAIL_BYTES, ProgressWriter, read_progress, summary


@pytest.fixture
def path(tmp_path):
    return tmp_path / "progress.jsonl"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def step(number: int, **more) -> dict:
    return {"event": "step", "step": number, "total_steps": 100, "loss": 1 / number} | more


def steps(path) -> list[int]:
    return [event["step"] for event in read_progress(path)[0] if event["event"] == "step"]


def test_ten_steps_a_second_are_kept_with_the_first_and_the_last(path):
    clock = Clock()
    with ProgressWriter(path, clock) as progress:
        for number in range(1, 1001):
            progress.write(step(number))
            clock.now += 0.002  # 500 steps a second for two seconds

    kept = steps(path)
    assert kept[0] == 1
    assert kept[-1] == 1000
    assert len(kept) <= 2 * 10 + 1


def test_every_other_event_is_kept_and_so_is_the_step_before_it(path):
    with ProgressWriter(path, Clock()) as progress:
        for number in range(1, 10):
            progress.write(step(number))
        progress.write({"event": "eval", "step": 9, "eval_loss": 0.5})
        progress.write({"event": "state", "state": "saving"})

    events = [(event["event"], event.get("step")) for event in read_progress(path)[0]]
    assert events == [("step", 1), ("step", 9), ("eval", 9), ("state", None)]


def test_a_run_of_hours_stays_small(path):
    clock = Clock()
    with ProgressWriter(path, clock) as progress:
        for number in range(1, 80_001):
            progress.write(step(number))
            clock.now += 0.36  # eight hours

    assert 10_000 < len(steps(path)) < 20_000


def test_events_carry_their_time_and_numbers_json_knows(path):
    with ProgressWriter(path, Clock()) as progress:
        progress.write(step(1, loss=float("nan"), grad={"norm": [float("inf"), 1.0]}))

    event = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert event["time"] == 1000.0
    assert event["loss"] is None
    assert event["grad"] == {"norm": [None, 1.0]}


def test_a_half_written_line_waits_for_its_end(path):
    path.write_bytes(b'{"event": "step", "step": 1}\n{"event": "st')
    events, offset = read_progress(path)
    assert [event["step"] for event in events] == [1]

    with path.open("ab") as file:
        file.write(b'ep", "step": 2}\n')
    events, offset = read_progress(path, offset)
    assert [event["step"] for event in events] == [2]
    assert read_progress(path, offset) == ([], path.stat().st_size)


def test_the_half_line_of_a_killed_attempt_spoils_nothing_after_it(path):
    path.write_bytes(b'{"event": "step", "step": 1}\n{"event": "st')
    with ProgressWriter(path) as progress:
        progress.write(step(2))

    assert steps(path) == [1, 2]


def test_no_file_yet_is_no_events(path):
    assert read_progress(path) == ([], 0)
    assert set(summary(path.parent).values()) == {None}


def test_the_summary_is_the_latest_of_each(path):
    with ProgressWriter(path) as progress:
        progress.write({"event": "eval", "step": 0, "eval_loss": 3.0})
        progress.write({"event": "state", "state": "training"})
        progress.write(step(7, eta_s=4.0, tokens_per_s=900.0, learning_rate=0.1))

    expected = {"step": 7, "total_steps": 100, "loss": 1 / 7, "eval_loss": 3.0, "eta_s": 4.0, "tokens_per_s": 900.0}
    assert summary(path.parent) == expected | {"learning_rate": 0.1, "state": "training"}
    assert summary(read_progress(path)[0]) == summary(path.parent)


def test_the_summary_of_a_long_file_finds_an_evaluation_long_ago(path):
    with path.open("w") as file:
        file.write('{"event": "eval", "step": 0, "eval_loss": 3.0}\n')
        file.writelines(json.dumps(step(number)) + "\n" for number in range(1, 2000))
    assert path.stat().st_size > TAIL_BYTES

    assert (summary(path.parent)["eval_loss"], summary(path.parent)["step"]) == (3.0, 1999)
