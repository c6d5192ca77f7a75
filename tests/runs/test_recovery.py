"""Runs are never lost and never doubled: kill -9 of real processes at any time, then start again.

Everything is the real thing but the trainer, which counts steps, and which writes down every overlap with another live
attempt (`detector` in fake_attempt.py). One test shows that it can.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from prefix_studio.recipe import Recipe
from prefix_studio.runs import processes
from prefix_studio.runs.folder import Exit
from prefix_studio.runs.locks import is_held
from prefix_studio.runs.progress import read_progress
from prefix_studio.runs.supervisor import ensure_supervisor, keep_supervisor
from prefix_studio.runs.table import RunRow, RunTable
from prefix_studio.settings import PROJECT, Settings

HERE = Path(__file__).parent
ATTEMPT = (sys.executable, str(HERE / "fake_attempt.py"))
WORKER = (sys.executable, str(HERE / "fake_worker.py"))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX word")


class Studio:
    """A studio with a real supervisor, and the ways in which a test hurts it."""

    def __init__(self, settings: Settings, rows: Path):
        self.settings = settings
        self.rows = rows
        self.table = RunTable(settings)
        self.table.list()
        self.enough = threading.Event()
        # Counts what the queue must do once: the trigger sees every write, whoever makes it.
        with sqlite3.connect(settings.database) as db:
            db.execute("CREATE TABLE final_writes (id TEXT, state TEXT)")
            db.execute(
                """CREATE TRIGGER count_final AFTER UPDATE OF state ON runs
                   WHEN new.state IN ('finished', 'failed', 'cancelled')
                   BEGIN INSERT INTO final_writes VALUES (new.id, new.state); END"""
            )

    def submit(self, script: str = "", steps: int = 20) -> str:
        fields = {"name": script, "data": {"source": str(self.rows)}, "training": {"max_steps": steps}}
        return self.table.submit(Recipe.from_fields(fields))

    def start(self) -> int:
        """Start a supervisor and return its pid."""
        known = {process.pid for process in self.supervisors()}
        assert ensure_supervisor(self.settings, command=WORKER)
        self.wait(lambda: is_held(self.settings.home / "supervisor.lock"), 10)
        return next(process.pid for process in self.supervisors() if process.pid not in known)

    def supervisors(self) -> list[psutil.Process]:
        return self._processes("fake_worker.py")

    def attempts(self) -> list[psutil.Process]:
        return self._processes("fake_attempt.py")

    def _processes(self, script: str) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline", "environ", "status"]):
            mine = (process.info["environ"] or {}).get("PREFIX_STUDIO_HOME") == str(self.settings.home)
            if mine and process.info["status"] != "zombie" and str(HERE / script) in (process.info["cmdline"] or []):
                found.append(process)
        return found

    def wait(self, condition: Callable[[], object], seconds: float = 20) -> float:
        """Wait until the condition holds and return how long it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, f"not within {seconds} s: {self.describe()}"
            time.sleep(0.02)
        return time.monotonic() - began

    def wait_for_state(self, run_id: str, state: str, seconds: float = 20) -> RunRow:
        self.wait(lambda: self.table.get(run_id).state == state, seconds)
        return self.table.get(run_id)

    def wait_at(self, run_id: str) -> RunRow:
        """Wait until a run of the script `wait-at N` has come to its step."""
        self.wait((self.table.get(run_id).folder / "waiting").exists)
        return self.table.get(run_id)

    def go_on(self, run_id: str) -> None:
        (self.table.get(run_id).folder / "go").touch()

    def resumed_from(self, run_id: str) -> list[int]:
        events, _ = read_progress(self.table.get(run_id).folder / "progress.jsonl")
        return [event["resumed_from"] for event in events if "resumed_from" in event]

    def overlaps(self) -> list[str]:
        return [path.read_text() for path in self.settings.runs.glob("*/overlaps")]

    def assert_finished_once(self, run_id: str) -> None:
        run = self.wait_for_state(run_id, "finished")
        with sqlite3.connect(self.settings.database) as db:
            writes = db.execute("SELECT state FROM final_writes WHERE id = ?", (run_id,)).fetchall()
        assert writes == [("finished",)]
        assert Exit.read(run.folder).state == "finished"
        assert Exit.read(run.folder).attempt == run.attempt
        assert (run.folder / "finishes").read_text().count("\n") == 1
        assert self.overlaps() == []

    def describe(self) -> str:
        log = self.settings.home / "supervisor.log"
        return f"{self.table.list()}\n{log.read_text() if log.exists() else ''}"


