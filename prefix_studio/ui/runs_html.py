"""The queue in HTML: a row a run for the list, and the head of the chosen run.

Pure: run rows and what their progress files say in, escaped HTML out.
"""

from __future__ import annotations

from typing import Any

from prefix_studio.runs.table import RunRow
from prefix_studio.ui.fragments import badge, bar, escape, facts, notice, state_badge
from prefix_studio.ui.live import Seen
from prefix_studio.ui.words import say_ago, say_count, say_duration

STAGES = {
    "loading": "loading the model",
    "preparing data": "preparing the rows",
    "training": "training",
    "evaluating": "checking on held-back rows",
    "saving": "saving the adapter",
}


def run_row_html(run: RunRow, seen: Seen) -> str:
    """The inside of one row of the list: name, state, how far, how long still, and why it failed."""
    small = [say_ago(run.created)]
    if run.state == "running":
        small = [STAGES.get(seen.state, "starting")]
        if left := seen.step.get("eta_s"):
            small.append(f"{say_duration(left)} left")
    elif run.state == "queued":
        small = [
            "first in line" if run.position == 1 else f"number {run.position} in line" if run.position else "waiting"
        ]
    elif run.state == "finished" and seen.last_eval:
        small.append(f"loss {seen.last_eval.get('eval_loss', float('nan')):.3f}")
    marks = state_badge(run.state) + (badge(run.category, "bad") if run.state == "failed" and run.category else "")
    progress = bar(share_done(seen), f"progress of {run.name}") if run.state in ("running", "paused") else ""
    return (
        f'<span class="ps-row-top"><b>{escape(run.name or run.id)}</b><span>{marks}</span></span>'
        f"{progress}<small>{escape(' · '.join(small))}</small>"
    )


def run_head_html(run: RunRow, seen: Seen) -> str:
    """Name, state and figures of the chosen run."""
    error = notice(run.error, "", "bad") if run.error else ""
    notices = "".join(notice(why, "", "warm") for _, why in sorted(seen.smaller_batches.items())) + error
    stage = STAGES.get(seen.state, "starting") if run.state == "running" else ""
    stage = f'<span class="ps-stage">{escape(stage)}</span>' if stage else ""
    return (
        f'<div class="ps-run-head"><h2>{escape(run.name or run.id)}</h2>{state_badge(run.state)}{stage}</div>'
        f"{bar(share_done(seen) if run.state != 'finished' else 1.0, 'progress')}{run_facts(run, seen)}{notices}"
    )


def run_facts(run: RunRow, seen: Seen) -> str:
    step: dict[str, Any] = seen.step
    done, total = step.get("step"), step.get("total_steps")
    steps = f"{done:,} of {total:,}" if done is not None and total else "–"
    first, last = first_loss(seen), seen.last_eval.get("eval_loss")
    fell = f"from {first:.3f} before training" if first is not None and last is not None else ""
    running = run.state == "running"
    took = say_duration((run.ended or 0) - run.started) if run.started and run.ended else "–"
    return facts(
        [
            ("Step", steps, ""),
            ("Loss on held-back rows", f"{last:.3f}" if last is not None else "–", fell),
            ("Speed", f"{say_count(step.get('tokens_per_s'))} tokens/s" if step else "–", ""),
            ("Time left", say_duration(step.get("eta_s")), "") if running else ("Took", took, ""),
        ]
    )


def first_loss(seen: Seen) -> float | None:
    """The loss before training: of the untuned model where the run told it, else of the fresh prefix."""
    if seen.base_loss is not None:
        return seen.base_loss
    return seen.eval[0][1] if seen.eval else None


def share_done(seen: Seen) -> float:
    """0 to 1, by steps."""
    total = seen.step.get("total_steps")
    return seen.step.get("step", 0) / total if total else 0.0
