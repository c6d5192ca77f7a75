"""Whoever leaves frees the worker, whether the answer is a stream or in one piece."""

from __future__ import annotations

import threading
import time

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from prefix_studio.errors import StudioError
from prefix_studio.server.app import configuration, listen
from prefix_studio.server.streams import begun, collect, follow
from prefix_studio.server.worker import Worker


class Endless:
    """Work that only ends when it is told to."""

    def __init__(self):
        self.begun, self.stopped = threading.Event(), threading.Event()

    def __call__(self, should_stop):
        try:
            while not should_stop():
                self.begun.set()
                time.sleep(0.01)
                yield "more\n"
        finally:
            self.stopped.set()


def silent(work):
    def without_events(should_stop):
        for _ in work(should_stop):
            pass
        yield "never"

    return without_events


@pytest.fixture
def works():
    return {"stream": Endless(), "whole": Endless(), "before": Endless()}


@pytest.fixture
def address(works):
    app, worker = FastAPI(), Worker()

    @app.post("/stream")
    async def stream(http: Request):
        return StreamingResponse(await begun(follow(http, worker, works["stream"])))

    @app.post("/whole")
    async def whole(http: Request):
        return await collect(http, worker, works["whole"])

    @app.post("/before")
    async def before(http: Request):
        return StreamingResponse(await begun(follow(http, worker, silent(works["before"]))))

    @app.post("/fails")
    async def fails(http: Request):
        def work(should_stop):
            raise StudioError("no such thing")
            yield

        try:
            return StreamingResponse(await begun(follow(http, worker, work)))
        except StudioError as error:
            return {"refused": error.message}

    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(configuration(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    worker.close()


def test_leaving_a_stream_stops_its_work(address, works):
    with httpx.stream("POST", f"{address}/stream", json={}, trust_env=False) as response:
        assert next(response.iter_lines()) == "more"
        assert not works["stream"].stopped.is_set()
    assert works["stream"].stopped.wait(5)


@pytest.mark.parametrize("path", ["whole", "before"])
def test_leaving_before_the_answer_stops_its_work(address, works, path):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/{path}", json={}, timeout=0.5, trust_env=False)
    assert works[path].begun.is_set()
    assert works[path].stopped.wait(5)


def test_what_fails_before_the_first_event_fails_before_the_answer(address):
    assert httpx.post(f"{address}/fails", json={}, trust_env=False).json() == {"refused": "no such thing"}


def test_answers_do_not_wait_for_acknowledgements(address):
    """With Nagle's algorithm on, every answer on a kept connection takes 40 ms and more."""
    with httpx.Client(trust_env=False) as client:
        client.post(f"{address}/fails", json={})
        seconds = []
        for _ in range(9):
            began = time.perf_counter()
            client.post(f"{address}/fails", json={})
            seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.03
