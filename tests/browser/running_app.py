"""The app as a person starts it, `python app.py`, on a free port and a home of its own, for tests and screenshots."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from prefix_studio.server.client import ModelClient
from prefix_studio.settings import PROJECT, Settings

START_SECONDS = 180


@dataclass(frozen=True)
class RunningApp:
    url: str
    settings: Settings
    process: subprocess.Popen
    seconds_to_first_page: float


@contextmanager
def running_app(home: Path, **environment: str) -> Iterator[RunningApp]:
    """Starts the app and waits for its first page; at the end stops it, the model process and the supervisor."""
    port = free_port()
    settings = Settings(home=home)
    given = {
        **os.environ,
        "PREFIX_STUDIO_HOME": str(home),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "HF_HUB_OFFLINE": "1",
        **environment,
    }
    log = home.with_suffix(".app.log").open("w+")
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "app.py"], cwd=PROJECT, env=given, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process, log)
        yield RunningApp(url, settings, process, time.monotonic() - started)
    finally:
        process.terminate()
        process.wait(30)
        ModelClient(settings).stop()
        shutil.rmtree(home, ignore_errors=True)  # the supervisor ends when its home is gone
        log.close()


def wait_for(url: str, process: subprocess.Popen, log) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code in (200, 401):
                return
        except httpx.TransportError:
            time.sleep(0.1)
    log.seek(0)
    raise RuntimeError(f"The app did not start:\n{log.read()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
