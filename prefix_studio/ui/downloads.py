"""Files on their way out of the page.

The studio's home is never served. What a person may download is copied to Gradio's own cache first, in a folder with a
name nobody can guess; Gradio clears that cache by age.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from gradio.utils import get_upload_folder


def servable(path: Path | str) -> str:
    """A copy of the file where Gradio may serve it from."""
    path = Path(path)
    cache = Path(get_upload_folder())
    cache.mkdir(parents=True, exist_ok=True)
    copy = Path(tempfile.mkdtemp(prefix="download-", dir=cache)) / path.name
    shutil.copyfile(path, copy)
    return str(copy)
