"""The command line end to end: a recipe becomes an adapter, and bad input becomes one sentence and exit code 2.

`tune` runs as a process, as a person runs it; the others are called in this one, which has torch loaded already.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile

import pytest

from prefix_studio.__main__ import main
from prefix_studio.settings import BUNDLED_MODEL, PROJECT

ROWS = "\n".join(["animal,sound", *(f"animal {n},it says {n}" for n in range(24))])
RECIPE = """
name: sounds
data: {source: rows.csv, prompt: "{{ animal }}\\n", completion: "{{ sound }}", validation: 4}
prefix: {num_virtual_tokens: 4}
training: {max_steps: 4, per_device_train_batch_size: 4}
evaluation: {samples: 1, max_new_tokens: 4}
"""


def studio_process(*arguments, cwd, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "prefix_studio", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        timeout=300,
        check=False,
    )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def studio(monkeypatch, capsys):
    """Calls the command line in a folder; gives what it printed on stdout and stderr."""

    def run(*arguments, cwd, code=0):
        monkeypatch.chdir(cwd)
        try:
            ended = main([str(argument) for argument in arguments])
        except SystemExit as usage:
            ended = usage.code
        printed = capsys.readouterr()
        assert ended == code, printed
        return printed

    return run


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A folder with rows, a recipe and `out`, what `tune` made of them."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "rows.csv").write_text(ROWS)
    (folder / "recipe.yaml").write_text(RECIPE)
    studio_process("tune", "recipe.yaml", "--out", "out", cwd=folder)
    return folder


def test_tune_leaves_adapter_progress_and_log(tuned):
    events = [json.loads(line) for line in (tuned / "out" / "progress.jsonl").read_text().splitlines()]
    evals = [event for event in events if event["event"] == "eval"]
    steps = [event for event in events if event["event"] == "step"]
    assert (evals[0]["step"], evals[-1]["step"]) == (0, 4)
    assert {"time", "step", "total_steps", "loss", "learning_rate", "tokens_per_s", "eta_s"} <= set(steps[-1])
    assert json.loads((tuned / "out" / "exit.json").read_text())["state"] == "finished"
    assert (tuned / "out" / "adapter" / "adapter_model.safetensors").is_file()
    assert (tuned / "out" / "log.txt").is_file()


def test_the_same_command_again_has_nothing_left_to_do(studio, tuned):
    before = (tuned / "out" / "adapter" / "adapter_model.safetensors").read_bytes()
    studio("tune", "recipe.yaml", "--out", "out", cwd=tuned)
    assert (tuned / "out" / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_check_says_whether_and_how_a_model_is_tuned(studio, tmp_path):
    report = json.loads(studio("check", "bundled", "--json", cwd=tmp_path).out)
    assert report["supported"]
    assert report["family"] == "llama"
    assert report["layers"][0]["key_shape"] == report["layers"][0]["value_shape"]
    assert 0 < report["trainable_parameters"] < report["all_parameters"]


def test_preview_shows_what_is_learned(studio, tuned):
    seen = json.loads(studio("preview", "recipe.yaml", "--json", cwd=tuned).out)
    assert seen["report"]["rows_read"] == 24
    example = seen["examples"][0]
    learned = "".join(token["text"] for token in example["tokens"] if token["learned"])
    assert learned.startswith(example["completion"])
    assert not example["tokens"][0]["learned"]


def test_compare_answers_with_base_and_adapters_side_by_side(studio, tuned):
    answer = json.loads(
        studio(
            *("compare", "--model", "bundled", "--adapter", "out/adapter", "--prompt", "animal 3\n"),
            *("--init-text", "Question: ", "--max-new-tokens", 5, "--json"),
            cwd=tuned,
        ).out
    )
    assert answer["prompt"] == "animal 3\n"
    assert set(answer["base"]) >= {"text", "tokens"}
    assert answer["init_text"]["tokens"] <= 5
    assert [adapter["adapter"] for adapter in answer["adapters"]] == ["out/adapter"]


def test_evaluate_gives_base_and_tuned(studio, tuned):
    answer = json.loads(
        studio(
            *("evaluate", "--model", BUNDLED_MODEL, "--adapter", "out/adapter", "--data", "rows.csv"),
            *("--recipe", "recipe.yaml", "--json"),
            cwd=tuned,
        ).out
    )
    assert answer["rows"] == 24
    assert set(answer["base"]) == set(answer["tuned"]) >= {"loss", "exact_match", "bleu"}
    assert answer["predictions"][0].keys() >= {"prompt", "references", "base", "tuned"}


def test_export_makes_a_zip_that_import_takes(studio, tuned, home):
    studio("export", "out", "--format", "peft", "--out", "sounds.zip", cwd=tuned)
    with zipfile.ZipFile(tuned / "sounds.zip") as archive:
        assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "recipe.yaml"} <= set(
            archive.namelist()
        )
    adapter_id = studio("import", "sounds.zip", cwd=tuned).out.strip()
    assert (home.adapters / adapter_id / "adapter_config.json").is_file()


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("data: {source: none.csv}", "none.csv"),
        ("data: {source: rows.csv}\ntraining: {epochs: 3}", "training.epochs is not a field"),
        ("data: {source: rows.csv, prompt: '{{ animl }}', completion: x}", "animl"),
        ("data: {source: 'sample:nothing'}", "nothing"),
        ("model: {id: ./nowhere}\ndata: {source: rows.csv}", "nowhere"),
        ("data: [", "The recipe is not YAML: line 1"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(studio, tmp_path, recipe, sentence):
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "bad.yaml").write_text(recipe)
    printed = studio("tune", "bad.yaml", "--out", "out", cwd=tmp_path, code=2)
    assert sentence in printed.err.strip().splitlines()[-1]


def test_a_process_that_fails_says_one_line(tmp_path):
    done = studio_process("preview", "none.yaml", cwd=tmp_path, code=2)
    assert done.stderr == "The recipe none.yaml cannot be read: No such file or directory. Check the path.\n"


def test_wrong_usage_is_exit_code_2(studio, tmp_path):
    studio("tune", cwd=tmp_path, code=2)
    studio("compare", "--model", "bundled", "--prompt", "x", "--max-new-tokens", "0", cwd=tmp_path, code=2)
    studio("export", "nowhere", "--out", "x.zip", cwd=tmp_path, code=2)