@pytest.fixture
def studio(home, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))  # the stand-ins are scripts, which look beside themselves
    rows = tmp_path / "rows.csv"
    rows.write_text("prompt,completion\na,b\n")
    studio = Studio(home, rows)
    yield studio
    studio.enough.set()
    for process in [*studio.supervisors(), *studio.attempts()]:
        process.kill()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_a_run_goes_through_the_queue_and_the_next_follows(studio):
    first, second = studio.submit(steps=5), studio.submit(steps=5)  # acknowledged while nobody is there to run them
    studio.start()

    studio.assert_finished_once(first)
    studio.assert_finished_once(second)
    assert studio.table.get(first).ended <= studio.table.get(second).started
    assert studio.table.get(first).attempt == 1


def test_a_killed_attempt_goes_on_from_its_checkpoint(studio):
    run_id = studio.submit("wait-at 12")
    studio.start()
    kill(studio.wait_at(run_id).pid)

    studio.assert_finished_once(run_id)
    assert (studio.table.get(run_id).attempt, studio.table.get(run_id).crashes) == (2, 1)
    assert studio.resumed_from(run_id) == [0, 10]


def test_when_the_supervisor_is_killed_its_attempt_is_adopted_and_not_doubled(studio):
    run_id = studio.submit("wait-at 12")
    supervisor = studio.start()
    pid = studio.wait_at(run_id).pid
    kill(supervisor)
    studio.start()
    time.sleep(0.6)  # two looks around

    assert [process.pid for process in studio.attempts()] == [pid]
    studio.go_on(run_id)
    studio.assert_finished_once(run_id)
    assert studio.table.get(run_id).attempt == 1


def test_an_attempt_that_finished_while_nobody_watched_is_settled_at_the_next_start(studio):
    run_id = studio.submit("wait-at 12", steps=15)
    supervisor = studio.start()
    studio.wait_at(run_id)
    kill(supervisor)
    studio.go_on(run_id)
    studio.wait(lambda: not studio.attempts())
    assert studio.table.get(run_id).state == "running"

    studio.start()
    studio.assert_finished_once(run_id)
    assert studio.table.get(run_id).attempt == 1


def test_when_both_are_killed_the_run_goes_on_within_seconds_of_the_next_start_and_it_was_no_crash(studio):
    run_id, waiting = studio.submit("wait-at 12"), studio.submit(steps=5)
    supervisor = studio.start()
    pid = studio.wait_at(run_id).pid
    kill(supervisor)
    kill(pid)
    studio.wait(lambda: not studio.attempts())

    studio.start()
    took = studio.wait(lambda: len(studio.resumed_from(run_id)) == 2)
    assert took < 10
    assert studio.table.get(waiting).state == "queued"  # the interrupted run goes first
    studio.assert_finished_once(run_id)
    studio.assert_finished_once(waiting)
    assert studio.table.get(run_id).crashes == 0


def test_an_adopted_attempt_that_is_killed_goes_on_too(studio):
    run_id = studio.submit("wait-at 12")
    supervisor = studio.start()
    pid = studio.wait_at(run_id).pid
    kill(supervisor)
    studio.start()
    time.sleep(0.6)
    kill(pid)

    studio.assert_finished_once(run_id)
    assert (studio.table.get(run_id).attempt, studio.table.get(run_id).crashes) == (2, 1)


def test_a_run_outlives_the_killed_program_that_submitted_it(studio):
    command = [*WORKER, "app", str(studio.rows)]
    app = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    run_id = app.stdout.readline().strip()
    studio.wait_at(run_id)
    os.killpg(app.pid, signal.SIGKILL)
    app.wait()
    app.stdout.close()

    studio.go_on(run_id)
    studio.assert_finished_once(run_id)
    assert studio.table.get(run_id).attempt == 1


def test_the_page_keeps_a_supervisor_alive(studio):
    studio.enough = keep_supervisor(studio.settings, every=0.3, command=WORKER)
    run_id = studio.submit("wait-at 12")
    pid = studio.wait_at(run_id).pid
    kill(studio.supervisors()[0].pid)
    kill(pid)

    studio.assert_finished_once(run_id)


