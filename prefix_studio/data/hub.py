"""Data sets of the Hub: loaded by `datasets`, with the Hub's refusals told in one sentence each.

Knows `hub:OWNER/NAME[:CONFIG[:SPLIT]]` and the Hub's ways; only sets made of plain files, as no set's code is ever
run. What was downloaded stays in the standard Hugging Face cache.
"""

from __future__ import annotations

from pathlib import Path

import httpx2
from datasets import Audio, ClassLabel, Dataset, Image, Value, Video, get_dataset_config_names, load_dataset
from datasets.exceptions import DatasetNotFoundError, DatasetsError
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from prefix_studio.data.table import first_line
from prefix_studio.errors import StudioError

HUB_SECONDS = 10.0


def read_hub(source: str, token: str | None) -> Dataset:
    """The rows of one split (`train`, or the first, unless told).

    Raises StudioError: category network when the Hub cannot be reached, data for everything it does not have.
    """
    name, _, rest = source.removeprefix("hub:").partition(":")
    config, _, split = rest.partition(":")
    try:
        validate_repo_id(name)
        if Path(name).exists():  # `datasets` would take the folder and never ask the Hub
            raise StudioError(
                f"{name} is also a folder here, which hides the Hub's data set.", "Start in another folder.", "data"
            )
        if not HF_HUB_OFFLINE:
            HfApi(token=token).dataset_info(name, timeout=HUB_SECONDS)  # answers sooner and plainer than load_dataset
        found = load_dataset(name, config or None, token=token)
    except (RepositoryNotFoundError, DatasetNotFoundError, HFValidationError) as error:
        raise StudioError(
            f"There is no data set {name} on the Hub, or this login may not read it.",
            "Check the name, accept its terms on the Hub, or log in with `hf auth login`.",
            "data",
        ) from error
    except HfHubHTTPError as error:
        raise StudioError(f"The Hub refused {name}: {first_line(error)}.", "Try again later.", "network") from error
    except (OfflineModeIsEnabled, ConnectionError, httpx2.TransportError) as error:
        raise StudioError(
            f"The Hub cannot be reached, so {name} cannot be loaded.",
            "Check the connection, or download the data elsewhere and give the path of the file.",
            "network",
        ) from error
    except (ValueError, OSError, DatasetsError) as error:
        raise StudioError(f"{name} cannot be loaded: {first_line(error)}.", config_hint(name, token), "data") from error
    if split and split not in found:
        raise StudioError(f"{name} has no split {split!r}.", f"Known splits: {', '.join(found)}.", "data")
    return readable(found[split or ("train" if "train" in found else next(iter(found)))])


def config_hint(name: str, token: str | None) -> str:
    try:
        known = ", ".join(get_dataset_config_names(name, token=token))
    except Exception:  # a hint must not hide the error it belongs to
        return "Check the configuration's name."
    return f"Write hub:{name}:CONFIG with one of: {known}."


def readable(rows: Dataset) -> Dataset:
    """The same rows with class numbers as their names, and without pictures, sound and film."""
    media = [name for name, feature in rows.features.items() if isinstance(feature, Audio | Image | Video)]
    labels = {name: feature for name, feature in rows.features.items() if isinstance(feature, ClassLabel)}
    rows = rows.remove_columns(media)
    if not labels:
        return rows

    def named(batch: dict[str, list]) -> dict[str, list]:
        return {
            name: [None if value is None or value < 0 else feature.int2str(value) for value in batch[name]]
            for name, feature in labels.items()
        }

    features = rows.features.copy()
    features.update(dict.fromkeys(labels, Value("string")))
    return rows.map(named, batched=True, features=features)
