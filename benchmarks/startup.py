"""How soon does the page answer, and how much memory does its process take?

    python -m benchmarks.startup [--rounds 3]

Each round starts `python app.py` with an empty home on a free port, waits for the first page, and reads the memory of
that one process (not of the supervisor or the model process it may start). The first round warms the caches.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

PROJECT = Path(__file__).resolve().parent.parent
DEADLINE_S = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_once(home: Path) -> tuple[float, float]:
    """Seconds to the first page, and the page process's memory then in MB."""
    port = free_port()
    environment = os.environ | {"PREFIX_STUDIO_HOME": str(home), "GRADIO_SERVER_PORT": str(port)}
    begin = time.perf_counter()
    with subprocess.Popen([sys.executable, PROJECT / "app.py"], env=environment, stdout=subprocess.DEVNULL) as app:
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                    break
                except (urllib.error.URLError, ConnectionError):
                    if time.perf_counter() - begin > DEADLINE_S or app.poll() is not None:
                        raise
                    time.sleep(0.02)
            seconds = time.perf_counter() - begin
            return seconds, psutil.Process(app.pid).memory_info().rss / 2**20
        finally:
            # The app's own children (supervisor, model process) live on by design; here they end with the home.
            children = psutil.Process(app.pid).children(recursive=True)
            for process in (psutil.Process(app.pid), *children):
                process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"{'round':>8}{'first page s':>14}{'page MB':>10}")
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            seconds, megabytes = start_once(Path(home))
        print(f"{number or 'warm-up':>8}{seconds:14.2f}{megabytes:10.0f}")


if __name__ == "__main__":
    main()
