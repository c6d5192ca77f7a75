"""Where the studio lives and what machine this is.

Knows environment variables and folders, nothing of models, runs or pages. Importing it costs nothing: no torch.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from filelock import FileLock

from prefix_studio.errors import StudioError

PROJECT = Path(__file__).resolve().parent.parent
ASSETS = PROJECT / "assets"
BUNDLED_MODEL = ASSETS / "base-model"
SAMPLES = ASSETS / "samples"

# For processes that load a model, set before it is imported: neither bars nor advice where a person or a program
# reads, and threads that sleep rather than spin while they wait for each other, which on a busy machine costs a step
# a multiple of its time.
LIBRARY_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",
}

LOCAL_OWNER = "local"
MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """The studio's home, limits and place. `from_environment` is the usual way to make one."""

    home: Path
    place: Literal["local", "space", "zerogpu"] = "local"
    logins: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    max_upload_bytes: int = 1024 * MEGABYTE
    devices: tuple[str, ...] | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Settings from PREFIX_STUDIO_HOME, PREFIX_STUDIO_AUTH, PREFIX_STUDIO_MAX_UPLOAD_MB, PREFIX_STUDIO_DEVICES.

        Raises StudioError when a variable cannot be read.
        """
        home = environment.get("PREFIX_STUDIO_HOME")
        devices = environment.get("PREFIX_STUDIO_DEVICES")
        return cls(
            home=Path(home).expanduser().resolve() if home else default_home(environment),
            place=find_place(environment),
            logins=read_logins(environment.get("PREFIX_STUDIO_AUTH", "")),
            max_upload_bytes=read_megabytes(environment.get("PREFIX_STUDIO_MAX_UPLOAD_MB", "1024")),
            devices=tuple(name.strip() for name in devices.split(",") if name.strip()) if devices else None,
        )

    @property
    def database(self) -> Path:
        return self.home / "studio.db"

    @property
    def uploads(self) -> Path:
        return self.home / "uploads"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    @property
    def adapters(self) -> Path:
        return self.home / "adapters"

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """The devices that runs may take, one run each: every NVIDIA GPU, or one CPU slot."""
        return self.devices or find_gpus() or ("cpu",)

    def prepare(self) -> Settings:
        """Make the home's folders, readable by this person alone. Raises StudioError when that is refused."""
        try:
            for folder in (self.home, self.uploads, self.runs, self.adapters):
                folder.mkdir(parents=True, exist_ok=True)
            self.home.chmod(0o700)
        except OSError as error:
            raise StudioError(
                f"The studio's home {self.home} cannot be written: {error.strerror}.",
                "Set PREFIX_STUDIO_HOME to a folder of yours.",
                "disk",
            ) from error
        return self

    def token(self) -> str:
        """The secret that the page and the model process share; made on first use, in a file only its owner reads."""
        path = self.home / "token"
        with FileLock(self.home / "token.lock"):
            if not path.exists():
                partial = path.with_suffix(".partial")
                descriptor = os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
                with os.fdopen(descriptor, "w") as file:
                    file.write(secrets.token_urlsafe(32))
                partial.replace(path)
            return path.read_text()


def default_home(environment: Mapping[str, str]) -> Path:
    """The per-user data folder of this operating system; never the working directory or the temp folder."""
    if sys.platform == "win32":
        return Path(environment.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "prefix-studio"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/prefix-studio"
    return Path(environment.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "prefix-studio"


def find_place(environment: Mapping[str, str]) -> Literal["local", "space", "zerogpu"]:
    if environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "true"):
        return "zerogpu"
    return "space" if environment.get("SYSTEM") == "spaces" else "local"


def find_gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs, asked of the driver's own tool so that the page's process needs no torch."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        listing = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    count = sum(line.startswith("GPU ") for line in listing.splitlines())
    return tuple(f"cuda:{index}" for index in range(count))


def read_logins(text: str) -> tuple[tuple[str, str], ...]:
    """`name:password,name:password` as pairs."""
    pairs = [entry.partition(":") for entry in text.split(",") if entry.strip()]
    if any(not name.strip() or not password for name, _, password in pairs):
        raise StudioError(
            "PREFIX_STUDIO_AUTH is not a list of name:password pairs.", 'Write it as "ada:secret,grace:other".'
        )
    return tuple((name.strip(), password) for name, _, password in pairs)


def read_megabytes(text: str) -> int:
    try:
        megabytes = int(text)
    except ValueError:
        megabytes = 0
    if megabytes < 1:
        raise StudioError(f"PREFIX_STUDIO_MAX_UPLOAD_MB is {text!r}.", "Give a whole number of megabytes, 1 or more.")
    return megabytes * MEGABYTE
