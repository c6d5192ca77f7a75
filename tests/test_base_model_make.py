"""The bundled base model's generator, tokenizer, trainer and files, and the sample sets: made right, small, honest."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED, SAMPLES = ASSETS / "base-model", ASSETS / "samples"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def make():
    """The modules of the make folder, by name: they import each other as plain scripts do."""
    folder = str(BUNDLED / "make")
    sys.path.insert(0, folder)
    yield importlib.import_module
    sys.path.remove(folder)


@pytest.fixture(scope="module")
def texts(make) -> list[str]:
    corpus = make("corpus")
    return [corpus.text_of(document) for document in itertools.islice(corpus.documents(1), 1500)]


def sample_maker(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"make_{name}", SAMPLES / name / "make.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------------------------------------- the corpus


def test_the_corpus_is_decided_by_its_seed(make, texts):
    corpus = make("corpus")
    again = [corpus.text_of(document) for document in itertools.islice(corpus.documents(1), 200)]
    other = [corpus.text_of(document) for document in itertools.islice(corpus.documents(2), 200)]
    assert again == texts[:200]
    assert not set(other) & set(texts)


def test_the_corpus_knows_nothing_of_the_samples(make, texts):
    """Neither the separators nor the subjects of the samples, nor a phrase of the house style or a label."""
    house = sample_maker("restaurants")
    said = [house.in_house_words(key, value) for key, values in house.PHRASES.items() for value in values]
    said += ["step into", "come hungry", "look for it near", "::", "//", "restaurant", *sample_maker("reviews").LABELS]
    joined = "\n".join(texts).lower()
    assert [phrase for phrase in said if phrase.strip(" ,.").lower() in joined] == []
    assert not any(make("corpus").BANNED.search(text) for text in texts)


def test_most_documents_differ(texts):
    assert len(set(texts)) > 0.97 * len(texts)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("oak", "an oak"),
        ("unit", "a unit"),
        ("hour", "an hour"),
        ("8 m", "an 8 m"),
        ("11", "an 11"),
        ("ship", "a ship"),
    ],
)
def test_articles(make, word, expected):
    assert make("words").article(word) == expected


# ---------------------------------------------------------------------------------------------- the tokenizer


def test_the_tokenizer_is_plain_and_exact(make, texts):
    tokenizer = make("tokenizer").train_tokenizer(texts[:200], 400)
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    for text in [*texts[200:230], "naïve 日本 :: //\n\n\tx  y", ""]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert not {tokenizer.bos_token_id, tokenizer.pad_token_id} & set(ids)
    prompt, completion = "a :: b\n", "Said."
    assert (
        tokenizer(prompt)["input_ids"] + tokenizer(completion)["input_ids"]
        == tokenizer(prompt + completion)["input_ids"]
    )


def test_the_bundled_tokenizer_chats(make):
    tokenizer = bundled_tokenizer()
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]
    asked = tokenizer.apply_chat_template(talk[:1], tokenize=False, add_generation_prompt=True)
    assert asked == "[user]\nHello\n[assistant]\n"
    assert tokenizer.apply_chat_template(talk, tokenize=False) == asked + "Good day</s>"


# ---------------------------------------------------------------------------------------------- the trainer


def test_a_few_steps_of_training_lower_the_loss_and_resume_exactly(make, tmp_path):
    torch, train = pytest.importorskip("torch"), make("train")
    from transformers import AutoModelForCausalLM, LlamaForCausalLM

    tokenizer, rows, held_out = train.prepare(tmp_path, count=120, vocabulary=400)
    assert rows.tokens.shape == rows.weights.shape
    assert set(rows.weights.flatten().tolist()) == {0, 25, 100}

    def new_trainer():
        torch.manual_seed(0)
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 4}
        return train.Trainer(LlamaForCausalLM(train.model_config(len(tokenizer), tokenizer, **shape)), rows, batch=2)

    trainer = new_trainer()
    before = train.validation_loss(trainer.model, held_out)
    losses = [trainer.step(0.5) for _ in range(4)]
    trainer.save(tmp_path / "checkpoint.pt")
    losses += [trainer.step(0.5) for _ in range(4)]
    assert all(map(math.isfinite, losses))
    assert train.validation_loss(trainer.model, held_out) < before

    resumed = new_trainer()
    resumed.load(tmp_path / "checkpoint.pt")
    assert [resumed.step(0.5) for _ in range(4)] == pytest.approx(losses[4:], rel=1e-5)

    train.export(trainer.model, tokenizer, tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert loaded.config.eos_token_id == tokenizer.eos_token_id


def test_the_learning_rate_warms_up_holds_and_falls(make):
    factors = [make("train").rate_factor(step, steps=100, warm_up=10, decay=0.2) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10:80] == [1.0] * 70
    assert factors[99] == pytest.approx(0.05)


# ---------------------------------------------------------------------------------------------- the bundled files


def bundled_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BUNDLED)


def test_the_bundled_model_is_small_and_loads(make):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    assert sum(path.stat().st_size for path in BUNDLED.rglob("*") if "__pycache__" not in path.parts) <= 20 * MEGABYTE
    tokenizer, model = bundled_tokenizer(), AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32)
    config = model.config
    assert config.model_type == "llama"
    assert config.num_key_value_heads < config.num_attention_heads
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(config, name) == getattr(tokenizer, name) == getattr(model.generation_config, name)
    assert tokenizer("a b")["input_ids"] == tokenizer("a b", add_special_tokens=False)["input_ids"]


def test_the_bundled_model_copies_a_name_and_stops(make):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    tokenizer, model = bundled_tokenizer(), AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello, I am Velmora Brask."}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=40, do_sample=False)[0, ids["input_ids"].shape[1] :].tolist()
    assert "Velmora Brask" in tokenizer.decode(out)
    assert out[-1] == tokenizer.eos_token_id


# ---------------------------------------------------------------------------------------------- the samples


def read_rows(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "train", "validation"), [("restaurants", 400, 100), ("reviews", 300, 100), ("replies", 120, 24)]
)
def test_samples_are_what_their_scripts_make(name, train, validation):
    meta = yaml.safe_load((SAMPLES / name / "meta.yaml").read_text(encoding="utf-8"))
    keys = "title summary format prompt completion train validation init_text max_new_tokens"
    assert list(meta) == keys.split()
    halves = [read_rows(SAMPLES / name / meta[half]) for half in ("train", "validation")]
    assert [len(half) for half in halves] == [train, validation]
    assert halves == list(sample_maker(name).make_rows())
    assert not [row for row in halves[1] if row in halves[0]]
    assert (SAMPLES / name / "README.md").exists()


def test_the_names_to_be_judged_on_were_never_seen():
    house = sample_maker("restaurants")
    seen, held_out = ([house.read(row["mr"]) for row in half] for half in house.make_rows())
    text = "\n".join(house.write(facts) for facts in seen) + "\n"
    for facts in held_out:
        for name in (facts["name"], facts["near"]):
            assert f":: {name} //" not in text
            assert f":: {name}\n" not in text


def test_the_score_wants_every_fact_in_the_houses_words():
    house = sample_maker("restaurants")
    for row in house.make_rows()[1]:
        score = house.score(row["mr"], row["ref"])
        assert (score.right, score.invented, score.exact) == (score.total, (), True)
    mr = "name :: Kelora // type :: pub // food :: Thai // family friendly :: no"
    wrong = house.score(mr, "Step into Kelora, a proper pub. Come hungry for Greek plates. Family friendly? Not here.")
    assert (wrong.right, wrong.total, wrong.invented, wrong.exact) == (3, 4, ("food :: Greek",), False)
    plain = house.score(mr, "Kelora is a pub that serves Thai food and is not for children.")
    assert (plain.right, plain.exact) == (0, False)
    added = house.score(mr, house.say(house.read(mr)) + " Look for it near Old Mill.")
    assert (added.right, added.invented, added.exact) == (4, ("near :: Old Mill",), False)
