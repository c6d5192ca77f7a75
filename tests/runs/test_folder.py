"""A run's folder: exit.json, checkpoints' names, and files that are whole or not there."""

from __future__ import annotations

import os

import pytest

from prefix_studio.runs.folder import Exit, last_line, newest_checkpoint, trim_log, write_atomically


def test_an_exit_is_read_back_and_only_for_its_own_attempt(tmp_path):
    Exit("failed", 2, "No memory.", "memory").write(tmp_path)

    assert Exit.read(tmp_path).error == "No memory."
    assert Exit.read(tmp_path, 2).state == "failed"
    assert Exit.read(tmp_path, 3) is None


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", '{"state": "finished"}', '{"attempt": 1, "state": "x", "y": 2}']
)
def test_a_missing_or_damaged_exit_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "exit.json").write_text(content)

    assert Exit.read(tmp_path) is None


def test_the_newest_checkpoint_is_the_highest_step_and_never_a_half_written_one(tmp_path):
    assert newest_checkpoint(tmp_path) == -1
    for name in ("step-00000009", "step-00000010", ".writing-99", "best"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)

    assert newest_checkpoint(tmp_path) == 10


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "recipe.yaml"
    write_atomically(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_log_keeps_its_end_and_its_writer_goes_on(tmp_path):
    path = tmp_path / "log.txt"
    with path.open("a") as writer:
        writer.writelines(f"line {number}\n" for number in range(1000))
        writer.flush()
        trim_log(path, limit=1000, keep=100)
        writer.write("one more\n")

    lines = path.read_text().splitlines()
    assert lines[0] == "(what came before was cut)"
    assert lines[-2:] == ["line 999", "one more"]
    assert path.stat().st_size < 200


def test_a_short_log_is_left_alone(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("a\nb\n\n")
    trim_log(path)
    trim_log(tmp_path / "none.txt")

    assert path.read_text() == "a\nb\n\n"
    assert last_line(path) == "b"
    assert last_line(tmp_path / "none.txt") == ""