def test_a_second_supervisor_steps_back(studio):
    studio.start()
    second = subprocess.run(WORKER, capture_output=True, text=True, timeout=20)

    assert second.returncode == 0
    assert "A supervisor is at work already" in second.stderr


def test_a_supervisor_starts_in_an_empty_home_and_ends_with_it(home, studio):
    empty = Settings(home=home.home / "empty").prepare()
    environment = os.environ | {"PREFIX_STUDIO_HOME": str(empty.home)}
    supervisor = subprocess.Popen(WORKER, env=environment, stderr=subprocess.DEVNULL)
    studio.wait(empty.database.exists)
    time.sleep(0.6)
    assert supervisor.poll() is None

    shutil.rmtree(empty.home)
    assert supervisor.wait(5) == 0


def test_sigterm_ends_the_supervisor_and_not_its_attempt(studio):
    run_id = studio.submit("wait-at 12")
    supervisor = studio.start()
    pid = studio.wait_at(run_id).pid
    os.kill(supervisor, signal.SIGTERM)
    studio.wait(lambda: not studio.supervisors(), 5)

    assert [process.pid for process in studio.attempts()] == [pid]
    studio.start()
    studio.go_on(run_id)
    studio.assert_finished_once(run_id)
    assert studio.table.get(run_id).attempt == 1


def test_a_shutdown_that_stops_the_attempt_is_no_crash_and_it_goes_on(studio):
    run_id = studio.submit("wait-at 12")
    studio.start()
    os.kill(studio.wait_at(run_id).pid, signal.SIGTERM)

    studio.assert_finished_once(run_id)
    assert (studio.table.get(run_id).attempt, studio.table.get(run_id).crashes) == (2, 0)
    assert studio.resumed_from(run_id) == [0, 12]  # it wrote a checkpoint on its way out


def test_a_run_that_always_dies_at_one_place_fails_with_the_reason(studio):
    poison, healthy = studio.submit("crash-at 7"), studio.submit(steps=5)
    studio.start()

    run = studio.wait_for_state(poison, "failed")
    assert (run.attempt, run.crashes, run.category) == (3, 3, "memory")
    assert run.error.startswith("The run's process was killed (signal 9), as systems do when memory runs out.")
    studio.assert_finished_once(healthy)


def test_a_run_that_crashes_but_gets_further_each_time_finishes(studio):
    run_id = studio.submit("crash-every 10", steps=45)
    studio.start()

    assert studio.wait_for_state(run_id, "finished", 40).attempt == 5


def test_a_process_that_ends_without_a_word_is_not_taken_for_done(studio):
    run_id = studio.submit("raise exit", steps=2)
    studio.start()

    run = studio.wait_for_state(run_id, "failed")
    assert (run.attempt, run.category) == (3, "internal")
    assert run.error.startswith("The run's process ended with code 3:")


def test_a_failure_is_final_and_told(studio):
    run_id = studio.submit("raise data", steps=2)
    studio.start()

    run = studio.wait_for_state(run_id, "failed")
    assert (run.attempt, run.error, run.category) == (1, "Row 3 has no prompt. Fill it in.", "data")


def test_cancel_stops_a_running_run_and_frees_its_device(studio):
    run_id, waiting = studio.submit("wait-at 3"), studio.submit(steps=5)
    studio.start()
    studio.wait_at(run_id)
    studio.table.cancel(run_id)

    assert studio.wait(lambda: studio.table.get(run_id).state == "cancelled") < 3
    studio.assert_finished_once(waiting)


def test_a_run_that_does_not_listen_is_killed_after_the_grace(studio):
    run_id = studio.submit("ignore-stop", steps=1000)
    studio.start()
    studio.wait(lambda: studio.table.get(run_id).pid)
    studio.table.cancel(run_id)

    assert 1 <= studio.wait(lambda: studio.table.get(run_id).state == "cancelled") < 5  # the grace here is 1 s
    assert studio.attempts() == []


