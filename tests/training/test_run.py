from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM

from prefix_studio.data.examples import load_examples
from prefix_studio.data.tokens import tokenize_all
from prefix_studio.errors import StudioError
from prefix_studio.models.load import load_model, load_tokenizer
from prefix_studio.prefix.files import load_prefix
from prefix_studio.recipe import Recipe
from prefix_studio.training.batch_size import BatchSize
from prefix_studio.training.checkpoint import newest_checkpoint
from prefix_studio.training.device import choose_device
from prefix_studio.training.plan import Plan
from prefix_studio.training.run import train
from prefix_studio.training.step import batch_losses, mean_loss

# The way through


def test_the_loss_falls_on_the_bundled_model_and_the_adapter_writes_what_was_taught(tmp_path):
    rows = tmp_path / "rows.jsonl"
    animals = ["cat", "dog", "cow", "hen", "fox", "pig", "bee", "owl"]
    rows.write_text(
        "\n".join(json.dumps({"prompt": f"the {a} =>", "completion": " I see it over there."}) for a in animals)
    )
    recipe = Recipe.from_fields(
        {
            "data": {"source": str(rows), "validation": 2},
            "prefix": {"num_virtual_tokens": 8},
            "training": {"max_steps": 15, "per_device_train_batch_size": 6, "eval_steps": 15},
            "evaluation": {"metrics": ["loss", "exact_match", "bleu"], "samples": 1, "max_new_tokens": 8},
        }
    )
    events = []
    assert train(recipe, tmp_path / "run", events.append, lambda: None, device="cpu") == "finished"
    evaluations = [event for event in events if event["event"] == "eval"]
    assert evaluations[-1]["eval_loss"] < 0.1 * evaluations[0]["eval_loss"]
    assert evaluations[-1]["exact_match"] == 1.0
    assert evaluations[-1]["bleu"] > 99
    (sample,) = json.loads((tmp_path / "run" / "samples.json").read_text())
    assert sample["tuned"] == "I see it over there."
    assert sample["base"] != "I see it over there."
    assert sample["references"] == [" I see it over there."]


def test_events_have_the_agreed_shape(make_run):
    run = make_run("run")
    assert run.go() == "finished"
    assert {event["event"] for event in run.events} == {"state", "step", "eval"}
    for event in run.of("step"):
        assert set(event) == {"event", "step", "total_steps", "loss", "learning_rate", "tokens_per_s", "eta_s"}
        assert event["total_steps"] == 8
        assert event["tokens_per_s"] > 0
    assert [event["step"] for event in run.of("step")] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert list(run.eval_losses) == [0, 2, 4, 6, 8]
    assert run.of("eval")[0]["base_loss"] > 0
    assert all("base_loss" not in event for event in run.of("eval")[1:])
    states = [event["state"] for event in run.of("state")]
    assert states[:4] == ["loading", "preparing data", "preparing data", "training"]
    assert states[-2:] == ["saving", "evaluating"]
    assert json.loads(json.dumps(run.events)) == run.events


def test_a_run_leaves_adapter_samples_and_figures(make_run):
    run = make_run("run")
    run.go()
    assert sorted(path.name for path in run.folder.iterdir()) == [
        "adapter",
        "checkpoints",
        "result.json",
        "samples.json",
    ]
    assert sorted(path.name for path in (run.folder / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    samples = json.loads((run.folder / "samples.json").read_text())
    assert [set(sample) for sample in samples] == [{"prompt", "references", "base", "tuned"}] * 2
    result = run.result
    assert result["steps"] == 8
    assert result["eval_loss"] == min(run.eval_losses.values())
    assert result["base_loss"] == run.of("eval")[0]["base_loss"]
    assert result["seconds"] > 0
    assert result["tokens"] > 0


def test_no_file_of_a_run_is_a_pickle(make_run):
    run = make_run("run")
    run.go()
    kinds = {path.suffix for path in run.folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors"}


def test_the_time_left_counts_down_to_the_texts_at_the_end(make_run):
    run = make_run("run", training={"max_steps": 30, "eval_steps": 10})
    run.go()
    left = [event["eta_s"] for event in run.of("step")]
    assert left[5] > left[-1] >= 0


def test_equal_seeds_give_equal_adapters_and_others_do_not(make_run):
    runs = [make_run("a"), make_run("b"), make_run("c", training={"seed": 1})]
    for run in runs:
        run.go()
    assert runs[0].adapter == runs[1].adapter
    assert runs[0].losses == runs[1].losses
    assert runs[0].adapter != runs[2].adapter


# The best is kept


@pytest.fixture
def contrary(tmp_path):
    """Validation rows that say the opposite of the training rows: learning soon makes their loss rise."""
    rows, held_out = tmp_path / "rows.jsonl", tmp_path / "held-out.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": f"item {i} =>", "completion": " yes yes"}) for i in range(12)))
    held_out.write_text("\n".join(json.dumps({"prompt": f"thing {i} =>", "completion": " no no"}) for i in range(6)))
    return {"source": str(rows), "validation": str(held_out)}


