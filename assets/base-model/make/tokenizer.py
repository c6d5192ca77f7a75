"""The tokenizer of the bundled base model: byte-level BPE, trained on a slice of the corpus.

Contract: `train_tokenizer(texts, size)` returns a fast tokenizer with three distinct special tokens, `<s>`, `</s>` and
`<pad>`, that adds none of them on its own. Words take their leading space along; digits, punctuation marks and line
ends are tokens of their own, so a prompt that ends with a line end is cut from its completion at a token boundary.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

BOS, EOS, PAD = "<s>", "</s>", "<pad>"
MAX_LENGTH = 1024

# [role], a line end, the words; what the assistant says ends with the end-of-text token.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "[{{ message['role'] }}]\n{{ message['content'] }}{{ eos_token if message['role'] == 'assistant' else '' }}"
    "{{ '\n' if not loop.last or message['role'] != 'assistant' else '' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)

# Contractions; a word with its space; one digit; one mark; a line end; other space.
SPLIT = Regex(r"'(?:s|t|re|ve|m|ll|d)\b| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\n|\s")


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(SPLIT, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
