"""One run, from a recipe to an adapter in its folder; the same call again goes on where the last one stopped.

    checkpoints/  adapter/  samples.json  result.json

The loop is our own and small. Its next state is a function of the state in a checkpoint, so that a resumed run equals
an uninterrupted one to the bit on one machine's CPU. Steps after the newest checkpoint are done, and reported, again:
readers of the events take the last one of a step's number. Knows no queue: whoever calls says where to report and when
to stop, and makes sure that one process works in a folder, or that a launcher's several work in it together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefix_studio.data.token_rows import concatenate
from prefix_studio.errors import StudioError
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.recipe import Recipe
from prefix_studio.training import outcome
from prefix_studio.training.batch_size import BatchSize
from prefix_studio.training.batches import Order, collate, some_rows
from prefix_studio.training.checkpoint import Checkpoint, newest_checkpoint, pack, unpack, write_checkpoint
from prefix_studio.training.checks import check_identity, identify
from prefix_studio.training.device import choose_device
from prefix_studio.training.pace import Pace
from prefix_studio.training.parallel import Ranks, joined, local_rank
from prefix_studio.training.plan import closing_steps, evaluation_in_steps, make_plan
from prefix_studio.training.prepare import Material, Report, prepare
from prefix_studio.training.step import Learner, batch_losses, check_finite, mean_loss, named

# A checkpoint comes at the latest after so many seconds, and sooner where it is cheap: it may cost a hundredth of the
# time, but not come more often than the first figure.
CHECKPOINT_SECONDS = (5, 60)
CHECKPOINT_SHARE = 0.01

ShouldStop = Callable[[], str | None]


def train(recipe: Recipe, folder: Path, report: Report, should_stop: ShouldStop, *, device: str = "auto") -> str:
    """Trains the recipe's prefix in `folder`. Returns "finished", or the word with which `should_stop` ended it.

    report: is given events as the progress file holds them, without their time.
    should_stop: asked before every step, every evaluation batch and every batch of generated texts; "pause" leaves a
        checkpoint, any other word leaves things as they are.
    Of several processes that a launcher started, the first alone reports, asks and writes.
    Raises StudioError for what a person can mend: the data, the model, numbers (a learning rate too high), memory.
    """
    device = choose_device(device, local_rank())
    with joined(device) as ranks:
        if not ranks.first:
            report = should_stop = lambda *_: None
        return Run(recipe, Path(folder), prepare(recipe, report, device, ranks), report, should_stop, ranks).go()


@dataclass
class Memory:
    """What a run remembers besides tensors.

    best_step: the step of the lowest eval_loss, -1 before the first. batch_sizes: the rows that go through the model
    at once, by the recipe's name for them, which may have had to give way to a small memory.
    """

    evaluated_step: int = -1
    base_loss: float | None = None
    best_loss: float | None = None
    best_step: int = -1
    evaluations_without_gain: int = 0
    tokens: int = 0
    seconds: float = 0.0
    batch_sizes: dict[str, int] = field(default_factory=dict)


class Stopped(Exception):
    """The caller asked to stop."""

    def __init__(self, word: str):
        super().__init__(word)
        self.word = word


class Run:
    """A run at some step. Everything that decides the steps to come is in `learner`, `best` and `memory`."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        material: Material,
        report: Report,
        should_stop: ShouldStop,
        ranks: Ranks,
    ):
        self.recipe = recipe
        self.training = training = recipe.training
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self.report, self.should_stop, self.ranks = report, should_stop, ranks
        self.model, self.tokenizer = material.model, material.tokenizer
        self.pad_id = material.tokenizer.pad_token_id or 0
        self.rows, self.validation = material.rows, material.validation
        self.plan = make_plan(training, len(material.rows), len(material.held_out))
        self.held_out = some_rows(material.held_out, self.plan.evaluation_rows, training.seed)
        self.order = Order(
            self.rows, training.per_device_train_batch_size, training.gradient_accumulation_steps, training.seed
        )
        self.batch_size = BatchSize(training, "per_device_train_batch_size", lambda size: report(size.event()))
        self.eval_size = BatchSize(training, "per_device_eval_batch_size", lambda size: report(size.event()))
        self.learner = Learner(self.model, material.module, training, ranks)
        self.identity = identify(recipe, concatenate([material.rows, material.held_out]))
        self.step = 0
        self.best: dict[str, Tensor] = {}
        self.memory = Memory()
        self.pace = Pace(evaluation_in_steps(self.plan, training), closing_steps(recipe))
        self.saved_step = -1
        self.saved_at = time.monotonic()
        self.saving_seconds = 0.0

    def go(self) -> str:
        try:
            self.resume()
            while True:
                if self.plan.evaluates_at(self.step) and self.memory.evaluated_step != self.step:
                    self.evaluate()
                if self.step >= self.plan.total_steps or self.has_stalled():
                    break
                self.check_stop()
                self.learn()
                if self.checkpoint_is_due():
                    self.save()
            self.save()
            if self.ranks.first:
                self.ranks = Ranks()  # the others go home
                self.finish()
        except Stopped as stop:
            if stop.word == "pause":
                self.save()
            return stop.word
        return "finished"

    # Steps and evaluations

    def learn(self) -> None:
        """One optimizer step."""
        began = time.perf_counter()
        learning_rate = self.plan.learning_rate(self.step)
        loss, tokens = self.learn_what_fits(learning_rate)
        self.step += 1
        seconds = time.perf_counter() - began
        self.pace.step(seconds, tokens)
        self.memory.tokens += tokens
        self.memory.seconds += seconds
        remaining = self.plan.total_steps - self.step
        self.report(
            {
                "event": "step",
                "step": self.step,
                "total_steps": self.plan.total_steps,
                "loss": loss,
                "learning_rate": learning_rate,
                "tokens_per_s": round(self.pace.tokens_per_s, 1),
                "eta_s": round(self.pace.eta(remaining, self.plan.evaluations_after(self.step)), 1),
            }
        )

    def learn_what_fits(self, learning_rate: float) -> tuple[float, int]:
        """The step's loss and tokens. Where memory is too small, the same rows in smaller batches, from here on."""
        while True:
            shares, size = self.ranks.share(self.order.step(self.step)), self.batch_size.size
            pieces = [share[first : first + size] for share in shares for first in range(0, len(share), size)]
            rows = [self.rows.select(piece) for piece in pieces]
            both = self.model.config.is_encoder_decoder
            batches = [collate(some, self.pad_id, self.model.device, encoder_decoder=both) for some in rows]
            numbers = [some.numbers.tolist() for some in rows]
            try:
                loss = self.learner.step(batches, learning_rate, self.step + 1, numbers)
            except StudioError as error:
                if error.category != "memory":
                    raise
            else:
                return loss, int(*self.ranks.sum(sum(batch.tokens for batch in batches)))
            self.batch_size.halve()

    def evaluate(self) -> None:
        """The loss on the held-back rows; the best prefix so far is kept."""
        self.report({"event": "state", "state": "evaluating"})
        memory, first = self.memory, self.memory.evaluated_step < 0
        if first:
            memory.base_loss = self.loss_of(None)
            check_finite("loss of the untuned model", memory.base_loss, 0, self.training)
        began = time.perf_counter()
        loss = self.loss_of(self.prefix())
        check_finite("loss on the validation rows", loss, self.step, self.training)
        seconds = time.perf_counter() - began
        self.pace.evaluation_seconds = seconds
        memory.seconds += seconds
        if memory.best_loss is None or loss < memory.best_loss:
            memory.best_loss, memory.best_step, memory.evaluations_without_gain = loss, self.step, 0
            self.best = {name: tensor.clone() for name, tensor in self.learner.module.state_dict().items()}
        else:
            memory.evaluations_without_gain += 1
        memory.evaluated_step = self.step
        event = {"event": "eval", "step": self.step, "eval_loss": loss, "rows": len(self.held_out)}
        self.report(event | ({"base_loss": memory.base_loss} if first else {}))
        self.report({"event": "state", "state": "training"})

    def loss_of(self, prefix: Prefix | None) -> float:
        """The mean over the held-back rows, each rank taking its share of them."""
        (rows,) = self.ranks.share([self.held_out])
        losses = batch_losses(self.model, prefix, rows, self.pad_id, self.eval_size)
        return mean_loss(self.stoppable(losses), self.ranks)

    def has_stalled(self) -> bool:
        patience = self.training.early_stopping_patience
        return patience is not None and self.memory.evaluations_without_gain >= patience

    def prefix(self) -> Prefix:
        with torch.no_grad():
            return self.learner.module().detach()

    # The end

    def finish(self) -> None:
        """Leaves the best prefix as an adapter, texts written with it, and the figures of the run."""
        stopped_early = {"stopped_early": self.step} if self.has_stalled() else {}
        self.report({"event": "state", "state": "saving"} | stopped_early)
        if self.best:
            self.learner.module.load_state_dict(self.best)
        prefix, recipe, memory = self.prefix(), self.recipe, self.memory
        outcome.write_adapter(self.folder, recipe, prefix, self.model)
        prompts = outcome.prompts_to_write_for(recipe, self.validation)
        if prompts:
            self.report({"event": "state", "state": "evaluating", "prompts": len(prompts)})
        metrics, base_metrics = outcome.write_samples(
            self.folder, recipe, prefix, self.model, self.tokenizer, prompts, self.eval_size, self.check_stop
        )
        kept = {"best_step": memory.best_step, **metrics} if self.held_out else {}
        if self.held_out and (metrics or memory.best_step != self.step):
            # What is handed over, where that says more than the evaluation of the last step.
            self.report({"event": "eval", "step": self.step, "eval_loss": memory.best_loss, **kept})
        result = {
            "eval_loss": memory.best_loss,
            "base_loss": memory.base_loss,
            "steps": self.step,
            "seconds": round(memory.seconds, 3),
            "tokens": memory.tokens,
        }
        base_metrics = {f"base_{name}": value for name, value in base_metrics.items()}
        outcome.write_result(self.folder, result | kept | base_metrics)

    # Stopping and going on

    def stoppable(self, work: Iterable[Any]) -> Iterable[Any]:
        for piece in work:
            yield piece
            if self.ranks.world == 1:  # several ranks may have unlike numbers of pieces; they stop together, after
                self.check_stop()

    def check_stop(self) -> bool:
        """Raises Stopped when the caller asks for it; False otherwise, for those who want an answer."""
        word = self.ranks.word(self.should_stop())
        if word is not None:
            raise Stopped(word)
        return False

    def resume(self) -> None:
        """Goes back to the newest whole checkpoint, if there is one; the other ranks to where the first one is."""
        event: dict[str, Any] = {"event": "state", "state": "training"}
        if self.ranks.first:
            found, damaged = newest_checkpoint(self.checkpoints)
            if damaged:
                event["damaged_checkpoints"] = damaged
            if found is not None:
                check_identity(found.state["identity"], self.identity, self.folder)
                self.go_to(found)
                self.saved_step = event["resumed_from"] = found.step
        if self.ranks.world > 1:
            self.go_to(unpack(self.ranks.broadcast(pack(self.checkpoint()))))
        self.report(event)

    def checkpoint(self) -> Checkpoint:
        tensors = self.learner.tensors() | {f"best.{name}": tensor for name, tensor in self.best.items()}
        self.memory.batch_sizes = {size.field: size.size for size in (self.batch_size, self.eval_size)}
        return Checkpoint(self.step, tensors, {"identity": self.identity, "memory": asdict(self.memory)})

    def go_to(self, checkpoint: Checkpoint) -> None:
        """The inverse of `checkpoint`."""
        self.learner.restore(checkpoint.tensors)
        self.best = named(checkpoint.tensors, "best.")
        self.memory = Memory(**checkpoint.state["memory"])
        for size in (self.batch_size, self.eval_size):
            size.size = min(size.size, self.memory.batch_sizes.get(size.field, size.size))
        self.step = checkpoint.step

    def checkpoint_is_due(self) -> bool:
        if self.training.save_steps is not None:
            return self.step % self.training.save_steps == 0
        soonest, latest = CHECKPOINT_SECONDS
        interval = min(latest, max(soonest, self.saving_seconds / CHECKPOINT_SHARE))
        return time.monotonic() - self.saved_at >= interval

    def save(self) -> None:
        """Writes a checkpoint, unless this step's is there."""
        if self.saved_step == self.step or not self.ranks.first:
            return
        began = time.monotonic()
        write_checkpoint(self.checkpoints, self.checkpoint())
        self.saved_step, self.saved_at = self.step, time.monotonic()
        self.saving_seconds = self.saved_at - began
