"""From the worker's thread to an HTTP answer: events of a job as an async iterator that ends when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from fastapi import Request

from prefix_studio.server.worker import Work, Worker


async def follow(request: Request, worker: Worker, work: Work) -> AsyncIterator[Any]:
    """The events of the work. Stops the work when the client disconnects, or when this iterator is closed.

    Raises what the work raises, and Busy when too much waits.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[Any] = asyncio.Queue()

    def emit(event: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server is going down and nobody listens
            loop.call_soon_threadsafe(events.put_nowait, event)

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        job.cancel()
        events.put_nowait(None)

    job = worker.submit(work, emit)
    watcher = asyncio.create_task(watch())
    try:
        while (event := await events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event
    finally:
        job.cancel()
        watcher.cancel()


async def collect(request: Request, worker: Worker, work: Work) -> list[Any]:
    """All events of the work, for an answer in one piece."""
    async with aclosing(follow(request, worker, work)) as events:
        return [event async for event in events]


async def begun(events: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The same events, once the first is there: what fails before it still gets a proper status code."""
    first = await anext(events, None)

    async def from_the_first() -> AsyncIterator[Any]:
        async with aclosing(events):
            if first is not None:
                yield first
                async for event in events:
                    yield event

    return from_the_first()
