"""The server as a process: the routes together, who may call them, and how errors leave the house.

`serve` is the command line's; `main` is how the page's client starts it, on a port of the system's choice, to end by
itself when nobody has called for a while. The studio's own server asks for the studio's token; one that was told a
model asks for a key only if it was told one.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from prefix_studio import __version__
from prefix_studio.errors import StudioError
from prefix_studio.models.load import resolve
from prefix_studio.recipe import ModelPart
from prefix_studio.runs.locks import hold
from prefix_studio.server.engine import Engine
from prefix_studio.server.names import GivenNames, Names, StudioNames
from prefix_studio.server.openai import Refusal, openai_routes, refusal_of
from prefix_studio.server.place import announce, lock_file, withdraw
from prefix_studio.server.studio import error_fields, studio_routes
from prefix_studio.settings import Settings

LOOPBACK = "127.0.0.1"
IDLE_EXIT_SECONDS = 30 * 60.0
SECONDS_BETWEEN_IDLE_CHECKS = 5.0


class TokenGate:
    """ASGI middleware that lets in whoever sends the token, and health checks; everybody when the token is None."""

    def __init__(self, app: ASGIApp, token: str | None):
        self.app = app
        self._expected = token and f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/health" or self._lets_in(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        message = "The key is missing or wrong: send `Authorization: Bearer KEY`."
        await Refusal(401, message, "invalid_request_error", "invalid_api_key").answer()(scope, receive, send)

    def _lets_in(self, headers: Headers) -> bool:
        given = headers.get("authorization", "").encode()
        return self._expected is None or secrets.compare_digest(given, self._expected)


class Activity:
    """ASGI middleware that knows for how long nobody has called; health checks do not count."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self._open = 0
        self._last = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        return 0.0 if self._open else time.monotonic() - self._last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        self._open += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self._open -= 1
            self._last = time.monotonic()


def build_app(engine: Engine, names: Names, *, token: str | None, studio: Settings | None = None) -> FastAPI:
    """The routes, the page's own among them when `studio` is given. token: asked of every caller; None asks nobody."""
    app = FastAPI(title="Prefix Studio", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(TokenGate, token=token)
    app.include_router(openai_routes(engine, names))
    if studio:
        app.include_router(studio_routes(engine, studio))

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.exception_handler(Exception)
    @app.exception_handler(Refusal)
    @app.exception_handler(StudioError)
    async def explain(request: Request, error: Exception) -> JSONResponse:
        if request.url.path.startswith("/studio/"):
            return JSONResponse({"error": error_fields(error)}, 422 if isinstance(error, StudioError) else 500)
        return refusal_of(error).answer()

    @app.exception_handler(RequestValidationError)
    async def explain_fields(request: Request, error: RequestValidationError) -> JSONResponse:
        where, what = first_problem(error)
        if request.url.path.startswith("/studio/"):
            return await explain(request, StudioError(f"{where}: {what}."))
        return Refusal(400, f"{where}: {what}.", "invalid_request_error", param=where).answer()

    @app.exception_handler(HTTPException)
    async def explain_status(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{error.detail}: {request.method} {request.url.path}"
        return Refusal(error.status_code, message, "invalid_request_error").answer()

    return app


def first_problem(error: RequestValidationError) -> tuple[str, str]:
    """(field, what is wrong with it) of the first wrong field."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"] if part != "body") or "body"
    if problem["type"] == "extra_forbidden":
        return where, "this server knows no such field"
    return where, problem["msg"].removeprefix("Value error, ").rstrip(".")


def serve(
    settings: Settings,
    *,
    host: str = LOOPBACK,
    port: int = 8000,
    model: ModelPart | str | None = None,
    adapters: Sequence[Path | str] = (),
    api_key: str | None = None,
) -> None:
    """Serve until interrupted: the given model and adapters, or the studio's own.

    Raises StudioError when the address is taken, or model and adapters do not work together.
    """
    if adapters and model is None:
        raise StudioError("There are adapters but no model to put them in front of.", "Add --model.")
    listener = listen(host, port)
    engine = Engine()
    if model is None:
        token = api_key or settings.token()
        app = build_app(engine, StudioNames(settings), token=token, studio=settings)
    else:
        part = ModelPart(id=model) if isinstance(model, str) else model
        resolve(part)
        folders = [Path(adapter).expanduser() for adapter in adapters]
        engine.check(part, folders)
        app = build_app(engine, GivenNames(part, folders), token=api_key)
        if api_key is None and host not in (LOOPBACK, "localhost", "::1"):
            say(f"Note: anybody who reaches {host} may use this server; --api-key KEY asks for a key.")
    say(f"Listening on http://{host}:{listener.getsockname()[1]}/v1 (Ctrl-C ends it)")
    uvicorn.Server(configuration(app)).run(sockets=[listener])


def main() -> int:
    """The studio's model process, as the page's client starts it. There is one for a home."""
    settings = Settings.from_environment().prepare()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        with hold(lock_file(settings), timeout=2):
            announce(settings, None)
            try:
                run_until_idle(settings, float(os.environ.get("PREFIX_STUDIO_IDLE_EXIT", IDLE_EXIT_SECONDS)))
            finally:
                withdraw(settings)
    except StudioError as error:
        say(str(error))
        return 1
    return 0


def run_until_idle(settings: Settings, idle_exit_seconds: float) -> None:
    listener = listen(LOOPBACK, 0)
    engine = Engine()
    activity = Activity(build_app(engine, StudioNames(settings), token=settings.token(), studio=settings))
    server = uvicorn.Server(configuration(activity))

    def end_when_idle() -> None:
        while not server.should_exit:
            time.sleep(min(SECONDS_BETWEEN_IDLE_CHECKS, idle_exit_seconds))
            server.should_exit = server.should_exit or activity.idle_seconds > idle_exit_seconds

    threading.Thread(target=end_when_idle, name="idle", daemon=True).start()
    announce(settings, listener.getsockname()[1])
    server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: callers may connect from now on, and are answered once the server runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is spelled out; with it on, every answer and every
    # streamed piece waits for an acknowledgement, 40 ms on loopback.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if sys.platform != "win32":  # where it would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        return listener
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or error
        raise StudioError(f"Port {port} on {host} cannot be used: {why}.", "Choose another with --port.") from error


def configuration(app: ASGIApp) -> uvicorn.Config:
    # No access log: prompts and keys have no place there. Streams of callers who hang on do not hold up the end.
    return uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
