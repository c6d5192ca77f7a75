"""Files written by hand, and tokenizers as the families make them, small enough to train on the spot."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "name[Blue Spice], food[French] Blue Spice serves French food by the river.",
    "user assistant system hello there how are you I am fine thanks café naïve =>",
    "Question: what is the capital of France? Answer: Paris is the capital.",
] * 3

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
)
THINKING = (  # earlier answers lose the thought that the last one has, and the prompt opens a thought
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
OPENING = CHATML.replace("assistant\\n'", "assistant\\n<think>\\n'")  # answers are kept without any thought


@pytest.fixture(autouse=True)
def own_home(home):
    """Parsed files go to a cache of this test's own."""
    return home


@pytest.fixture
def write(tmp_path):
    """write("rows.csv", "a,b\\n") -> its path as a string; lists become JSON Lines, bytes stay bytes."""

    def write_file(name: str, content) -> str:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


def byte_level(*, adds_bos: bool = False, chat_template: str | None = None, eos: str | None = "</s>"):
    """Like GPT-2's, Llama 3's and Qwen's: pieces of UTF-8 bytes, a space belongs to the word behind it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIALS, initial_alphabet=alphabet)
    )
    return finished(tokenizer, adds_bos, chat_template, eos)


def metaspace(*, adds_bos: bool = True, chat_template: str | None = None, eos: str | None = "</s>"):
    """Like Llama 2's: every text gets a space in front, written as ▁."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme="first"), decoders.ByteFallback()])
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIALS + byte_pieces))
    return finished(tokenizer, adds_bos, chat_template, eos)


def finished(tokenizer, adds_bos, chat_template, eos):
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos)
    fast.chat_template = chat_template
    return fast


@pytest.fixture(scope="session")
def make_tokenizer():
    """make_tokenizer("byte level", adds_bos=..., chat_template=...) -> a tokenizer; "metaspace" likewise."""
    kinds = {"byte level": byte_level, "metaspace": metaspace}
    return lambda kind="byte level", **options: kinds[kind](**options)


@pytest.fixture(scope="session")
def templates():
    return {"chatml": CHATML, "marked": MARKED, "no system": NO_SYSTEM, "thinking": THINKING, "opening": OPENING}
