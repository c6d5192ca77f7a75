"""Adapters as zip files: out with card and recipe, in with every suspicion.

Nothing in an archive is trusted: names that leave the folder, links, sizes and pickles are refused before a byte of
the adapter is used.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from prefix_studio.adapters.card import model_card
from prefix_studio.adapters.files import read_facts
from prefix_studio.errors import StudioError
from prefix_studio.prefix.layout import CONFIG_NAME, PICKLES, WEIGHTS_NAME
from prefix_studio.recipe import Recipe
from prefix_studio.settings import MEGABYTE

MAX_FILES = 100
MAX_UNPACKED_BYTES = 2048 * MEGABYTE
ADAPTER_FILES = (CONFIG_NAME, WEIGHTS_NAME)
# What a run leaves beside its adapter and an archive carries along.
COMPANIONS = ("recipe.yaml", "result.json", "samples.json")


def write_archive(folder: Path, out: Path, *, name: str) -> Path:
    """Zip the adapter in `folder` with its card, and the recipe and samples beside it, to `out`. Returns `out`."""
    facts = read_facts(folder)
    companions = {file: path for file in COMPANIONS for path in (folder / file, folder.parent / file) if path.is_file()}
    recipe = travelling(Recipe.load(companions["recipe.yaml"])) if "recipe.yaml" in companions else None
    card = model_card(
        name,
        base_model=facts.base_model,
        config=facts.config,
        recipe=recipe,
        result=read_json(companions.get("result.json")),
        samples=read_json(companions.get("samples.json")) or (),
    )
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(
                CONFIG_NAME, json.dumps(facts.config | {"base_model_name_or_path": facts.base_model}, indent=2)
            )
            archive.write(folder / WEIGHTS_NAME, WEIGHTS_NAME)
            archive.writestr("README.md", card)
            if recipe:
                archive.writestr("recipe.yaml", recipe.to_yaml())
            for file in companions.keys() - {"recipe.yaml"}:
                archive.write(companions[file], file)
        partial.replace(out)
    except OSError as error:
        raise StudioError(f"{out} cannot be written: {error.strerror}.", "Choose another place.", "disk") from error
    finally:
        partial.unlink(missing_ok=True)
    return out


def travelling(recipe: Recipe) -> Recipe:
    """The recipe as it may leave this machine: files by their names, without the folders they lie in here."""

    def bare(value: Any) -> Any:
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    data = {"source": bare(recipe.data.source), "validation": bare(recipe.data.validation)}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})


def unpack_archive(path: Path, folder: Path) -> None:
    """Unpack an adapter's zip into the new `folder`, flat. Raises StudioError and leaves nothing when it is not one."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = checked_members(archive)
            folder.mkdir(parents=True)
            for name, info in members.items():
                (folder / name).write_bytes(archive.read(info))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise StudioError(f"{path.name} is not a zip file that can be read: {error}.", "Download it again.") from error
    except OSError as error:
        raise StudioError(f"{path.name} cannot be unpacked: {error.strerror or error}.", category="disk") from error


def checked_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files to unpack by their flat name: the adapter's folder inside the zip, and nothing that is unsafe."""
    files = [info for info in archive.infolist() if not info.is_dir()]
    if len(files) > MAX_FILES:
        raise StudioError(f"The zip holds {len(files)} files; an adapter has at most {MAX_FILES}.")
    if sum(info.file_size for info in files) > MAX_UNPACKED_BYTES:
        raise StudioError(f"The zip unpacks to more than {MAX_UNPACKED_BYTES // MEGABYTE} MB.")
    for info in files:
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if ".." in parts or info.filename.startswith(("/", "\\")) or ":" in parts[0]:
            raise StudioError(f"The zip holds the path {info.filename!r}, which leaves its folder.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise StudioError(f"The zip holds a link, {info.filename!r}.")
        if PurePosixPath(info.filename).suffix in PICKLES:
            raise StudioError(
                f"The zip holds a pickle, {info.filename!r}, which can run code when it is opened.",
                "Save the adapter with safetensors.",
            )
    configs = [PurePosixPath(info.filename) for info in files if PurePosixPath(info.filename).name == CONFIG_NAME]
    if len(configs) != 1:
        raise StudioError(f"The zip holds {len(configs)} files named {CONFIG_NAME}; an adapter has one.")
    root = configs[0].parent
    wanted = {*ADAPTER_FILES, *COMPANIONS, "README.md"}
    paths = {info: PurePosixPath(info.filename) for info in files}
    return {path.name: info for info, path in paths.items() if path.parent == root and path.name in wanted}


def read_json(path: Path | None) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path else None
