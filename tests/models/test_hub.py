"""Models from a Hub, over loopback: what is downloaded, what is not, and every refusal in plain words.

The Hub's client reads HF_ENDPOINT when it is imported, so each conversation happens in a fresh interpreter; one
interpreter plays a whole list of scenes, and only those that load a model pay for importing torch.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from prefix_studio.settings import PROJECT

specification = importlib.util.spec_from_file_location("loopback_hub", Path(__file__).with_name("loopback_hub.py"))
loopback_hub = sys.modules["loopback_hub"] = importlib.util.module_from_spec(specification)
specification.loader.exec_module(loopback_hub)

# Runs each scene [what, id, revision] and prints one line of JSON: its result or its StudioError.
CLIENT = """
import importlib, json, sys
from prefix_studio.errors import StudioError
from prefix_studio.recipe import ModelPart

def room(name):
    return importlib.import_module("prefix_studio.models." + name)

actions = {
    "reachable": lambda name, revision: room("hub").reachable(),
    "search": lambda name, revision: room("hub").search(name),
    "describe": lambda name, revision: str(room("hub").fetch_description(name, revision)),
    "weigh": lambda name, revision: str(room("hub").fetch_weights(name, revision)),
    "model": lambda name, revision: sum(p.numel() for p in room("load").load_model(ModelPart(id=name)).parameters()),
    "tokenizer": lambda name, revision: room("load").load_tokenizer(ModelPart(id=name))("a b")["input_ids"],
    "fingerprint": lambda name, revision: room("load").fingerprint(ModelPart(id=name)),
    "check": lambda name, revision: room("check").check_model(ModelPart(id=name)),
}
for what, name, revision in json.loads(sys.argv[1]):
    try:
        answer = {"result": actions[what](name, revision)}
    except StudioError as error:
        answer = {"error": error.message, "hint": error.hint, "category": error.category}
    print(json.dumps(answer))
"""


def play(environment: dict[str, str], *scenes: tuple) -> list[dict]:
    padded = json.dumps([(*scene, *[None] * (3 - len(scene))) for scene in scenes])
    process = subprocess.run(
        [sys.executable, "-c", CLIENT, padded],
        env=environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.fixture
def repos(tiny_folder, tmp_path):
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (pickled / name).write_bytes((tiny_folder / name).read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"never opened")
    return {
        "ada/tiny": loopback_hub.Repo(tiny_folder),
        "ada/gated": loopback_hub.Repo(tiny_folder, gated=True),
        "ada/pickled": loopback_hub.Repo(pickled),
    }


def test_a_model_is_checked_without_its_weights_then_downloaded_and_kept(repos, tmp_path):
    with loopback_hub.serve(repos) as hub:
        environment = loopback_hub.client_environment(hub.url, tmp_path / "cache")
        reachable, found, described, pickled, check, key, model, tokens, same_key = play(
            environment,
            ("reachable", "x"),
            ("search", "tiny"),
            ("describe", "ada/tiny"),
            ("check", "ada/pickled"),
            ("check", "ada/tiny"),
            ("fingerprint", "ada/tiny"),
            ("model", "ada/tiny"),
            ("tokenizer", "ada/tiny"),
            ("fingerprint", "ada/tiny"),
        )
        assert reachable["result"] is True
        assert {"id": "ada/gated", "downloads": 7, "gated": True, "parameters": None} in found["result"]
        assert pickled["result"]["supported"] is False
        assert pickled["result"]["reason"].startswith("There are no safetensors weights")
        assert check["result"]["supported"] is True
        assert check["result"]["layers"][0]["key_shape"] == [2, 8]
        assert model["result"] == check["result"]["all_parameters"]
        assert len(tokens["result"]) >= 2
        assert same_key == key, "the weights' arrival does not change who the model is"
        downloads = [request for request in hub.requests if request.startswith("GET") and "safetensors" in request]
        assert len(downloads) == 1, "the weights are fetched once, for the model and not for the check"

        asked_before = len(hub.requests)
        again = play(environment, ("weigh", "ada/tiny"))
        assert again == [described], "weights and description share a folder"
        assert len(hub.requests) == asked_before, "what is in the cache needs no request"

    offline = play({**environment, "HF_HUB_OFFLINE": "1"}, ("weigh", "ada/tiny"), ("reachable", "x"))
    assert offline == [described, {"result": False}]


def test_the_description_is_fetched_without_the_weights(repos, tmp_path):
    with loopback_hub.serve(repos) as hub:
        environment = loopback_hub.client_environment(hub.url, tmp_path / "cache")
        (described,) = play(environment, ("describe", "ada/tiny"))
    assert (Path(described["result"]) / "tokenizer.json").is_file()
    assert not any("safetensors" in request for request in hub.requests)


def test_refusals_are_one_plain_sentence_and_a_way_out(repos, tmp_path):
    with loopback_hub.serve(repos) as hub:
        environment = loopback_hub.client_environment(hub.url, tmp_path / "cache")
        unknown, gated, revision, pickled, broken, no_id = play(
            environment,
            ("describe", "ada/nowhere"),
            ("describe", "ada/gated"),
            ("describe", "ada/tiny", "v9"),
            ("weigh", "ada/pickled"),
            ("describe", "broken/model"),
            ("describe", "two words"),
        )
    assert unknown["error"] == "The Hub has no model 'ada/nowhere', or it is private."
    assert gated["error"] == "ada/gated is gated: its authors ask everyone to accept their licence first."
    assert gated["hint"] == f"Accept it at {hub.url}/ada/gated, then set HF_TOKEN or run `hf auth login`."
    assert revision["error"] == "The model ada/tiny has no revision 'v9'."
    assert pickled["error"].startswith("There are no safetensors weights (model.safetensors) in ada/pickled; pickle")
    assert not [request for request in hub.requests if request.endswith(".bin")]
    assert broken["error"] == "The model broken/model is not on this machine, and the Hub answered 500."
    assert broken["category"] == "network"
    assert no_id["error"] == "'two words' is neither a folder on this machine nor a Hub id."


def test_the_login_opens_a_gated_model_and_is_never_written_out(repos, tmp_path):
    with loopback_hub.serve(repos) as hub:
        cache = tmp_path / "cache"
        environment = loopback_hub.client_environment(hub.url, cache, HF_TOKEN=loopback_hub.TOKEN)
        (welcome,) = play(environment, ("describe", "ada/gated"))
        wrong = loopback_hub.client_environment(hub.url, tmp_path / "other", HF_TOKEN="hf_wrong_one")
        (refused,) = play(wrong, ("describe", "ada/gated"))
    assert (Path(welcome["result"]) / "config.json").is_file()
    assert "is gated" in refused["error"]
    assert "hf_wrong_one" not in json.dumps(refused)
    assert not any(loopback_hub.TOKEN.encode() in path.read_bytes() for path in cache.rglob("*") if path.is_file())


def test_offline_says_so_at_once(tmp_path):
    nobody = loopback_hub.client_environment("http://127.0.0.1:9", tmp_path / "cache")
    answers = play(nobody, ("reachable", "x"), ("describe", "ada/tiny"), ("search", "tiny"))
    assert answers[0]["result"] is False
    assert answers[1]["error"] == "The model ada/tiny is not on this machine, and the Hub does not answer from here."
    assert answers[1]["category"] == "network"
    assert answers[2]["error"] == "The Hub cannot be searched: it does not answer from here."
    told = play({**nobody, "HF_HUB_OFFLINE": "1"}, ("weigh", "ada/tiny"))
    assert told[0]["error"] == "The model ada/tiny is not on this machine, and HF_HUB_OFFLINE is set."
