"""The model process as the page meets it: real processes, killed, raced for and left alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil
import pytest

from prefix_studio.errors import StudioError
from prefix_studio.recipe import ModelPart
from prefix_studio.server import client as client_module
from prefix_studio.server.app import run_until_idle
from prefix_studio.server.client import ModelClient
from prefix_studio.server.place import Place, announce, log_file, place_file, read_place
from prefix_studio.settings import PROJECT, Settings

SHORT = {"max_new_tokens": 4}


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(home=tmp_path_factory.mktemp("studio") / "home").prepare()


@pytest.fixture(scope="module")
def client(settings):
    client = ModelClient(settings)
    yield client
    client.stop()


def compare(client, **more):
    *_, last = client.compare(ModelPart(), [], "The river", **SHORT, **more)
    return last["done"]


def model_processes(settings) -> set[int]:
    """Every process on this machine that runs this home's model process."""
    found = set()
    for process in psutil.process_iter():
        try:
            ours = "prefix_studio.server.app" in process.cmdline()
            if ours and process.environ().get("PREFIX_STUDIO_HOME") == str(settings.home):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def test_importing_the_client_loads_no_model_library():
    code = (
        "import sys, prefix_studio.server.client; "
        "print({'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


def test_two_clients_at_once_start_one_process(client, settings):
    assert client.state() == "stopped"
    clients, answers = [client, ModelClient(settings)], []
    threads = [threading.Thread(target=lambda one=one: answers.append(compare(one))) for one in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert len(answers) == 2
    assert answers[0] == answers[1]
    assert client.state() == "ready"
    assert model_processes(settings) == {read_place(settings).pid}
    assert place_file(settings).stat().st_mode & 0o077 == 0


def test_questions_share_the_process(client, settings):
    before = read_place(settings)
    assert client.check({})["supported"] is True
    assert client.inspect("sample:restaurants")["row_count"] == 400
    assert read_place(settings) == before


def test_errors_arrive_as_they_were_raised(client):
    with pytest.raises(StudioError) as caught:
        client.check({"model": {"id": "./nowhere"}})
    assert caught.value.message == "The model folder ./nowhere does not exist."
    assert caught.value.category == "model"
    assert caught.value.hint


def test_closing_the_iterator_frees_the_worker(client):
    long = client.compare(ModelPart(), [], "The river", max_new_tokens=100_000, temperature=2.0)
    next(long)
    began = time.monotonic()
    long.close()
    compare(client)
    assert time.monotonic() - began < 5


def test_a_killed_process_is_replaced_by_the_next_question(client, settings):
    before, answer = read_place(settings), compare(client)
    psutil.Process(before.pid).kill()
    assert compare(client) == answer
    after = read_place(settings)
    assert after.pid != before.pid
    assert model_processes(settings) == {after.pid}


@contextmanager
def answering(raw: bytes):
    """The place of a process that answers one request with these bytes, breaks off, and is no more."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(raw)

    thread = threading.Thread(target=answer)
    thread.start()
    yield Place(pid=2**22 + 1, create_time=0.0, port=listener.getsockname()[1])
    thread.join(5)
    listener.close()


def test_a_process_that_dies_before_it_answers_is_replaced(client, monkeypatch):
    with answering(b"") as dying:
        places = iter([dying, client._running()])
        monkeypatch.setattr(client, "_running", lambda: next(places))
        assert client.inspect("sample:restaurants")["row_count"] == 400


def test_a_process_that_dies_in_the_middle_of_an_answer_is_told(home, monkeypatch):
    client = ModelClient(home)
    piece = b'{"row": "base", "text": "a"}\n'
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n"
    with answering(head % (len(piece), piece)) as dying:
        monkeypatch.setattr(client, "_running", lambda: dying)
        stream = client.compare(ModelPart(), [], "x")
        assert next(stream) == {"row": "base", "text": "a"}
        with pytest.raises(StudioError, match="stopped while it was answering"):
            next(stream)


def test_a_process_that_cannot_start_says_why(home, monkeypatch):
    monkeypatch.setattr(client_module, "COMMAND", (sys.executable, "-c", "raise SystemExit('no such luck')"))
    with pytest.raises(StudioError) as caught:
        ModelClient(home).inspect("sample:restaurants")
    assert caught.value.message == "The model process ended while it was starting."
    assert caught.value.hint == "Its log ends with: no such luck"


def test_a_process_that_never_comes_is_not_waited_for_for_ever(home, monkeypatch):
    monkeypatch.setattr(client_module, "COMMAND", (sys.executable, "-c", "import time; time.sleep(60)"))
    client = ModelClient(home, start_seconds=0.5)
    with pytest.raises(StudioError, match="has not started within"):
        client.inspect("sample:restaurants")
    client._process.kill()


def test_a_dead_or_foreign_entry_is_not_believed(home):
    client = ModelClient(home)
    announce(home, 1)
    assert client.state() == "ready"
    place_file(home).write_text(json.dumps({"pid": os.getpid(), "create_time": 1.0, "port": 1}))
    assert client.state() == "stopped", "another process with that pid"
    place_file(home).write_text("{")
    assert client.state() == "stopped"


def test_a_process_of_another_version_is_replaced(home, monkeypatch):
    old = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    created = psutil.Process(old.pid).create_time()
    monkeypatch.setattr(client_module, "read_place", lambda _: Place(old.pid, created, 1, version="0.0.0"))
    monkeypatch.setattr(client_module, "COMMAND", (sys.executable, "-c", ""))
    with pytest.raises(StudioError):
        ModelClient(home).inspect("sample:restaurants")
    assert not psutil.pid_exists(old.pid)


def test_an_idle_process_ends_by_itself(home):
    thread = threading.Thread(target=run_until_idle, args=(home, 0.5))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert read_place(home).port is not None
    assert not log_file(home).exists()
