"""The page's door to the model process: started when first needed, started again when it died, asked over HTTP.

Page-safe: no torch. Safe to use from many threads; any number of pages on one home share one model process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import psutil

from prefix_studio import __version__
from prefix_studio.errors import CATEGORIES, StudioError
from prefix_studio.recipe import ModelPart, Recipe
from prefix_studio.runs import processes
from prefix_studio.runs.folder import last_line, trim_log
from prefix_studio.runs.locks import hold
from prefix_studio.server.place import Place, log_file, read_place
from prefix_studio.settings import Settings

START_SECONDS = 180.0
SECONDS_BETWEEN_LOOKS = 0.05
# A model may have to be downloaded before the first word comes.
TIMEOUT = httpx.Timeout(connect=5.0, read=3600.0, write=60.0, pool=60.0)
COMMAND = (sys.executable, "-m", "prefix_studio.server.app")
LOG_LINES = 5


class ModelClient:
    """Asks the model process of these settings' home."""

    def __init__(self, settings: Settings, *, start_seconds: float = START_SECONDS):
        self.settings = settings
        self._start_seconds = start_seconds
        self._starting = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        # Loopback only: the machine's proxy settings are not for it, and it speaks no TLS.
        self._http = httpx.Client(timeout=TIMEOUT, trust_env=False, verify=False)  # noqa: S501

    # What can be asked

    def compare(
        self,
        model: ModelPart,
        adapters: Sequence[Path | str] = (),
        prompt: str | None = None,
        *,
        messages: list[dict[str, Any]] | None = None,
        init_text: str | None = None,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[dict[str, Any]]:
        """{"row": "base" | "init_text" | adapter, "text": piece} as they are written, then {"done": compare's result}.

        Closing the iterator stops the writing. Raises StudioError.
        """
        body = {
            "model": model.model_dump(),
            "adapters": [str(adapter) for adapter in adapters],
            "prompt": prompt,
            "messages": messages,
            "init_text": init_text,
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
        }
        with self._answer("/studio/compare", body) as response:
            try:
                for line in response.iter_lines():
                    event = json.loads(line)
                    if "error" in event:
                        raise error_from(event["error"])
                    yield event
            except httpx.TransportError as error:
                raise self._died() from error

    def check(self, recipe: Recipe | Mapping[str, Any]) -> dict[str, Any]:
        """The pre-flight check of the recipe's model and prefix, and "memory_available_bytes" of memory."""
        return self._ask("/studio/check", {"recipe": fields_of(recipe)})

    def preview(self, recipe: Recipe | Mapping[str, Any]) -> dict[str, Any]:
        """The first examples as the model will see them, and the data report."""
        return self._ask("/studio/preview", {"recipe": fields_of(recipe)})

    def inspect(self, source: str) -> dict[str, Any]:
        """Columns, first rows, row count and guessed mapping of a data source."""
        return self._ask("/studio/inspect", {"source": source})

    def estimate(self, recipe: Recipe | Mapping[str, Any]) -> dict[str, Any]:
        """Seconds, steps, memory and parameter counts of the recipe's run."""
        return self._ask("/studio/estimate", {"recipe": fields_of(recipe)})

    def validation_prompts(self, recipe: Recipe | Mapping[str, Any], count: int = 20) -> list[dict[str, Any]]:
        """Prompts the training does not see: [{"prompt", "reference", "messages" (of a chat, else None)}]."""
        return self._ask("/studio/validation-prompts", {"recipe": fields_of(recipe), "count": count})

    # The process behind it

    def state(self) -> Literal["starting", "ready", "stopped"]:
        """How the model process is, without asking it or starting it."""
        place = read_place(self.settings)
        if place is None or not place.alive:
            return "starting" if self._starting.locked() else "stopped"
        return "ready" if place.ready else "starting"

    def stop(self) -> None:
        """End the model process, if there is one; the next question starts another."""
        place = read_place(self.settings)
        if place is None or not place.alive:
            return
        process = psutil.Process(place.pid)
        process.terminate()
        try:
            process.wait(10)
        except psutil.TimeoutExpired:
            processes.kill_tree(place.pid, place.create_time)

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        with self._answer(path, body) as response:
            try:
                return json.loads(response.read())
            except httpx.TransportError as error:
                raise self._died() from error

    @contextmanager
    def _answer(self, path: str, body: dict[str, Any]) -> Iterator[httpx.Response]:
        """The process's answer, begun. A process that died meanwhile is replaced, once."""
        headers = {"Authorization": f"Bearer {self.settings.token()}"}
        for attempt in (1, 2):
            place = self._running()
            request = self._http.build_request("POST", place.url + path, json=body, headers=headers)
            try:
                response = self._http.send(request, stream=True)
                break
            except httpx.TransportError as error:
                if attempt == 2 or isinstance(error, httpx.ReadTimeout):
                    raise self._died() from error
                wait_for_the_end(place)
        try:
            if response.is_error:
                response.read()
                raise error_from(error_of(response))
            yield response
        finally:
            response.close()

    def _running(self) -> Place:
        """The model process, started if there is none. Raises StudioError with its log's end when it does not come."""
        place = read_place(self.settings)
        if place and place.ready and place.version == __version__:
            return place
        with self._starting, hold(self.settings.home / "server-start.lock", timeout=self._start_seconds):
            place = read_place(self.settings)
            if place and place.alive and place.version != __version__:
                self.stop()  # left over from before an upgrade
                place = None
            if place is None or not place.alive:
                place = None
                trim_log(log_file(self.settings))
                self._process = processes.start(COMMAND, settings=self.settings, log=log_file(self.settings))
            return self._wait_until_ready(place)

    def _wait_until_ready(self, place: Place | None) -> Place:
        """place: a process that somebody else began to start; None: the one this client has just started."""
        pid = place.pid if place else self._process.pid
        deadline = time.monotonic() + self._start_seconds
        while time.monotonic() < deadline:
            place = read_place(self.settings)
            if place and place.pid == pid and place.ready:
                return place
            gone = not place.alive if place and place.pid == pid else self._process and self._process.poll() is not None
            if gone:
                raise StudioError("The model process ended while it was starting.", self._log_end(), "internal")
            time.sleep(SECONDS_BETWEEN_LOOKS)
        raise StudioError(
            f"The model process has not started within {self._start_seconds:.0f} s.", self._log_end(), "internal"
        )

    def _died(self) -> StudioError:
        return StudioError(
            "The model process stopped while it was answering.", f"Try again. {self._log_end()}".strip(), "interrupted"
        )

    def _log_end(self) -> str:
        line = last_line(log_file(self.settings))
        return f"Its log ends with: {line}" if line else ""


def fields_of(recipe: Recipe | Mapping[str, Any]) -> dict[str, Any]:
    return recipe.model_dump() if isinstance(recipe, Recipe) else dict(recipe)


def wait_for_the_end(place: Place, seconds: float = 5.0) -> None:
    """A process that broke off its answer is about to die; ask for it only once it has."""
    deadline = time.monotonic() + seconds
    while place.alive and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_LOOKS)


def error_of(response: httpx.Response) -> Mapping[str, Any]:
    try:
        return response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {"message": f"The model process answered {response.status_code}.", "category": "internal"}


def error_from(fields: Mapping[str, Any]) -> StudioError:
    category = fields.get("category")
    return StudioError(
        str(fields.get("message")), str(fields.get("hint") or ""), category if category in CATEGORIES else "internal"
    )
