"""The one error a person is meant to read.

Every room raises `StudioError` for what a person can mend: it says what is wrong and where (`message`), and the way
out (`hint`). The page shows both, the command line prints both on one line, a run keeps both with its `category`.
Any other exception is a defect of the program and is reported as such.
"""

from __future__ import annotations

from typing import Literal, get_args

Category = Literal["input", "data", "model", "memory", "numbers", "disk", "network", "interrupted", "internal"]
CATEGORIES: tuple[str, ...] = get_args(Category)


class StudioError(Exception):
    """A problem a person can mend.

    message: one sentence, what is wrong and where.
    hint: one sentence, the way out; may be empty.
    category: the kind of problem, shown as a badge in the list of runs.
    """

    def __init__(self, message: str, hint: str = "", category: Category = "input"):
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.category: Category = category

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()
