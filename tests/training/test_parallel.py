"""Several processes on one run do together what one does alone, and leave one adapter."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefix_studio.data.token_rows import TokenRow
from prefix_studio.errors import StudioError
from prefix_studio.models.load import load_model, load_tokenizer
from prefix_studio.prefix.encoder import PrefixModule
from prefix_studio.recipe import Recipe
from prefix_studio.training import step
from prefix_studio.training.batches import collate
from prefix_studio.training.parallel import Ranks, joined
from prefix_studio.training.run import train
from prefix_studio.training.step import Learner

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the test forks")

SECONDS = 60


def free_port() -> int:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


@pytest.fixture
def together() -> Callable[..., None]:
    """together(work, ...) calls work(rank, ...) in two processes, as a launcher would start them."""

    def run(work: Callable[..., None], *arguments: Any) -> None:
        port = str(free_port())

        def as_rank(rank: int) -> None:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            torch.set_num_threads(1)
            work(rank, *arguments)

        fork = multiprocessing.get_context("fork")
        processes = [fork.Process(target=as_rank, args=(rank,)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(SECONDS)
            process.kill()
        assert [process.exitcode for process in processes] == [0, 0]

    return run


# What the ranks can say to each other


def talk(rank: int, folder: Path) -> None:
    with joined("cpu") as ranks:
        assert (ranks.rank, ranks.world, ranks.first) == (rank, 2, rank == 0)
        assert ranks.sum(rank + 1, 0.5) == [3, 1]
        tensors = [torch.full((2, 3), float(rank)), torch.tensor(10.0 * rank)]
        ranks.all_reduce_sum(tensors)
        assert tensors[0].tolist() == [[1, 1, 1], [1, 1, 1]]
        assert tensors[1] == 10
        assert ranks.broadcast(b"first" if rank == 0 else b"") == b"first"
        assert ranks.word("pause" if rank == 0 else None) == "pause"
        assert ranks.word(None if rank == 0 else "cancel") is None
        with ranks.first_goes_first():
            if rank == 0:
                (folder / "made").touch()
            assert (folder / "made").exists()


def test_ranks_add_up_and_the_first_one_speaks(together, tmp_path):
    together(talk, tmp_path)


def test_a_process_that_no_launcher_started_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as ranks:
        assert ranks == Ranks()
    assert ranks.sum(3) == [3]
    assert ranks.word("pause") == "pause"
    assert ranks.share([[1, 2], [3]]) == [[1, 2], [3]]


def test_batches_are_shared_whole_where_that_is_even_and_row_by_row_where_not():
    batches = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert [Ranks(rank, 3).share(batches) for rank in range(3)] == [[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]]
    assert [Ranks(rank, 2).share(batches) for rank in range(2)] == [[[1, 3], [4, 6], [7, 9]], [[2], [5], [8]]]


# Training


ROWS = [TokenRow([5, 6, 7, 8 + i][: 2 + i % 3], [-100, 6, 7, 8 + i][: 2 + i % 3], i) for i in range(5)]


def make_learner(recipe: Recipe, ranks: Ranks) -> Learner:
    model, tokenizer = load_model(recipe.model), load_tokenizer(recipe.model)
    return Learner(model, PrefixModule.build(model, tokenizer, recipe.prefix, 0), recipe.training, ranks)


def gradients_of_a_step(rank: int, recipe: Recipe, rows: list[TokenRow], folder: Path) -> None:
    with joined("cpu") as ranks:
        learner = make_learner(recipe, ranks)
        mine = rows[rank::2]
        loss = learner.step([collate(mine, 2)] if mine else [], 0.01, 1)
        gradient = torch.cat([parameter.grad.flatten() for parameter in learner.parameters])
        save_file({"gradient": gradient, "loss": torch.tensor(loss)}, folder / f"{rank}.safetensors")


@pytest.mark.parametrize("average", ["token", "example"])
@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]], ids=["uneven", "one rank without rows"])
def test_the_gradient_is_that_of_one_process_with_all_rows(together, make_recipe, tmp_path, rows, average):
    recipe = make_recipe(training={"loss_average": average}, prefix={"prefix_projection": True})
    alone = make_learner(recipe, Ranks())
    loss = alone.step([collate(rows, 2)], 0.01, 1)
    expected = torch.cat([parameter.grad.flatten() for parameter in alone.parameters])

    together(gradients_of_a_step, recipe, rows, tmp_path)
    for rank in range(2):
        found = load_file(tmp_path / f"{rank}.safetensors")
        assert torch.allclose(found["gradient"], expected, rtol=1e-5, atol=1e-7)
        assert float(found["loss"]) == pytest.approx(loss, abs=1e-5)


def train_together(rank: int, recipe: Recipe, folder: Path, pause_after: int | None = None) -> None:
    """What each rank is told and writes stays apart, so that it shows who did what."""
    events: list[dict] = []

    def should_stop() -> str | None:
        assert rank == 0
        return "pause" if pause_after is not None and events[-1].get("step") == pause_after else None

    def report(event: dict) -> None:
        assert rank == 0
        events.append(event)

    word = train(recipe, folder / "run", report, should_stop, device="cpu")
    assert word == ("finished" if pause_after is None else "pause")
    (folder / f"{rank} {word}").touch()


@pytest.mark.parametrize("accumulation", [1, 2], ids=["rows shared", "batches shared"])
def test_two_processes_leave_the_adapter_of_one(together, make_run, tmp_path, accumulation):
    training = {"learning_rate": 0.01, "gradient_accumulation_steps": accumulation}
    alone = make_run("alone", training=training)
    alone.go()
    together(train_together, alone.recipe, tmp_path)
    assert_same_adapter(tmp_path / "run", alone.folder)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["adapter", "checkpoints", "result.json", "samples.json"]


def test_a_pause_is_the_first_ones_and_all_go_on_from_its_checkpoint(together, make_run, tmp_path):
    alone = make_run("alone", training={"learning_rate": 0.01})
    alone.go()
    together(train_together, alone.recipe, tmp_path, 3)
    assert sorted(path.name for path in tmp_path.glob("* pause")) == ["0 pause", "1 pause"]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003"]
    together(train_together, alone.recipe, tmp_path)
    assert_same_adapter(tmp_path / "run", alone.folder)


def train_with_little_memory(rank: int, recipe: Recipe, folder: Path) -> None:
    whole = step.completion_loss

    def losses(model, prefix, input_ids, *rest, **options):
        if rank == 1 and torch.is_grad_enabled() and len(input_ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(model, prefix, input_ids, *rest, **options)

    step.completion_loss = losses
    train_together(rank, recipe, folder)


def test_memory_too_small_for_one_of_them_halves_the_batches_of_all(together, make_run, tmp_path):
    alone = make_run("alone", training={"learning_rate": 0.01})
    alone.go()
    together(train_with_little_memory, alone.recipe, tmp_path)
    assert_same_adapter(tmp_path / "run", alone.folder)


def assert_same_adapter(found: Path, expected: Path) -> None:
    ours, theirs = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (found, expected))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-6)


def refuse(rank: int, recipe: Recipe, folder: Path) -> None:
    with pytest.raises(StudioError, match="spreads one model over all GPUs, but 2 processes were started"):
        train(recipe, folder, lambda event: None, lambda: None, device="cpu")


def test_a_model_spread_over_all_gpus_is_for_one_process(together, make_recipe, tmp_path):
    together(refuse, make_recipe(model={"device_map": "auto"}), tmp_path)
