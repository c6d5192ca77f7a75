"""The Hugging Face Hub: which files of a model are here, fetching those that are not, and every way that can fail.

Turns a Hub id into a local folder; nothing above this module talks to the Hub. What is in the cache is used as it
is: an adapter belongs to the weights it was trained on, so `main` is looked up once, and a newer commit is asked for
by its revision. The token is huggingface_hub's own business (HF_TOKEN or the standard login) and is never read here.
Page-safe: no torch, no transformers.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx2
from huggingface_hub import constants, list_models, model_info, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from prefix_studio.errors import StudioError
from prefix_studio.models.weights import WEIGHTS, WEIGHTS_INDEX, no_safetensors, weight_files

# Everything that describes a model but its weights: configuration, tokenizer, chat template, generation settings.
DESCRIPTION = ["*.json", "*.txt", "*.model", "*.jinja"]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
IN_SUBFOLDERS = "*/*"


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids the network."""
    return constants.is_offline_mode()


def reachable(timeout: float = 1.5) -> bool:
    """Whether the Hub answers at all, within `timeout` seconds. One small request, through the user's proxy if any."""
    if offline():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=timeout)
    except (httpx2.HTTPError, OSError):
        return False
    return True


def search(text: str, limit: int = 20) -> list[dict]:
    """Text generation models on the Hub that match, most downloaded first: id, downloads, gated, parameters or None."""
    if not reachable():  # asked first, because the search itself would try again for half a minute
        raise no_search()
    try:
        found = list_models(
            search=text,
            pipeline_tag="text-generation",
            sort="downloads",
            limit=limit,
            expand=["downloads", "gated", "safetensors"],
        )
        return [
            {
                "id": model.id,
                "downloads": model.downloads or 0,
                "gated": bool(model.gated),
                "parameters": model.safetensors.total if model.safetensors else None,
            }
            for model in found
        ]
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise no_search() from error


def fetch_description(model_id: str, revision: str | None) -> Path:
    """The folder with the model's configuration and tokenizer, from the cache, or else downloaded."""
    folder = cached(model_id, revision, DESCRIPTION)
    if folder and (folder / "config.json").is_file() and any((folder / name).is_file() for name in TOKENIZER_FILES):
        return folder
    return download(model_id, revision, DESCRIPTION)


def fetch_weights(model_id: str, revision: str | None) -> Path:
    """The folder with description and safetensors weights, from the cache, or else downloaded.

    Raises StudioError when the model has no safetensors weights, or the disk has no room for them.
    """
    folder = fetch_description(model_id, revision)
    missing = [name for name in weight_files(folder) if not (folder / name).is_file()]
    if missing:
        # By the commit whose description was read: `main` may have moved on meanwhile.
        commit = folder.name
        check_room(model_id, commit, missing)
        folder = download(model_id, commit, missing)
        if not all((folder / name).is_file() for name in missing):
            raise no_safetensors(model_id)
    return folder


def has_safetensors(model_id: str, revision: str | None) -> bool | None:
    """Whether the Hub lists safetensors weights for the model; None when the Hub cannot be asked."""
    try:
        files = {file.rfilename for file in model_info(model_id, revision=revision, timeout=10).siblings or ()}
    except (HfHubHTTPError, httpx2.HTTPError, OSError):
        return None
    return WEIGHTS in files or WEIGHTS_INDEX in files


def cached(model_id: str, revision: str | None, patterns: list[str]) -> Path | None:
    """The model's folder in the cache when the files are there, without any request."""
    try:
        return Path(
            snapshot_download(
                model_id,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=[IN_SUBFOLDERS],
                local_files_only=True,
            )
        )
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise not_an_id(model_id) from error


def download(model_id: str, revision: str | None, patterns: list[str]) -> Path:
    """Fetch the files and return their folder. Every failure becomes one plain sentence."""
    try:
        return Path(
            snapshot_download(
                model_id, revision=revision, allow_patterns=patterns, ignore_patterns=[IN_SUBFOLDERS], max_workers=4
            )
        )
    except HFValidationError as error:
        raise not_an_id(model_id) from error
    except GatedRepoError as error:
        raise StudioError(
            f"{model_id} is gated: its authors ask everyone to accept their licence first.",
            f"Accept it at {constants.ENDPOINT}/{model_id}, then set HF_TOKEN or run `hf auth login`.",
            "model",
        ) from error
    except RepositoryNotFoundError as error:
        raise StudioError(
            f"The Hub has no model {model_id!r}, or it is private.",
            "Check the spelling (OWNER/NAME); for a private model set HF_TOKEN or run `hf auth login`.",
            "model",
        ) from error
    except RevisionNotFoundError as error:
        raise StudioError(
            f"The model {model_id} has no revision {revision!r}.", "Leave revision empty for the newest.", "model"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        why = "HF_HUB_OFFLINE is set" if offline() else f"the Hub {what_it_did(error.__cause__)}"
        raise StudioError(
            f"The model {model_id} is not on this machine, and {why}.",
            "Choose the bundled model or a local folder, or connect and try again.",
            "network",
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        raise StudioError(
            f"The download of {model_id} failed: the Hub {what_it_did(error)}.",
            "Try again; what has arrived is kept.",
            "network",
        ) from error
    except OSError as error:
        raise StudioError(
            f"The download of {model_id} cannot be stored in {constants.HF_HUB_CACHE}: {error.strerror or error}.",
            "Make room there, or point HF_HOME at a larger disk.",
            "disk",
        ) from error


def what_it_did(error: BaseException | None) -> str:
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return "does not accept the token (HF_TOKEN or the login)" if status == 401 else f"answered {status}"
    return "does not answer from here"


def check_room(model_id: str, revision: str, names: list[str]) -> None:
    """Refuse a download that the disk cannot hold, where the Hub tells the sizes."""
    try:
        files = model_info(model_id, revision=revision, files_metadata=True, timeout=10).siblings or ()
    except (HfHubHTTPError, httpx2.HTTPError, OSError):
        return  # the download itself will say what is wrong
    wanted = sum(file.size or 0 for file in files if file.rfilename in names)
    place = Path(constants.HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if wanted > free:
        raise StudioError(
            f"{model_id} needs {wanted / 1e9:.1f} GB on disk, and {place} has {free / 1e9:.1f} GB free.",
            "Make room there, or point HF_HOME at a larger disk.",
            "disk",
        )


def no_search() -> StudioError:
    return StudioError(
        "The Hub cannot be searched: it does not answer from here.",
        "Work with a model in the cache, a local folder or the bundled one, or try again later.",
        "network",
    )


def not_an_id(model_id: str) -> StudioError:
    return StudioError(
        f"{model_id!r} is neither a folder on this machine nor a Hub id.",
        "Write a folder's path, or a Hub id such as HuggingFaceTB/SmolLM2-135M.",
        "model",
    )
