from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prefix_studio.errors import StudioError
from prefix_studio.training import checkpoint
from prefix_studio.training.checkpoint import Checkpoint, newest_checkpoint, pack, unpack, write_checkpoint


def at_step(step: int) -> Checkpoint:
    return Checkpoint(
        step, {"a": torch.full((3,), float(step)), "random": torch.arange(5, dtype=torch.uint8)}, {"n": step}
    )


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read(tmp_path):
    write_checkpoint(tmp_path, at_step(7))
    found, damaged = newest_checkpoint(tmp_path)
    assert (found.step, found.state, damaged) == (7, {"n": 7}, [])
    assert found.tensors["a"].tolist() == [7, 7, 7]
    assert found.tensors["random"].dtype == torch.uint8


def test_a_folder_without_checkpoints_has_none(tmp_path):
    assert newest_checkpoint(tmp_path / "nothing") == (None, [])


def test_the_two_newest_stay(tmp_path):
    for step in (9, 10, 100):
        write_checkpoint(tmp_path, at_step(step))
    assert names(tmp_path) == ["step-00000010", "step-00000100"]


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_one_is_passed_over(tmp_path, file, damage):
    write_checkpoint(tmp_path, at_step(1))
    path = write_checkpoint(tmp_path, at_step(2)) / file
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        # One bit of the last tensor, or of the digest that speaks for it.
        place = -2 if file == "tensors.safetensors" else content.index(b"sha256") + 12
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
    else:
        path.unlink()
    found, damaged = newest_checkpoint(tmp_path)
    assert found.step == 1
    assert damaged == ["step-00000002"]


def test_a_damaged_one_is_replaced_when_its_step_comes_again(tmp_path):
    (write_checkpoint(tmp_path, at_step(2)) / "state.json").unlink()
    write_checkpoint(tmp_path, at_step(2))
    assert newest_checkpoint(tmp_path)[0].step == 2


def test_one_that_was_being_written_when_the_process_died_is_never_seen(tmp_path, monkeypatch):
    write_checkpoint(tmp_path, at_step(1))

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "sync_folder", die)
        with pytest.raises(KeyboardInterrupt):
            write_checkpoint(tmp_path, at_step(2))
    assert newest_checkpoint(tmp_path)[0].step == 1
    write_checkpoint(tmp_path, at_step(3))
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_in_one_sentence(tmp_path, monkeypatch):
    def full(path, content):
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(content)

    monkeypatch.setattr(checkpoint, "write_synced", full)
    with pytest.raises(StudioError) as caught:
        write_checkpoint(tmp_path, at_step(1))
    assert caught.value.category == "disk"
    assert str(caught.value) == (
        f"{tmp_path} cannot be written: No space left on device. Free some disk space, then try again."
    )


def test_one_sent_to_another_process_arrives_whole():
    found = unpack(pack(at_step(7)))
    assert (found.step, found.state) == (7, {"n": 7})
    assert {name: tensor.tolist() for name, tensor in found.tensors.items()} == {
        "a": [7, 7, 7],
        "random": [0, 1, 2, 3, 4],
    }
