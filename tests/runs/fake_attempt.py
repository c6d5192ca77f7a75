"""An attempt whose trainer needs no model: it counts steps, checkpoints, and tells of every overlap it sees.

The recipe's name is the trainer's script: words such as `crash-at 7`, `wait-at 7`, `raise memory`. Run as a program it
is what the supervisor starts in place of the real attempt; everything but the trainer is the real thing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from prefix_studio.errors import StudioError
from prefix_studio.runs import attempt, processes

STEP_SECONDS = 0.02
CHECKPOINT_EVERY = 5


def fake_train(recipe, folder: Path, report, should_stop, *, device: str = "auto") -> str:
    script = recipe.name.split()
    argument = script[1] if len(script) > 1 else ""
    with detector(folder):
        step = newest(folder)
        report({"event": "state", "state": "training", "resumed_from": step})
        while step < recipe.training.max_steps:
            word = should_stop()
            if word and script[:1] != ["ignore-stop"]:
                if word == "pause":
                    checkpoint(folder, step)
                return word
            step += 1
            time.sleep(STEP_SECONDS)
            report(step_event(step, recipe.training.max_steps))
            if step % CHECKPOINT_EVERY == 0:
                checkpoint(folder, step)
            if script[:1] in (["wait-at"], ["fork-at"]) and step == int(argument):
                wait_for_the_test(folder, should_stop)
            if script[:1] == ["crash-at"] and step == int(argument):
                os.kill(os.getpid(), signal.SIGKILL)
            if script[:1] == ["fork-at"] and step == int(argument):
                fork_and_die(folder)
            if script[:1] == ["crash-every"] and step % int(argument) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        complain(argument if script[:1] == ["raise"] else "")
        (folder / "adapter").mkdir(exist_ok=True)
        append(folder / "finishes", f"{os.getpid()}")
        if script[:1] == ["hang"]:
            threading.Thread(target=time.sleep, args=(600,)).start()
    return "finished"


def wait_for_the_test(folder: Path, should_stop) -> None:
    """The first time, wait until the test has done its harm and says go."""
    if not (folder / "waiting").exists():
        append(folder / "waiting", str(os.getpid()))
        while not (folder / "go").exists() and not should_stop():
            time.sleep(STEP_SECONDS)


def fork_and_die(folder: Path) -> None:
    """The first time, leave a child behind that has all that this process had open, and die."""
    if not (folder / "child").exists():
        if (child := os.fork()) == 0:
            time.sleep(600)
        append(folder / "child", str(child))
        os.kill(os.getpid(), signal.SIGKILL)


def complain(what: str) -> None:
    match what:
        case "data":
            raise StudioError("Row 3 has no prompt.", "Fill it in.", "data")
        case "memory":
            raise MemoryError
        case "cpu-memory":
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 GB")
        case "bug":
            raise KeyError("nothing")
        case "exit":
            sys.exit(3)


def step_event(step: int, total: int) -> dict:
    return {"event": "step", "step": step, "total_steps": total, "loss": 1 / step, "learning_rate": 0.1, "eta_s": 1.0}


class detector:
    """Marks the folder as worked in. Finding the mark of another process that lives is an overlap, and written down."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.mark = folder / "worked-in"

    def __enter__(self) -> None:
        me = {"pid": os.getpid(), "started": processes.start_time(os.getpid())}
        while True:
            try:
                descriptor = os.open(self.mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                break
            except FileExistsError:
                other = json.loads(self.mark.read_text() or "null")
                if other and processes.is_running(other["pid"], other["started"]):
                    append(self.folder / "overlaps", f"{me['pid']} met {other['pid']}")
                self.mark.unlink(missing_ok=True)
        os.write(descriptor, json.dumps(me).encode())
        os.close(descriptor)

    def __exit__(self, *_: object) -> None:
        self.mark.unlink(missing_ok=True)


def checkpoint(folder: Path, step: int) -> None:
    folder = folder / "checkpoints"
    folder.mkdir(exist_ok=True)
    (folder / f"step-{step:08d}").mkdir(exist_ok=True)
    for old in sorted(folder.iterdir())[:-2]:
        shutil.rmtree(old)


def newest(folder: Path) -> int:
    return max((int(path.name[5:]) for path in folder.glob("checkpoints/step-*")), default=0)


def append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(attempt.main(train=fake_train))
