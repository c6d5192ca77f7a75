"""The real supervisor, starting the fake attempt; with `app SOURCE`, a stand-in for the page that submits."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from prefix_studio.recipe import Recipe
from prefix_studio.runs.supervisor import Supervisor, ensure_supervisor, serve
from prefix_studio.runs.table import RunTable
from prefix_studio.settings import Settings

ATTEMPT = (sys.executable, str(Path(__file__).with_name("fake_attempt.py")))
WORKER = (sys.executable, str(Path(__file__)))
GRACE = {"cancel": 1.0, "pause": 5.0, "exit": 1.0}

if __name__ == "__main__":
    settings = Settings.from_environment().prepare()
    if sys.argv[1:2] == ["app"]:
        ensure_supervisor(settings, command=WORKER)
        fields = {"name": "wait-at 12", "data": {"source": sys.argv[2]}, "training": {"max_steps": 20}}
        print(RunTable(settings).submit(Recipe.from_fields(fields)), flush=True)
        time.sleep(60)
    else:
        sys.exit(serve(Supervisor(settings, attempt_command=ATTEMPT, grace=GRACE)))
