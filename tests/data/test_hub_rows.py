"""Data sets of a Hub on loopback: one that is there, and everything that is not."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from prefix_studio.data.hub import readable
from prefix_studio.settings import PROJECT

COMMIT = "c0ffee" + "0" * 34
FILES = {"train.csv": b"text,label\na,x\nb,y\n", "test.csv": b"text,label\nc,z\n", "README.md": b"---\n---\n"}
ASK = """
import json, sys
from prefix_studio.data.read import read_rows, row_values
from prefix_studio.errors import StudioError
for source in sys.argv[1:]:
    try:
        print(json.dumps(list(row_values(read_rows(source)))))
    except StudioError as error:
        print(json.dumps([error.category, str(error)]))
"""


class Hub(BaseHTTPRequestHandler):
    """What loading a set asks for: the set's description, its tree, its files."""

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        found = re.fullmatch(r"/datasets/me/rows/resolve/[^/]+/(.+)", path)
        if found and found[1] in FILES:
            content = FILES[found[1]]
            return self.answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', **{"X-Repo-Commit": COMMIT})
        if path.startswith("/api/datasets/me/rows"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in FILES.items()
            ]
            about = {"id": "me/rows", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
            return self.answer(json.dumps(tree if "/tree/" in path else about).encode())
        error = "EntryNotFound" if "me/rows" in path else "RepoNotFound"
        return self.answer(b"", 404, **{"X-Error-Code": error, "X-Error-Message": "not here"})

    do_HEAD = do_GET

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def ask(tmp_path):
    """ask(source, ...) -> what a fresh process that knows only this Hub reads, or is told."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}

    def ask_for(*sources: str, endpoint: str = f"http://127.0.0.1:{server.server_port}") -> list:
        environment = {
            **inherited,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "hf"),
            "PYTHONPATH": str(PROJECT),
        }
        asked = subprocess.run(
            [sys.executable, "-c", ASK, *sources],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert asked.returncode == 0, asked.stderr
        return [json.loads(line) for line in asked.stdout.splitlines()]

    yield ask_for
    server.shutdown()
    server.server_close()
    thread.join()


def test_splits_are_read_and_what_is_not_there_is_told(ask):
    train, test, no_split, no_config, no_set = ask(
        "hub:me/rows", "hub:me/rows::test", "hub:me/rows::nope", "hub:me/rows:conf", "hub:me/none"
    )
    assert train == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert test == [{"text": "c", "label": "z"}]
    assert no_split == ["data", "me/rows has no split 'nope'. Known splits: train, test."]
    assert no_config[1].startswith("me/rows cannot be loaded: BuilderConfig 'conf' not found.")
    assert no_config[1].endswith("Write hub:me/rows:CONFIG with one of: default.")
    assert no_set[1].startswith("There is no data set me/none on the Hub, or this login may not read it.")


def test_a_hub_out_of_reach_is_told_at_once(ask):
    (told,) = ask("hub:me/rows", endpoint="http://127.0.0.1:9")
    assert told[0] == "network"
    assert told[1].startswith("The Hub cannot be reached, so me/rows cannot be loaded.")


def test_class_numbers_become_names_and_pictures_stay_out():
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"]), "photo": Image()})
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, None], "photo": [None, None]}, features=features)
    assert list(readable(rows)) == [{"text": "a", "label": "good"}, {"text": "b", "label": None}]
