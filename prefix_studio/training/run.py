"""One run, from a recipe to an adapter in its folder; the same call again goes on where the last one stopped.

    checkpoints/  adapter/  samples.json  result.json

The loop is our own and small. Its next state is a function of the state in a checkpoint, so that a resumed run equals
an uninterrupted one to the bit on one machine's CPU. Steps after the newest checkpoint are done, and reported, again:
readers of the events take the last one of a step's number. Knows no queue and no process: whoever calls says where to
report and when to stop, and makes sure that one process works in a folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefix_studio.data.examples import Example, load_examples
from prefix_studio.data.tokens import TokenRow, tokenize_all
from prefix_studio.models.load import load_model, load_tokenizer, resolve
from prefix_studio.prefix.encoder import PrefixModule
from prefix_studio.prefix.files import save_adapter
from prefix_studio.prefix.prefix import Prefix
from prefix_studio.prefix.shape import max_positions
from prefix_studio.recipe import Recipe
from prefix_studio.training.batches import Order, collate, some_rows
from prefix_studio.training.checkpoint import Checkpoint, newest_checkpoint, write_checkpoint, write_json
from prefix_studio.training.checks import check_early_stopping, check_identity, check_lengths, identify, usable
from prefix_studio.training.device import choose_device
from prefix_studio.training.evaluate import compare_outputs, one_a_prompt, text_metrics
from prefix_studio.training.pace import Pace
from prefix_studio.training.plan import METRIC_PROMPTS, closing_steps, evaluation_in_steps, make_plan
from prefix_studio.training.step import Learner, batch_losses, check_finite, mean_loss, named

# A checkpoint comes at the latest after so many seconds, and sooner where it is cheap: it may cost a hundredth of the
# time, but not come more often than the first figure.
CHECKPOINT_SECONDS = (5, 60)
CHECKPOINT_SHARE = 0.01

Report = Callable[[dict[str, Any]], None]
ShouldStop = Callable[[], str | None]


def train(recipe: Recipe, folder: Path, report: Report, should_stop: ShouldStop, *, device: str = "auto") -> str:
    """Trains the recipe's prefix in `folder`. Returns "finished", or the word with which `should_stop` ended it.

    report: is given events as the progress file holds them, without their time.
    should_stop: asked before every step, every evaluation batch and every batch of generated texts; "pause" leaves a
        checkpoint, any other word leaves things as they are.
    Raises StudioError for what a person can mend: the data, the model, numbers (a learning rate too high), memory.
    """
    report({"event": "state", "state": "loading"})
    tokenizer = load_tokenizer(recipe.model)
    model = load_model(recipe.model, choose_device(device))
    report({"event": "state", "state": "preparing data"})
    split = load_examples(recipe.data, tokenizer)
    rows = tokenize_all(split.train, tokenizer, recipe.data.max_length, split.report)
    held_out = tokenize_all(split.validation, tokenizer, recipe.data.max_length, split.report)
    module = PrefixModule.build(model, tokenizer, recipe.prefix, recipe.training.seed)
    check_lengths([*rows, *held_out], module.num_virtual_tokens, max_positions(model.config))
    check_early_stopping(recipe, held_out)
    report(
        {
            "event": "state",
            "state": "preparing data",
            "rows": len(rows),
            "validation_rows": len(held_out),
            "dropped": len(split.report.dropped),
            "warnings": split.report.warnings,
        }
    )
    validation = usable(split.validation, held_out)
    run = Run(recipe, Path(folder), report, should_stop, model, tokenizer, module, rows, held_out, validation)
    return run.go()


@dataclass
class Memory:
    """What a run remembers besides tensors. best_step: the step of the lowest eval_loss, -1 before the first."""

    evaluated_step: int = -1
    base_loss: float | None = None
    best_loss: float | None = None
    best_step: int = -1
    evaluations_without_gain: int = 0
    tokens: int = 0
    seconds: float = 0.0


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
        report: Report,
        should_stop: ShouldStop,
        model: Any,
        tokenizer: Any,
        module: PrefixModule,
        rows: list[TokenRow],
        held_out: list[TokenRow],
        validation: list[Example],
    ):
        self.recipe = recipe
        self.training = training = recipe.training
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self.report, self.should_stop = report, should_stop
        self.model, self.tokenizer = model, tokenizer
        self.pad_id = tokenizer.pad_token_id or 0
        self.rows, self.validation = rows, validation
        self.plan = make_plan(training, len(rows), len(held_out))
        self.held_out = some_rows(held_out, self.plan.evaluation_rows, training.seed)
        self.order = Order(
            rows, training.per_device_train_batch_size, training.gradient_accumulation_steps, training.seed
        )
        self.learner = Learner(model, module, training)
        self.identity = identify(recipe, [*rows, *held_out])
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
            self.finish()
        except Stopped as stop:
            if stop.word == "pause":
                self.save()
            return stop.word
        return "finished"

    def resume(self) -> None:
        """Goes back to the newest whole checkpoint, if there is one."""
        found, damaged = newest_checkpoint(self.checkpoints)
        event: dict[str, Any] = {"event": "state", "state": "training"}
        if damaged:
            event["damaged_checkpoints"] = damaged
        if found is not None:
            check_identity(found.state["identity"], self.identity, self.folder)
            self.learner.restore(found.tensors)
            self.best = named(found.tensors, "best.")
            self.memory = Memory(**found.state["memory"])
            self.step = self.saved_step = found.step
            event["resumed_from"] = found.step
        self.report(event)

    def learn(self) -> None:
        """One optimizer step."""
        began = time.perf_counter()
        rows = [[self.rows[index] for index in indexes] for indexes in self.order.step(self.step)]
        batches = [collate(some, self.pad_id, self.model.device) for some in rows]
        learning_rate = self.plan.learning_rate(self.step)
        loss = self.learner.step(batches, learning_rate, self.step + 1)
        self.step += 1
        seconds, tokens = time.perf_counter() - began, sum(batch.tokens for batch in batches)
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
        losses = batch_losses(self.model, prefix, self.held_out, self.pad_id, self.training)
        return mean_loss(self.stoppable(losses))

    def has_stalled(self) -> bool:
        patience = self.training.early_stopping_patience
        return patience is not None and self.memory.evaluations_without_gain >= patience

    def finish(self) -> None:
        """Leaves the best prefix as an adapter, texts written with it, and the figures of the run."""
        stopped_early = {"stopped_early": self.step} if self.has_stalled() else {}
        self.report({"event": "state", "state": "saving"} | stopped_early)
        if self.best:
            self.learner.module.load_state_dict(self.best)
        prefix = self.prefix()
        model = self.recipe.model
        save_adapter(self.folder / "adapter", prefix, base_model=resolve(model), revision=model.revision)
        metrics, base_metrics = self.write_samples(prefix)
        memory = self.memory
        kept = {"best_step": memory.best_step, **metrics}
        if self.held_out and (metrics or memory.best_step != self.step):
            # What is handed over, where that says more than the evaluation of the last step.
            self.report({"event": "eval", "step": self.step, "eval_loss": memory.best_loss, **kept})
        result = {
            "eval_loss": memory.best_loss,
            "base_loss": memory.base_loss,
            "steps": self.step,
            "seconds": round(memory.seconds, 1),
            "tokens": memory.tokens,
            **(kept if self.held_out else {}),
            **{f"base_{name}": value for name, value in base_metrics.items()},
        }
        write_json(self.folder / "result.json", result)

    def write_samples(self, prefix: Prefix) -> tuple[dict[str, float], dict[str, float]]:
        """samples.json, and the metrics of tuned and base texts that the recipe asks for."""
        evaluation = self.recipe.evaluation
        wanted = [name for name in dict.fromkeys(evaluation.metrics) if name != "loss"]
        prompts = one_a_prompt(self.validation)[: max(evaluation.samples, METRIC_PROMPTS if wanted else 0)]
        if not prompts:
            write_json(self.folder / "samples.json", [])
            return {}, {}
        self.report({"event": "state", "state": "evaluating", "prompts": len(prompts)})
        written = compare_outputs(
            self.model,
            self.tokenizer,
            prefix,
            prompts,
            self.recipe,
            should_stop=self.check_stop,
        )
        write_json(self.folder / "samples.json", written[: evaluation.samples])
        return text_metrics(written, "tuned", wanted), text_metrics(written, "base", wanted)

    def prefix(self) -> Prefix:
        with torch.no_grad():
            return self.learner.module().detach()

    def stoppable(self, work: Iterable[Any]) -> Iterable[Any]:
        for piece in work:
            yield piece
            self.check_stop()

    def check_stop(self) -> bool:
        """Raises Stopped when the caller asks for it; False otherwise, for those who want an answer."""
        word = self.should_stop()
        if word is not None:
            raise Stopped(word)
        return False

    def checkpoint_is_due(self) -> bool:
        if self.training.save_steps is not None:
            return self.step % self.training.save_steps == 0
        soonest, latest = CHECKPOINT_SECONDS
        interval = min(latest, max(soonest, self.saving_seconds / CHECKPOINT_SHARE))
        return time.monotonic() - self.saved_at >= interval

    def save(self) -> None:
        """Writes a checkpoint, unless this step's is there."""
        if self.saved_step == self.step:
            return
        began = time.monotonic()
        tensors = self.learner.tensors() | {f"best.{name}": tensor for name, tensor in self.best.items()}
        state = {"identity": self.identity, "memory": asdict(self.memory)}
        write_checkpoint(self.checkpoints, Checkpoint(self.step, tensors, state))
        self.saved_step, self.saved_at = self.step, time.monotonic()
        self.saving_seconds = self.saved_at - began
