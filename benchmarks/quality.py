"""Does it learn? The sample `restaurants` with the form's defaults, a seed after the other.

    python -m benchmarks.quality [--seeds 0 1 2]

Each run is the command line's own `tune` in a fresh process, timed from its start to its end. Then base and tuned
write the 100 held-back rows, whose names the training never saw, and the sample's own scorer counts attribute values
told right (slots), texts right to the letter, and texts that tell what no fact says.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from prefix_studio.settings import SAMPLES

SAMPLE = SAMPLES / "restaurants"


def load_scorer() -> Callable[[str, str], Any]:
    spec = importlib.util.spec_from_file_location("restaurants", SAMPLE / "make.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["restaurants"] = module
    spec.loader.exec_module(module)
    return module.score


def tune(seed: int, folder: Path) -> float:
    """Runs the sample's recipe in `folder`. Returns the seconds it took, process start included."""
    recipe = {
        "data": {"source": "sample:restaurants"},
        "prefix": {"init_text": yaml.safe_load((SAMPLE / "meta.yaml").read_text())["init_text"]},
        "training": {"seed": seed},
        "evaluation": {"samples": 100, "max_new_tokens": 96},
    }
    # The texts of all held-back rows are this benchmark's wish, not the form's: their time is not the run's.
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "prefix_studio", "tune", folder / "recipe.yaml", "--out", folder / "out"]
    begin = time.time()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    events = [json.loads(line) for line in (folder / "out" / "progress.jsonl").read_text().splitlines()]
    saving = next(event["time"] for event in events if event.get("state") == "saving")
    return saving - begin


def shares(samples: list[dict[str, Any]], column: str, score: Callable[[str, str], Any]) -> tuple[float, float, int]:
    """Share of attribute values told right, share of texts right to the letter, and texts that invent."""
    scores = [score(sample["prompt"].removesuffix(" =>"), sample[column]) for sample in samples]
    slots = sum(one.right for one in scores) / sum(one.total for one in scores)
    return slots, sum(one.exact for one in scores) / len(scores), sum(bool(one.invented) for one in scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    score = load_scorer()
    print(f"{'seed':>6}{'seconds':>9}{'eval loss':>11}{'':>8}{'slots':>8}{'exact':>8}{'inventing':>11}{'rows':>6}")
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            seconds = tune(seed, Path(folder))
            samples = json.loads((Path(folder) / "out" / "samples.json").read_text())
            result = json.loads((Path(folder) / "out" / "result.json").read_text())
        for column, loss in (("base", result["base_loss"]), ("tuned", result["eval_loss"])):
            slots, exact, inventing = shares(samples, column, score)
            lead = f"{seed:>6}{seconds:>9.0f}" if column == "tuned" else f"{'':>15}"
            print(
                f"{lead}{loss:>11.3f}{column:>8}{slots:>8.1%}{exact:>8.1%}{inventing:>11}{len(samples):>6}", flush=True
            )


if __name__ == "__main__":
    main()
