"""The studio as an HTTP API, by `gr.api`: gradio_client, REST and openapi.json see these names.

Each function is typed, speaks plain JSON and belongs to the caller's login; a StudioError becomes the same sentence.
(No postponed annotations in this module: Gradio reads the types of what is returned as they stand.)
"""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import yaml
from gradio.data_classes import FileData

from prefix_studio.errors import StudioError
from prefix_studio.recipe import Recipe
from prefix_studio.runs.table import RunRow
from prefix_studio.runs.uploads import store_upload
from prefix_studio.ui.downloads import servable
from prefix_studio.ui.playground_view import start_comparison
from prefix_studio.ui.queueing import queue_run
from prefix_studio.ui.studio import Studio, owner_of

FORMATS = ("peft",)


def build_api(studio: Studio) -> None:
    """Adds the endpoints to the current page."""

    def submit(recipe: str, request: gr.Request, dataset: FileData | None = None) -> dict:
        """Queue a recipe (YAML). dataset: a file whose rows replace data.source."""
        fields = Recipe.from_yaml(recipe) if dataset is None else with_source(recipe, kept(dataset))
        return {"run_id": queue_run(studio, fields, owner_of(request))}

    def run(run_id: str, request: gr.Request) -> dict:
        """Where a run stands: state, step, total_steps, loss, eval_loss, eta_s, error."""
        return standing(studio, studio.runs.get(run_id, owner_of(request)))

    def runs(request: gr.Request) -> list:
        """All runs of the caller, newest first: the same as `run`, with run_id and name."""
        rows = studio.runs.list(owner_of(request))
        return [{"run_id": row.id, "name": row.name, **standing(studio, row)} for row in rows]

    def cancel(run_id: str, request: gr.Request) -> dict:
        """Cancel a queued, running or paused run."""
        return standing(studio, studio.runs.cancel(run_id, owner_of(request)))

    def pause(run_id: str, request: gr.Request) -> dict:
        """Pause a run; it keeps a checkpoint."""
        return standing(studio, studio.runs.pause(run_id, owner_of(request)))

    def resume(run_id: str, request: gr.Request) -> dict:
        """Let a paused run go on."""
        return standing(studio, studio.runs.resume(run_id, owner_of(request)))

    def compare(
        run_ids: list, prompt: str, request: gr.Request, init_text: str = "", max_new_tokens: int = 128
    ) -> dict:
        """Base and tuned answers to one prompt, greedy, in one batch. run_ids: runs or imported adapters."""
        ids = [str(run_id) for run_id in run_ids]
        stream, _ = start_comparison(studio, owner_of(request), ids, prompt, init_text, max_new_tokens)
        result = next(event["done"] for event in stream if "done" in event)
        folders = {str(studio.shelf.get(run_id, owner_of(request)).folder): run_id for run_id in ids}
        answers = [{**answer, "adapter": folders[answer["adapter"]]} for answer in result["adapters"]]
        return {**result, "adapters": answers}

    def export(run_id: str, request: gr.Request, format: str = "peft") -> FileData:  # noqa: A002 - the API's word
        """The adapter as a file. format: peft (a zip that PeftModel.from_pretrained loads once unpacked)."""
        if format not in FORMATS:
            raise StudioError(f"There is no export format {format!r}.", f"Known: {', '.join(FORMATS)}.")
        return FileData(path=servable(studio.shelf.zip(run_id, owner_of(request))))

    def import_adapter(file: FileData, request: gr.Request) -> dict:
        """Put an adapter's zip on the shelf."""
        return {"adapter_id": studio.shelf.import_zip(uploaded(file), owner_of(request))}

    def kept(file: Any) -> str:
        return str(store_upload(studio.settings, uploaded(file)))

    for endpoint in (submit, run, runs, cancel, pause, resume, compare, export, import_adapter):
        gr.api(spoken(endpoint), api_name=endpoint.__name__, concurrency_limit=8)


def spoken(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """The endpoint, with a StudioError as gr.Error of the same sentence."""

    @wraps(endpoint)
    def answer(*arguments: Any, **named: Any) -> Any:
        try:
            return endpoint(*arguments, **named)
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return answer


def standing(studio: Studio, row: RunRow) -> dict[str, Any]:
    """A run's state and latest figures; None where there are none yet."""
    seen = studio.progress.of(row.folder)
    return {
        "state": row.state,
        "step": seen.step.get("step"),
        "total_steps": seen.step.get("total_steps"),
        "loss": seen.step.get("loss"),
        "eval_loss": seen.last_eval.get("eval_loss"),
        "eta_s": seen.step.get("eta_s") if row.state == "running" else None,
        "error": row.error,
    }


def with_source(recipe: str, source: str) -> Recipe:
    """The recipe with another data source; one without `data` is completed by it."""
    try:
        fields = yaml.safe_load(recipe) or {}
    except yaml.YAMLError:
        return Recipe.from_yaml(recipe)  # which says where the YAML breaks
    if isinstance(fields, dict):
        data = fields.get("data")
        fields = {**fields, "data": {**(data if isinstance(data, dict) else {}), "source": source}}
    return Recipe.from_fields(fields)


def uploaded(file: Any) -> Path:
    """The path of a file that came with a request."""
    return Path(file["path"] if isinstance(file, dict) else file.path)
