"""Progress read as it grows: only what is new, thinned without hiding the ends."""

from __future__ import annotations

import json

from prefix_studio.ui.live import POINTS, Progress, decimate, log_tail


def append(folder, *events):
    with (folder / "progress.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def step(number, loss):
    return {"event": "step", "step": number, "total_steps": 9, "loss": loss}


def test_a_run_is_read_as_it_grows(tmp_path):
    progress = Progress()
    assert progress.of(tmp_path).train == []
    append(
        tmp_path, {"event": "state", "state": "training"}, {"event": "eval", "step": 0, "eval_loss": 4, "base_loss": 5}
    )
    append(tmp_path, step(1, 3.5))
    seen = progress.of(tmp_path)
    assert (seen.state, seen.base_loss, seen.eval, seen.train) == ("training", 5, [(0, 4.0)], [(1, 3.5)])
    append(tmp_path, step(2, 3.0), {"event": "eval", "step": 2, "eval_loss": 2.5})
    seen = progress.of(tmp_path)
    assert seen.train == [(1, 3.5), (2, 3.0)]
    assert seen.last_eval["eval_loss"] == 2.5
    assert seen.base_loss == 5, "told once, at step 0"


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path):
    append(tmp_path, step(1, 5.0), step(2, 4.0), step(3, 3.0), step(2, 3.9))
    assert Progress().of(tmp_path).train == [(1, 5.0), (2, 3.9)]


def test_a_file_that_shrank_is_read_anew(tmp_path):
    progress = Progress()
    append(tmp_path, step(1, 5.0), step(2, 4.0))
    progress.of(tmp_path)
    (tmp_path / "progress.jsonl").unlink()
    append(tmp_path, step(1, 2.0))
    assert progress.of(tmp_path).train == [(1, 2.0)]


def test_a_batch_that_gave_way_is_remembered_with_its_newest_reason(tmp_path):
    halved = {"event": "state", "state": "training", "gradient_accumulation_steps": 2}
    for size in (8, 4):
        append(
            tmp_path, halved | {"per_device_train_batch_size": size, "warnings": [f"From here on {size} at a time."]}
        )
    append(tmp_path, {"event": "state", "state": "evaluating", "warnings": ["Something else."]})
    assert Progress().of(tmp_path).smaller_batches == {"per_device_train_batch_size": "From here on 4 at a time."}


def test_what_is_no_number_is_no_point(tmp_path):
    append(tmp_path, step(1, None), step(2, "x"), {"event": "step", "loss": 1.0}, step(3, 1.5))
    assert Progress().of(tmp_path).train == [(3, 1.5)]


def test_only_so_many_runs_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr("prefix_studio.ui.live.REMEMBERED_RUNS", 2)
    progress = Progress()
    for name in "abc":
        (tmp_path / name).mkdir()
        append(tmp_path / name, step(1, 1.0))
        progress.of(tmp_path / name)
    assert len(progress._seen) == 2
    assert progress.of(tmp_path / "a").train == [(1, 1.0)], "forgotten, and read again"


def test_thinning_keeps_both_ends_and_the_mean():
    series = [(number, float(number)) for number in range(10_000)]
    thinned = decimate(series)
    assert len(thinned) == POINTS
    assert (thinned[0], thinned[-1]) == (series[0], series[-1])
    assert [step for step, _ in thinned] == sorted({step for step, _ in thinned})
    mean = sum(loss for _, loss in thinned[1:-1]) / (POINTS - 2)
    assert abs(mean - 4999.5) < 1
    assert decimate(series[:POINTS]) == series[:POINTS]


def test_the_logs_tail_starts_at_a_whole_line(tmp_path):
    assert log_tail(tmp_path) == ""
    (tmp_path / "log.txt").write_text("".join(f"line {number} {'x' * 300}\n" for number in range(500)))
    lines = log_tail(tmp_path).splitlines()
    assert 1 < len(lines) <= 60
    assert all(line.startswith("line ") for line in lines)
    assert lines[-1].startswith("line 499")
