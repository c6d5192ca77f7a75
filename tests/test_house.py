"""The house keeps its rules: floors, the page without torch, no pickle, one style."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

from prefix_studio.settings import PROJECT

PACKAGE = PROJECT / "prefix_studio"
FLOORS = [
    {"__main__"},
    {"ui"},
    {"runs", "server"},
    {"training", "adapters"},
    {"generation"},
    {"prefix", "data", "models"},
    {"recipe"},
    {"settings", "disk"},
    {"errors"},
]
LEVEL = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
PAGE_MODULES = [
    "prefix_studio.ui.page",
    "prefix_studio.runs.table",
    "prefix_studio.runs.supervisor",
    "prefix_studio.server.client",
    "prefix_studio.adapters.shelf",
    "prefix_studio.settings",
    "prefix_studio.recipe",
]


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_go_down(path):
    here = room_of(path)
    for name in imports_of(path):
        if not name.startswith("prefix_studio."):
            continue
        there = name.split(".")[1]
        assert there == here or LEVEL[there] >= LEVEL[here], f"{path} imports {name}, which is above it"


def test_only_the_page_imports_gradio():
    users = {room_of(path) for path in modules() for name in imports_of(path) if name.split(".")[0] == "gradio"}
    assert users == {"ui"}


def test_nothing_pickles():
    forbidden = {"pickle", "dill", "cloudpickle", "joblib", "shelve"}
    for path in modules():
        assert not forbidden & {name.split(".")[0] for name in imports_of(path)}, path
        assert not re.search(r"(?<!safetensors\.)torch\.(save|load)\(", path.read_text()), path
        assert "trust_remote_code=True" not in path.read_text(), path


def test_the_pages_process_never_loads_torch():
    code = f"""
import importlib, sys
for name in {PAGE_MODULES}:
    importlib.import_module(name)
print(sorted({{"torch", "transformers", "peft", "datasets"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_the_style_is_ruffs(arguments):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "."], capture_output=True, text=True, cwd=PROJECT, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_readmes_map_names_every_module():
    readme = (PROJECT / "README.md").read_text()
    missing = [str(path.relative_to(PROJECT)) for path in modules() if f"    {path.name} " not in readme]
    assert missing == []
