"""Short messages in the corner of the page, for a click that could not be done.

The text is escaped, as toasts show HTML. Gradio shows them for queued events only: wire such a handler with the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import gradio as gr

from prefix_studio.errors import StudioError
from prefix_studio.ui.fragments import escape

Result = TypeVar("Result")


def told(handler: Callable[..., Result]) -> Callable[..., Result]:
    """The handler, with a StudioError told in a toast and the page left as it is."""

    @wraps(handler)
    def attempt(*arguments: Any, **named: Any) -> Result:
        try:
            return handler(*arguments, **named)
        except StudioError as error:
            raise gr.Error(escape(str(error)), title="That did not work", print_exception=False) from error

    return attempt