def test_the_adapter_is_the_one_with_the_lowest_eval_loss(make_run, contrary):
    run = make_run("run", data=contrary, training={"max_steps": 24, "eval_steps": 3, "learning_rate": 1.0})
    run.go()
    in_between = {event["step"]: event["eval_loss"] for event in run.of("eval") if "best_step" not in event}
    best_step = min(in_between, key=in_between.get)
    assert best_step < 24  # or this test would show nothing
    last = run.of("eval")[-1]
    assert (last["step"], last["best_step"], last["eval_loss"]) == (24, best_step, in_between[best_step])
    assert run.result["best_step"] == best_step

    model, tokenizer = load_model(run.recipe.model), load_tokenizer(run.recipe.model)
    rows = tokenize_all(load_examples(run.recipe.data, tokenizer).validation, tokenizer, 64)
    prefix = load_prefix(run.folder / "adapter", model)
    size = BatchSize(run.recipe.training, "per_device_eval_batch_size")
    loss = mean_loss(batch_losses(model, prefix, rows, tokenizer.pad_token_id, size))
    assert loss == pytest.approx(in_between[best_step], abs=1e-6)


def test_patience_ends_a_run_that_no_longer_gains(make_run, contrary):
    training = {"max_steps": 300, "eval_steps": 3, "learning_rate": 1.0, "early_stopping_patience": 2}
    run = make_run("run", data=contrary, training=training)
    assert run.go() == "finished"
    losses = [event["eval_loss"] for event in run.of("eval") if "best_step" not in event]
    assert len(run.losses) < 300
    assert min(losses) == losses[-3]  # two evaluations without gain
    assert run.result["eval_loss"] == losses[-3]
    assert run.result["best_step"] == 3 * (len(losses) - 3)
    assert next(event for event in run.of("state") if event["state"] == "saving")["stopped_early"] == len(run.losses)
    assert run.of("eval")[-1]["step"] == len(run.losses)


def test_a_stopped_run_with_patience_goes_on_to_the_same_end(make_run, contrary):
    training = {"max_steps": 300, "eval_steps": 3, "learning_rate": 1.0, "early_stopping_patience": 2}
    straight, paused = (make_run(name, data=contrary, training=training) for name in ("straight", "paused"))
    straight.go()
    end = len(straight.losses)
    assert paused.go(pause_after=end - 1) == "pause"
    paused.go()
    assert paused.losses == straight.losses
    assert paused.adapter == straight.adapter


def test_without_validation_rows_the_last_prefix_is_kept(make_run):
    run = make_run("run", data={"validation": 0})
    assert run.go() == "finished"
    assert run.of("eval") == []
    assert json.loads((run.folder / "samples.json").read_text()) == []
    assert run.result["eval_loss"] is None
    assert len(run.losses) == 8
    assert (run.folder / "adapter" / "adapter_model.safetensors").exists()


# What goes wrong


def test_patience_without_validation_rows_is_refused(make_run):
    with pytest.raises(StudioError, match="early_stopping_patience is set, but there are no validation rows"):
        make_run("run", data={"validation": 0}, training={"early_stopping_patience": 2}).go()


def test_numbers_that_blow_up_stop_the_run_at_their_step(make_run, monkeypatch):
    # One step so large that the prefix leaves what float32 can square.
    monkeypatch.setattr(Plan, "learning_rate", lambda self, step: 1e38 if step == 3 else 0.1)
    run = make_run("run", training={"eval_steps": 8, "save_steps": 3})
    with pytest.raises(StudioError) as caught:
        run.go()
    assert caught.value.category == "numbers"
    assert re.fullmatch(
        r"The loss is not a finite number at step 5, on rows \d+, \d+, \d+, \d+\. "
        r"Lower the learning rate \(now 0\.1\), for example to 0\.01\.",
        str(caught.value),
    )
    assert max(run.losses) == 4
    checkpoint, damaged = newest_checkpoint(run.folder / "checkpoints")
    assert (checkpoint.step, damaged) == (3, [])
    assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())


