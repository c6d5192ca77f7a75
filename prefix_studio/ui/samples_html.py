"""What a finished run wrote for held-back rows, before and after: a table of a few rows.

Pure: the run's samples.json in, escaped HTML out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefix_studio.ui.fragments import badge, escape

SHOWN = 8
LONGEST = 600


def samples_html(folder: Path) -> str:
    """The table of a run's folder; empty before the run has written any."""
    try:
        samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not samples:
        return ""
    return f'<div class="ps-samples">{"".join(map(sample_html, samples[:SHOWN]))}</div>'


def sample_html(sample: dict[str, Any]) -> str:
    """One held-back row: prompt, base, tuned, and what the data says."""
    references = [reference.strip() for reference in sample.get("references") or []]
    exact = badge("exactly right", "good") if sample["tuned"].strip() in references else ""
    said = f"<dt>The row says</dt><dd>{shown(references[0])}</dd>" if references else ""
    return (
        f'<dl><dt>Prompt</dt><dd class="ps-faint">{shown(sample["prompt"])}</dd>'
        f"<dt>Base</dt><dd>{shown(sample['base'])}</dd>"
        f"<dt>Tuned</dt><dd><b>{shown(sample['tuned'])}</b> {exact}</dd>{said}</dl>"
    )


def shown(text: str) -> str:
    text = text.strip()
    return escape(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")
