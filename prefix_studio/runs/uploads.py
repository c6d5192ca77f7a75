"""Files that people hand in, kept by their content: uploads/<sha256>/<name>.

A browser's upload lies in a temporary folder that is emptied one day; a run must find its rows again after any restart.
So a file is copied here first, and the recipe names the copy. The same content is kept once under the same name.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import unicodedata
from pathlib import Path

from prefix_studio.disk import sync_folder
from prefix_studio.errors import StudioError
from prefix_studio.settings import MEGABYTE, Settings

CHUNK = MEGABYTE
LONGEST_NAME = 60  # characters; four bytes each still fit in a file system's 255
WINDOWS_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def store_upload(settings: Settings, path: Path | str, name: str | None = None) -> Path:
    """Copy the file at `path` into the uploads and return the copy's path.

    name: what the person called it; its folders and odd characters are dropped, its ending is kept.
    Raises StudioError when the file is missing, no file, larger than settings.max_upload_bytes, or cannot be kept.
    """
    path = Path(path)
    name = safe_name(name or path.name)
    if not path.is_file():
        raise StudioError(f"There is no file {name}.", "Choose it again.")
    settings.uploads.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=settings.uploads, prefix=".partial-")
    try:
        with os.fdopen(descriptor, "wb") as copy:
            digest = copy_within_limit(path, copy, settings.max_upload_bytes, name)
            copy.flush()
            os.fsync(copy.fileno())
        kept = settings.uploads / digest / name
        kept.parent.mkdir(exist_ok=True)
        Path(partial).replace(kept)
    except OSError as error:
        raise StudioError(f"{name} cannot be kept: {error.strerror}.", "Make room on the disk.", "disk") from error
    finally:
        Path(partial).unlink(missing_ok=True)
    sync_folder(kept.parent)
    sync_folder(settings.uploads)
    return kept


def copy_within_limit(path: Path, copy: object, limit: int, name: str) -> str:
    """Copy chunk by chunk and return the content's sha256; stop at the limit, whatever the size was said to be."""
    digest = hashlib.sha256()
    copied = 0
    with path.open("rb") as source:
        while chunk := source.read(CHUNK):
            copied += len(chunk)
            if copied > limit:
                raise StudioError(
                    f"{name} is larger than {limit // MEGABYTE} MB, the limit of this studio.",
                    "Hand in fewer rows, or set PREFIX_STUDIO_MAX_UPLOAD_MB.",
                )
            digest.update(chunk)
            copy.write(chunk)  # type: ignore[attr-defined]
    return digest.hexdigest()


def safe_name(name: str) -> str:
    """A name that is one plain file on every system: `../../etc/passwd` becomes `passwd`."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    name = re.sub(r"[^\w.() -]", "_", name).strip(" .")
    if WINDOWS_DEVICES.fullmatch(name):
        name = f"_{name}"
    stem, dot, ending = name.rpartition(".")
    if dot and len(ending) <= 10:
        return f"{stem[: LONGEST_NAME - len(ending) - 1]}.{ending}"
    return name[:LONGEST_NAME] or "data"
