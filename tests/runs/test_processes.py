"""Processes: told apart by pid and start, and ended with everything they started; and what the page may import."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

from prefix_studio.runs import processes
from prefix_studio.settings import PROJECT

SLEEP = "import time; time.sleep(60)"


def start_parent_of_two(home) -> tuple[subprocess.Popen, list[psutil.Process]]:
    program = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', '{SLEEP}']); time.sleep(60)"
    parent = processes.start([sys.executable, "-c", program], settings=home, log=home.home / "log.txt")
    deadline = time.monotonic() + 20
    while not (children := psutil.Process(parent.pid).children()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return parent, children


def test_a_process_is_killed_with_what_it_started(home):
    parent, children = start_parent_of_two(home)
    processes.kill_tree(parent.pid, processes.start_time(parent.pid))

    parent.wait(5)
    assert len(children) == 1
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_a_pid_that_has_passed_to_another_process_is_left_alone(home):
    parent, children = start_parent_of_two(home)
    processes.kill_tree(parent.pid, processes.start_time(parent.pid) - 60)

    time.sleep(0.2)
    assert parent.poll() is None
    processes.kill_tree(parent.pid, processes.start_time(parent.pid))
    parent.wait(5)


def test_running_means_that_very_process_and_no_zombie(home):
    process = processes.start([sys.executable, "-c", SLEEP], settings=home, log=home.home / "log.txt")
    started = processes.start_time(process.pid)
    assert processes.is_running(process.pid, started)
    assert not processes.is_running(process.pid, started - 60)

    process.kill()
    deadline = time.monotonic() + 5
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not processes.is_running(process.pid, started)
    process.wait()
    assert processes.start_time(process.pid) is None


def test_the_pages_side_of_the_queue_imports_nothing_heavy():
    modules = "table, progress, uploads, supervisor"
    heavy = "{'torch', 'transformers', 'peft', 'datasets', 'numpy', 'pydantic'}"
    program = f"import sys; from prefix_studio.runs import {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PROJECT, check=True)

    assert done.stdout == "[]\n"
