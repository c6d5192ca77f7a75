"""A Hub on loopback with the few endpoints that looking at and downloading a model needs, and its ways of refusing.

`serve(repos)` runs in a thread; `client_environment(url, cache)` is what a subprocess needs to talk to it and to
nobody else. Every request is noted in `requests`, so that a test can tell what was asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_let_me_in"
COMMIT = "c0ffee" + "0" * 34


@dataclass
class Repo:
    folder: Path
    gated: bool = False

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir()) if path.is_file()}


@dataclass
class LoopbackHub:
    url: str
    requests: list[str] = field(default_factory=list)


def make_handler(repos: dict[str, Repo], seen: list[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = unquote(urlsplit(self.path).path)
            seen.append(f"{self.command} {path}")
            if path == "/broken" or "/broken/" in path:
                return self.refuse(500, "", "Internal Error")
            if path == "/":
                return self.answer(b"hello")
            if path == "/api/models":
                return self.answer_json([describe(name, repo) for name, repo in repos.items()])
            match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
            if match:
                return self.api(*match.groups())
            match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
            if match:
                return self.resolve(*match.groups())
            return self.refuse(404, "", "Not Found")

        def api(self, name, what, revision):
            repo = repos.get(name)
            if repo is None:
                return self.refuse(401, "RepoNotFound", "Repository not found")
            if revision not in (None, "main", COMMIT):
                return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            if what == "tree":
                return self.answer_json([entry(file, content) for file, content in repo.files().items()])
            return self.answer_json(describe(name, repo))

        def resolve(self, name, revision, file):
            repo = repos.get(name)
            if repo is None:
                return self.refuse(401, "RepoNotFound", "Repository not found")
            if repo.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return self.refuse(401, "GatedRepo", f"Access to model {name} is restricted.")
            content = repo.files().get(file)
            if content is None:
                return self.refuse(404, "EntryNotFound", "Entry not found")
            return self.answer(content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

        def refuse(self, status, code, message):
            self.answer(b"", {"X-Error-Code": code, "X-Error-Message": message}, status)

        def answer_json(self, value):
            self.answer(json.dumps(value).encode(), {"Content-Type": "application/json"})

        def answer(self, body, headers=None, status=200):
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    return Handler


def describe(name: str, repo: Repo) -> dict:
    siblings = [{"rfilename": file, "size": len(content)} for file, content in repo.files().items()]
    return {"id": name, "sha": COMMIT, "gated": "auto" if repo.gated else False, "downloads": 7, "siblings": siblings}


def entry(file: str, content: bytes) -> dict:
    return {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@contextmanager
def serve(repos: dict[str, Repo]):
    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(repos, requests))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield LoopbackHub(f"http://127.0.0.1:{server.server_port}", requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def client_environment(url: str, cache: Path, **more: str) -> dict[str, str]:
    """Variables for a subprocess that knows this Hub, an empty cache, and no login of the person running the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {
        **inherited,
        "HF_ENDPOINT": url,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
        **more,
    }