@pytest.mark.parametrize("watched", [True, False])
def test_what_a_dead_attempt_leaves_behind_is_killed_before_the_next_begins(studio, watched):
    run_id = studio.submit("fork-at 12")
    supervisor = studio.start()
    child = studio.wait_at(run_id).folder / "child"
    if not watched:
        kill(supervisor)
    studio.go_on(run_id)
    studio.wait(child.exists)
    if not watched:
        studio.start()

    studio.assert_finished_once(run_id)
    assert studio.table.get(run_id).crashes == int(watched)
    pid = int(child.read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def test_a_finished_attempt_that_cannot_end_is_helped(studio):
    run_id = studio.submit("hang", steps=2)
    studio.start()

    studio.assert_finished_once(run_id)
    assert studio.attempts() == []


def test_a_cancel_holds_even_if_the_attempt_dies_of_something_else(studio):
    run_id = studio.submit("ignore-stop", steps=1000)
    supervisor = studio.start()
    studio.wait(lambda: studio.table.get(run_id).pid)
    kill(supervisor)
    pid = studio.table.cancel(run_id).pid
    kill(pid)
    studio.start()

    studio.wait_for_state(run_id, "cancelled")


def test_pause_frees_the_device_and_resume_goes_on_from_the_checkpoint(studio):
    run_id, other = studio.submit("wait-at 7"), studio.submit(steps=5)
    studio.start()
    studio.wait_at(run_id)
    studio.table.pause(run_id)
    studio.wait_for_state(run_id, "paused")
    studio.assert_finished_once(other)
    studio.table.resume(run_id)

    studio.assert_finished_once(run_id)
    assert studio.resumed_from(run_id) == [0, 7]


def test_a_late_attempt_of_an_earlier_number_does_nothing(studio):
    run_id = studio.submit(steps=5)
    studio.table.claim("cpu")
    studio.table.requeue(run_id, 1, None)
    studio.table.claim("cpu")
    folder = studio.table.get(run_id).folder

    subprocess.run([*ATTEMPT, str(folder), "--attempt", "1", "--device", "cpu"], check=True, timeout=20)
    assert not (folder / "exit.json").exists()
    assert not (folder / "progress.jsonl").exists()
    assert "Attempt 1 has been superseded" in (folder / "log.txt").read_text()


def test_the_detector_fires_where_the_lock_and_the_fence_are_left_out(studio):
    """The ablation: two trainers in one folder without lock and fence are seen."""
    run_id = studio.submit("wait-at 3", steps=5)
    folder = studio.table.get(run_id).folder
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from fake_attempt import fake_train; from prefix_studio.recipe import Recipe\n"
        "folder = Path(sys.argv[2])\n"
        "fake_train(Recipe.load(folder / 'recipe.yaml'), folder, lambda event: None, lambda: None)"
    )
    command = [sys.executable, "-c", program, str(HERE), str(folder)]
    first = subprocess.Popen(command)
    studio.wait_at(run_id)
    subprocess.run(command, check=True, timeout=20)
    studio.go_on(run_id)

    assert first.wait(20) == 0
    assert len(studio.overlaps()) == 1
    assert (folder / "finishes").read_text().count("\n") == 2


def test_whatever_is_killed_and_when_all_runs_finish_once(studio, monkeypatch):
    """Six runs on two devices, and twenty kills of whatever is there: all finish, once, and never two at a time."""
    monkeypatch.setenv("PREFIX_STUDIO_DEVICES", "cuda:0,cuda:1")
    chance = random.Random(1)
    ids = [studio.submit(steps=40) for _ in range(6)]
    studio.enough = keep_supervisor(studio.settings, every=0.2, command=WORKER)
    kills = 0
    while kills < 20 and any(run.state != "finished" for run in studio.table.list()):
        time.sleep(chance.uniform(0.05, 0.4))
        alive = studio.supervisors() + studio.attempts()
        if alive:
            victim = chance.choice(alive)
            processes.kill_tree(victim.pid, victim.create_time())
            kills += 1

    studio.wait(lambda: all(run.state in ("finished", "failed") for run in studio.table.list()), 60)
    for run in studio.table.list():
        if run.state == "failed":  # killed three times before a first checkpoint: that is what it says, and retry helps
            assert run.crashes == 3
            studio.table.retry(run.id)
    for run_id in ids:
        studio.wait_for_state(run_id, "finished", 60)
        assert (studio.table.get(run_id).folder / "finishes").read_text().count("\n") == 1
    assert studio.overlaps() == []
    assert kills >= 10
