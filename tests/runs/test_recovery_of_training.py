"""The kill -9 test with nothing made up: bundled model, real trainer, real supervisor, as the page starts them."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil
import pytest

from prefix_studio.recipe import Recipe
from prefix_studio.runs.folder import Exit, newest_checkpoint
from prefix_studio.runs.progress import read_progress
from prefix_studio.runs.supervisor import ensure_supervisor
from prefix_studio.runs.table import RunTable
from prefix_studio.settings import PROJECT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX word")

RECIPE = Recipe.from_fields(
    {
        "data": {"source": "sample:restaurants", "validation": 8},
        "training": {"max_steps": 30, "per_device_train_batch_size": 4, "save_steps": 5, "eval_steps": 30},
        "evaluation": {"samples": 0},
    }
)


@pytest.fixture
def processes_of(home):
    """The living processes of this test's studio whose command line names a module."""

    def find(module: str) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline", "environ", "status"]):
            mine = (process.info["environ"] or {}).get("PREFIX_STUDIO_HOME") == str(home.home)
            if mine and module in (process.info["cmdline"] or []) and process.info["status"] != "zombie":
                found.append(process)
        return found

    yield find
    for process in [*find("worker"), *find("prefix_studio.runs.attempt")]:
        process.kill()


def wait(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def test_a_run_that_is_killed_twice_ends_with_the_very_adapter_of_one_that_was_not(
    home, processes_of, tmp_path, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # one machine, one number of threads: equal to the bit
    table = RunTable(home)
    run_id = table.submit(RECIPE)
    folder = table.get(run_id).folder

    ensure_supervisor(home)
    wait(lambda: newest_checkpoint(folder) >= 5, 90)
    os.kill(table.get(run_id).pid, signal.SIGKILL)  # the attempt alone
    wait(lambda: newest_checkpoint(folder) >= 15, 90)
    os.kill(processes_of("worker")[0].pid, signal.SIGKILL)  # everything
    os.kill(table.get(run_id).pid, signal.SIGKILL)
    wait(lambda: not processes_of("prefix_studio.runs.attempt"), 10)
    assert table.get(run_id).state == "running"
    ensure_supervisor(home)
    wait(lambda: table.get(run_id).state != "running" or table.get(run_id).attempt == 3, 10)
    wait(lambda: table.get(run_id).state not in ("running", "queued"), 120)

    run = table.get(run_id)
    assert (run.state, run.error, run.attempt, run.crashes) == ("finished", "", 3, 1)
    assert (Exit.read(folder).state, Exit.read(folder).attempt) == ("finished", 3)
    events, _ = read_progress(folder / "progress.jsonl")
    assert [event["resumed_from"] >= 5 for event in events if "resumed_from" in event] == [True, True]
    assert [event["state"] for event in events if event.get("state") == "finished"] == ["finished"]

    (tmp_path / "recipe.yaml").write_text(RECIPE.to_yaml())
    tune = [sys.executable, "-m", "prefix_studio", "tune", tmp_path / "recipe.yaml", "--out", tmp_path / "undisturbed"]
    subprocess.run(tune, check=True, cwd=PROJECT)
    assert digest(folder) == digest(tmp_path / "undisturbed")


def digest(folder) -> str:
    return hashlib.sha256((folder / "adapter/adapter_model.safetensors").read_bytes()).hexdigest()
