"""A file is there whole, on the disk, or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from prefix_studio.disk import replace_whole, write_json, write_whole
from prefix_studio.errors import StudioError


def test_json_is_replaced_whole_in_a_folder_made_for_it(tmp_path):
    write_json(tmp_path / "deep" / "result.json", {"loss": 0.5, "name": "é"})
    write_json(tmp_path / "deep" / "result.json", {"loss": 0.25, "name": "é"})
    assert (tmp_path / "deep" / "result.json").read_text() == '{\n  "loss": 0.25,\n  "name": "é"\n}\n'
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["result.json"]


@pytest.mark.parametrize("refused", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch, refused):
    write_whole(tmp_path / "file", b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if refused == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left"):
        replace_whole(tmp_path / "file", b"new")
    with pytest.raises(StudioError) as caught:
        write_whole(tmp_path / "file", b"new")
    assert caught.value.category == "disk"
    assert str(caught.value) == (
        f"{tmp_path / 'file'} cannot be written: No space left on device. Free some disk space, then try again."
    )
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_refuses_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"not a folder")
    with pytest.raises(StudioError, match="file/inside cannot be written: .* Check the folder's permissions"):
        write_whole(tmp_path / "file" / "inside", b"new")


def test_many_writers_at_once_leave_one_of_them_whole(tmp_path):
    contents = [bytes([65 + number]) * 100_000 for number in range(4)]
    writers = [threading.Thread(target=write_whole, args=(tmp_path / "file", content)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
