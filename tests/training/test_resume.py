"""A run that was paused or killed goes on, and ends, to the bit, as one that was not."""

from __future__ import annotations

import pytest

from prefix_studio.errors import StudioError


def checkpoint_names(run) -> list[str]:
    return sorted(path.name for path in (run.folder / "checkpoints").iterdir())


WAYS = {
    "plain": {},
    "projection": {"prefix": {"prefix_projection": True}},
    "accumulation": {"training": {"gradient_accumulation_steps": 3}},
    "checkpointing": {"training": {"gradient_checkpointing": True}},
    "frozen tokens": {"prefix": {"num_frozen_tokens": 1, "prefix_projection": True}, "training": {"weight_decay": 0.1}},
    "counting examples": {"training": {"loss_average": "example", "label_smoothing_factor": 0.1}},
    "random": {"prefix": {"init": "random"}, "training": {"lr_scheduler_type": "cosine"}},
}


def with_way(way: str, **training) -> dict:
    """A way to train, with more training settings."""
    return WAYS[way] | {"training": WAYS[way].get("training", {}) | training}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", [3, 6])
def test_a_paused_run_goes_on_as_if_it_had_never_stopped(make_run, way, step):
    straight, paused = (make_run(name, **WAYS[way]) for name in ("straight", "paused"))
    straight.go()
    assert paused.go(pause_after=step) == "pause"
    assert max(paused.losses) == step
    assert not (paused.folder / "adapter").exists()
    assert paused.go() == "finished"
    assert [event.get("resumed_from") for event in paused.of("state") if "resumed_from" in event] == [step]
    assert paused.losses == straight.losses
    assert paused.eval_losses == straight.eval_losses
    assert paused.adapter == straight.adapter
    assert paused.result["tokens"] == straight.result["tokens"]


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_run_goes_on_from_its_checkpoint(make_run, killed, way):
    straight, broken = (make_run(name, **with_way(way, save_steps=3)) for name in ("straight", "broken"))
    straight.go()
    for step in (5, 8):  # twice, the second time after what is the last step
        with pytest.raises(killed):
            broken.go(killed_at=step)
    assert broken.go() == "finished"
    assert [event["resumed_from"] for event in broken.of("state") if "resumed_from" in event] == [3, 6]
    assert broken.losses == straight.losses
    assert broken.eval_losses == straight.eval_losses
    assert broken.adapter == straight.adapter


def test_a_run_killed_before_its_first_checkpoint_starts_over(make_run, killed):
    straight, broken = make_run("straight"), make_run("broken")
    straight.go()
    with pytest.raises(killed):
        broken.go(killed_at=4)
    assert broken.go() == "finished"
    assert broken.adapter == straight.adapter


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(make_run, killed):
    parts = {"training": {"save_steps": 2}}
    straight, broken = make_run("straight", **parts), make_run("broken", **parts)
    straight.go()
    with pytest.raises(killed):
        broken.go(killed_at=7)
    assert checkpoint_names(broken) == ["step-00000004", "step-00000006"]
    tensors = broken.folder / "checkpoints" / "step-00000006" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-5])
    assert broken.go() == "finished"
    resumed = [event for event in broken.of("state") if "resumed_from" in event]
    assert resumed[0]["resumed_from"] == 4
    assert resumed[0]["damaged_checkpoints"] == ["step-00000006"]
    assert broken.losses == straight.losses
    assert broken.adapter == straight.adapter


def test_a_pause_while_texts_are_written_finishes_without_more_training(make_run):
    run = make_run("run")
    assert run.go(stop=lambda event: "pause" if "prompts" in event else None) == "pause"
    steps = len(run.of("step"))
    assert run.go() == "finished"
    assert len(run.of("step")) == steps
    assert (run.folder / "samples.json").exists()


def test_a_pause_before_the_first_step_loses_nothing(make_run):
    straight, run = make_run("straight"), make_run("run")
    straight.go()
    assert run.go(stop=lambda event: "pause") == "pause"
    assert run.losses == {}
    assert run.go() == "finished"
    assert run.adapter == straight.adapter


def test_a_cancelled_run_ends_at_once(make_run):
    run = make_run("run")
    assert run.go(stop=lambda event: "cancel" if event.get("step") == 3 else None) == "cancel"
    assert max(run.losses) == 3
    assert not (run.folder / "adapter").exists()


def test_a_pause_is_heard_during_an_evaluation(make_run):
    straight, run = make_run("straight"), make_run("run")
    straight.go()
    assert run.go(pause_after=2) == "pause"  # an evaluation is due after step 2
    assert list(run.eval_losses) == [0]
    assert run.go() == "finished"
    assert run.eval_losses == straight.eval_losses
    assert run.adapter == straight.adapter


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"training": {"learning_rate": 0.2}}, "training"),
        ({"prefix": {"num_virtual_tokens": 5}}, "prefix"),
        ({"data": {"validation": 0.5}}, "data"),
        ({"data": {"completion": "{{ completion }}!"}, "training": {"seed": 9}}, "training and data"),
    ],
)
def test_checkpoints_of_another_run_are_refused_by_name(make_run, make_recipe, parts, named):
    run = make_run("run")
    run.go(pause_after=2)
    run.recipe = make_recipe(**parts)
    with pytest.raises(StudioError) as caught:
        run.go()
    assert str(caught.value) == (
        f"{run.folder} holds checkpoints of another run: {named} {'differ' if ' and ' in named else 'differs'}. "
        f"Choose another folder, or delete {run.folder / 'checkpoints'} to start afresh."
    )


def test_how_often_it_is_saved_may_change_between_attempts(make_run, make_recipe):
    run = make_run("run")
    run.go(pause_after=2)
    run.recipe = make_recipe(training={"save_steps": 1})
    assert run.go() == "finished"
