"""Prefix Studio's page: settings -> studio -> UI -> launch. A Space runs this file unchanged.

GRADIO_SERVER_NAME, GRADIO_SERVER_PORT and Gradio's other variables are respected; PREFIX_STUDIO_HOME says where runs
are kept, PREFIX_STUDIO_AUTH="name:password,name:password" asks for a login.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from prefix_studio.errors import StudioError
from prefix_studio.runs.supervisor import keep_supervisor
from prefix_studio.settings import Settings
from prefix_studio.ui.page import build
from prefix_studio.ui.studio import Studio
from prefix_studio.ui.theme import ICON, STYLE_SHEET, studio_theme

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - a Space is reached from outside its container


def main() -> int:
    try:
        settings = Settings.from_environment().prepare()
    except StudioError as error:
        print(error, file=sys.stderr)
        return 2
    page = build(Studio.open(settings))
    page.queue(default_concurrency_limit=8)
    page.launch(
        server_name=os.environ.get("GRADIO_SERVER_NAME") or (LOOPBACK if settings.place == "local" else EVERYWHERE),
        auth=list(settings.logins) or None,
        max_file_size=settings.max_upload_bytes,
        blocked_paths=[str(settings.home)],
        theme=studio_theme(),
        css_paths=STYLE_SHEET,
        favicon_path=ICON,
        footer_links=["api"],
        run_history=False,
        prevent_thread_lock=True,
    )
    keep_supervisor(settings)  # after the page is up: it takes the processor's time to start
    wait_to_be_stopped()
    page.close(verbose=False)
    return 0


def wait_to_be_stopped() -> None:
    """Until Ctrl-C or SIGTERM; runs go on in their own processes."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.wait(1.0):  # with a timeout, as Windows cannot interrupt an endless wait
        pass


if __name__ == "__main__":
    sys.exit(main())
