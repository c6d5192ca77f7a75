"""The page's process: no torch in it, and small."""

from __future__ import annotations

import json
import subprocess
import sys

from prefix_studio.settings import PROJECT

HEAVY = ["torch", "transformers", "peft", "datasets", "accelerate"]
MOST_BYTES = 250e6
CODE = f"""
import json, sys
import app, psutil
from prefix_studio.settings import Settings
page = app.build(app.Studio.open(Settings.from_environment().prepare()))
loaded = sorted(set({HEAVY}) & set(sys.modules))
print(json.dumps({{"loaded": loaded, "rss": psutil.Process().memory_info().rss}}))
"""


def test_building_the_whole_page_loads_no_model_library_and_stays_small(home):
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["loaded"] == []
    assert told["rss"] < MOST_BYTES, f"{told['rss'] / 1e6:.0f} MB"
