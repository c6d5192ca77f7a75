"""One attempt in the foreground, as `tune` runs it: what it leaves, how it stops, and how it goes on."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.runs.attempt import run_recipe
from prefix_studio.runs.folder import Exit
from prefix_studio.runs.locks import hold
from prefix_studio.runs.progress import read_progress
from prefix_studio.settings import PROJECT

FAKE = Path(__file__).with_name("fake_attempt.py")


@pytest.fixture(scope="module")
def fake_train():
    spec = importlib.util.spec_from_file_location("fake_attempt", FAKE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fake_train


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def recipe(script: str = "", steps: int = 10) -> Recipe:
    return Recipe.from_fields({"name": script, "data": {"source": "rows.csv"}, "training": {"max_steps": steps}})


def states(out: Path) -> list[str]:
    return [event["state"] for event in read_progress(out / "progress.jsonl")[0] if event["event"] == "state"]


def test_a_run_leaves_its_recipe_progress_log_and_exit(out, fake_train):
    seen = []
    assert run_recipe(recipe(), out, train=fake_train, on_event=seen.append) == "finished"

    assert Recipe.load(out / "recipe.yaml") == recipe()
    assert states(out) == ["starting", "training", "finished"]
    assert [event["step"] for event in seen if event["event"] == "step"] == list(range(1, 11))
    assert (Exit.read(out).state, Exit.read(out).attempt) == ("finished", 1)
    assert "Attempt 1 on auto starts" in (out / "log.txt").read_text()


def test_a_finished_run_is_not_run_again(out, fake_train):
    run_recipe(recipe(), out, train=fake_train)

    assert run_recipe(recipe(), out, train=None) == "finished"
    assert (out / "finishes").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("script", "category", "message"),
    [
        ("raise data", "data", "Row 3 has no prompt. Fill it in."),
        ("raise memory", "memory", "The run needed more memory than there is."),
        ("raise cpu-memory", "memory", "The run needed more memory than there is."),
        ("raise bug", "internal", "KeyError: 'nothing'"),
    ],
)
def test_a_failure_is_one_sentence_for_a_person_and_a_traceback_in_the_log(out, fake_train, script, category, message):
    with pytest.raises(StudioError) as failure:
        run_recipe(recipe(script), out, train=fake_train)

    assert message in str(failure.value)
    end = Exit.read(out)
    assert (end.state, end.category, end.error) == ("failed", category, str(failure.value))
    assert "Traceback" in (out / "log.txt").read_text()
    assert states(out)[-1] == "failed"


def test_a_failed_run_is_tried_again_by_the_same_call(out, fake_train):
    with pytest.raises(StudioError):
        run_recipe(recipe("raise bug"), out, train=fake_train)
    with pytest.raises(StudioError):
        run_recipe(recipe("raise bug"), out, train=fake_train)

    assert Exit.read(out).attempt == 2


def test_another_recipe_is_not_trained_into_the_same_folder(out, fake_train):
    run_recipe(recipe(steps=10), out, train=fake_train)

    with pytest.raises(StudioError, match=r"holds a run of another recipe \(training.max_steps differs\)"):
        run_recipe(recipe(steps=11), out, train=fake_train)


def test_a_folder_that_another_process_works_in_is_left_alone(out, fake_train):
    out.mkdir()
    locked, release = threading.Event(), threading.Event()

    def work():
        with hold(out / ".lock"):
            locked.set()
            release.wait(10)

    other = threading.Thread(target=work)
    other.start()
    locked.wait(10)
    try:
        with pytest.raises(StudioError, match="Another process works in"):
            run_recipe(recipe(), out, train=fake_train)
    finally:
        release.set()
        other.join()
    assert not (out / "recipe.yaml").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_writes_a_checkpoint_and_the_same_command_goes_on(out, fake_train):
    program = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from fake_attempt import fake_train; from prefix_studio.runs.attempt import run_recipe\n"
        "from prefix_studio.recipe import Recipe\n"
        "fields = {'data': {'source': 'rows.csv'}, 'training': {'max_steps': 500}}\n"
        "print(run_recipe(Recipe.from_fields(fields), Path(sys.argv[2]), train=fake_train))"
    )
    command = [sys.executable, "-c", program, str(FAKE.parent), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT)
    deadline = time.monotonic() + 20
    while not read_progress(out / "progress.jsonl")[0][3:] and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)

    assert process.communicate(timeout=20)[0] == "paused\n"
    reached = max(int(path.name[5:]) for path in (out / "checkpoints").iterdir())
    shorter = recipe(steps=reached + 3)
    (out / "recipe.yaml").write_text(shorter.to_yaml())
    assert run_recipe(shorter, out, train=fake_train) == "finished"
    resumed = [e for e in read_progress(out / "progress.jsonl")[0] if e.get("state") == "training"][-1]
    assert resumed["resumed_from"] == reached > 0