def test_a_model_that_overflows_its_type_is_not_blamed_on_the_learning_rate(make_run, tiny_folder, tmp_path):
    model = LlamaForCausalLM.from_pretrained(tiny_folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e6)
    model.save_pretrained(tmp_path / "large")
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path / "large")
    with pytest.raises(StudioError) as caught:
        make_run("run", model={"id": str(tmp_path / "large"), "dtype": "float16"}).go()
    assert str(caught.value) == (
        "The loss of the untuned model is not a finite number at step 0. "
        "Set model.dtype to float32: the model's own numbers may be too large for a smaller type."
    )


def test_a_row_that_passes_the_models_positions_is_named(make_run, tmp_path):
    rows = tmp_path / "long.jsonl"
    long = {"prompt": "a =>", "completion": " word" * 300}
    rows.write_text("\n".join(json.dumps(row) for row in [{"prompt": "b =>", "completion": " c"}, long]))
    with pytest.raises(
        StudioError, match=r"Row 2 has \d+ tokens; with 4 virtual tokens in front it passes the model's 256"
    ):
        make_run("run", data={"source": str(rows), "validation": 0, "max_length": 1000}).go()


def test_validation_rows_too_long_to_learn_from_get_no_text_either(make_run, tmp_path):
    rows, held_out = tmp_path / "rows.jsonl", tmp_path / "held-out.jsonl"
    rows.write_text("\n".join(json.dumps({"prompt": f"a {i} =>", "completion": " c"}) for i in range(4)))
    prompts = ["word " * 300 + "=>", "b =>"]
    held_out.write_text("\n".join(json.dumps({"prompt": prompt, "completion": " c"}) for prompt in prompts))
    run = make_run("run", data={"source": str(rows), "validation": str(held_out)})
    assert run.go() == "finished"
    (sample,) = json.loads((run.folder / "samples.json").read_text())
    assert sample["prompt"] == "b =>"


def test_validation_rows_that_are_all_too_long_are_warned_of_and_the_run_goes_on(make_run, tmp_path):
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text(json.dumps({"prompt": "word " * 300 + "=>", "completion": " c"}))
    run = make_run("run", data={"validation": str(held_out)})
    assert run.go() == "finished"
    prepared = next(event for event in run.of("state") if "validation_rows" in event)
    assert prepared["validation_rows"] == 0
    assert any("None of the 1 " in warning for warning in prepared["warnings"])
    assert run.of("eval") == []


def test_a_model_in_bfloat16_learns_and_its_adapter_is_exact(make_run):
    run = make_run("run", model={"dtype": "bfloat16"})
    assert run.go() == "finished"
    assert run.eval_losses[8] < run.eval_losses[0]
    tensors = load_file(run.folder / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_a_device_that_is_not_there_is_said(make_recipe, tmp_path):
    with pytest.raises(StudioError, match="There is no device cuda:99 on this machine"):
        train(make_recipe(), tmp_path, lambda event: None, lambda: None, device="cuda:99")


def test_each_process_on_a_machine_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_, device: {"cuda:0": None, "cuda:1": None}[device])
    assert [choose_device("auto"), choose_device("auto", 1), choose_device("cuda:0", 1)] == [
        "cuda:0",
        "cuda:1",
        "cuda:0",
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_in_bfloat16(make_recipe, tmp_path):
    events = []
    assert train(make_recipe(), tmp_path, events.append, lambda: None) == "finished"
    losses = [event["eval_loss"] for event in events if event["event"] == "eval"]
    assert losses[-1] < losses[0]


def test_checkpoints_by_time_are_a_minute_apart(make_run, monkeypatch):
    clock = iter(range(0, 100_000, 25))
    monkeypatch.setattr("prefix_studio.training.run.time.monotonic", lambda: next(clock))
    saved = []
    from prefix_studio.training import run as module

    monkeypatch.setattr(module, "write_checkpoint", lambda folder, checkpoint: saved.append(checkpoint.step))
    make_run("run", training={"max_steps": 12}).go()
    assert len(saved) >= 3
    assert all(later - earlier <= 3 for earlier, later in pairwise(saved))
