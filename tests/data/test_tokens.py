"""Training sees exactly the prompt that generation gets, and learns the answer and its end: nothing else."""

from __future__ import annotations

from itertools import product

import pytest
from transformers import PreTrainedTokenizer

from prefix_studio.data import encode, tokens
from prefix_studio.data.examples import Example, Report
from prefix_studio.data.tokens import prompt_ids, tokenize, tokenize_all
from prefix_studio.errors import StudioError

PAIRS = [
    ("name[Blue Spice], food[French] =>", " Blue Spice serves French food."),
    ("Question: what? Answer: ", "Paris is the capital"),  # the prompt's last space belongs to the next word
    ("name[Blue Spi", "ce] serves café"),  # a border inside a word
    ("naïve caf", "é"),
    ("<s>Question:", " Paris"),  # a start token spelled out
    ("Answer:\n", "Paris\n"),
    ("", "Blue Spice serves food."),
]
TURNS = [
    {"role": "user", "content": "hello there"},
    {"role": "assistant", "content": "hello user"},
    {"role": "user", "content": "how are you"},
    {"role": "assistant", "content": "I am fine, thanks"},
]
SYSTEM = {"role": "system", "content": "Be brief."}


class Letters(PreTrainedTokenizer):
    """A token a letter, and no Rust behind it."""

    def __init__(self, **options):
        self.vocabulary = {"<s>": 0, "</s>": 1} | {chr(code): code + 1 for code in range(1, 128)}
        super().__init__(**options)

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary)

    def get_vocab(self) -> dict[str, int]:
        return self.vocabulary

    def _tokenize(self, text, **_):
        return list(text)

    def _convert_token_to_id(self, token):
        return self.vocabulary[token]

    def _convert_id_to_token(self, index):
        return next(token for token, number in self.vocabulary.items() if number == index)


def chat(messages) -> Example:
    return Example("", messages[-1]["content"], 1, messages=messages)


def learned(row) -> list[int]:
    return [label for label in row.labels if label != -100]


def ids(row) -> list[int]:
    return row.input_ids.tolist()


def runs(row, tokenizer) -> list[str]:
    """The texts of the learned stretches."""
    texts, current = [], []
    for token, label in [*zip(row.input_ids, row.labels, strict=True), (None, -100)]:
        if label != -100:
            assert token == label
            current.append(token)
        elif current:
            texts.append(tokenizer.decode(current))
            current = []
    return texts


@pytest.fixture(params=["byte level", "byte level, bos", "metaspace", "metaspace, no bos", "bundled"])
def tokenizer(request, make_tokenizer):
    if request.param == "bundled":
        return request.getfixturevalue("bundled")[1]
    kind, _, _ = request.param.partition(",")
    return make_tokenizer(kind, adds_bos=request.param in ("byte level, bos", "metaspace"))


@pytest.mark.parametrize(("prompt", "completion"), PAIRS)
def test_training_and_generation_share_the_prompt(tokenizer, prompt, completion):
    row = tokenize(Example(prompt, completion, 1), tokenizer, 512)
    seen = prompt_ids(prompt, tokenizer)
    assert ids(row)[: len(seen)] == seen
    assert row.labels.tolist() == [-100] * len(seen) + ids(row)[len(seen) :]
    assert row.input_ids[-1] == tokenizer.eos_token_id
    assert ids(row).count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize(("prompt", "completion"), PAIRS)
def test_the_tokens_spell_prompt_and_completion(tokenizer, prompt, completion):
    row = tokenize(Example(prompt, completion, 1), tokenizer, 512)
    text = tokenizer.decode(row.input_ids, clean_up_tokenization_spaces=False)
    text = text.removeprefix("<s>").removesuffix("</s>")
    assert text.removeprefix(" ") == (prompt + completion).removeprefix("<s>").removeprefix(" ")


@pytest.mark.parametrize(("prompt", "completion"), PAIRS)
def test_a_stable_border_tokenises_like_the_whole_text(tokenizer, prompt, completion):
    whole = tokenizer(prompt + completion, add_special_tokens=False)["input_ids"]
    alone = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if whole[: len(alone)] == alone:
        row = tokenize(Example(prompt, completion, 1), tokenizer, 512)
        assert learned(row)[:-1] == whole[len(alone) :]


def test_the_start_token_stands_once_if_the_tokenizer_adds_it(make_tokenizer):
    for kind, adds in product(("byte level", "metaspace"), (True, False)):
        tokenizer = make_tokenizer(kind, adds_bos=adds)
        assert prompt_ids("hello", tokenizer).count(tokenizer.bos_token_id) == adds
        assert prompt_ids("<s>hello", tokenizer).count(tokenizer.bos_token_id) == 1
        assert prompt_ids("", tokenizer) == [tokenizer.bos_token_id]


def test_one_by_one_equals_all_at_once(tokenizer):
    examples = [Example(prompt, completion, row) for row, (prompt, completion) in enumerate(PAIRS, start=1)]
    rows = tokenize_all(examples, tokenizer, 512)
    assert list(rows) == [tokenize(example, tokenizer, 512) for example in examples]


def test_chunks_and_threads_change_nothing(tokenizer, monkeypatch):
    examples = [Example(*PAIRS[row % len(PAIRS)], row) for row in range(30)]
    at_once = tokenize_all(examples, tokenizer, 512)
    monkeypatch.setattr(tokens, "CHUNK_CHARACTERS", 1200)  # about nine examples
    monkeypatch.setattr(encode, "TEXTS_PER_THREAD", 1)
    in_chunks = tokenize_all(examples, tokenizer, 512)
    assert list(in_chunks) == list(at_once)
    assert in_chunks.numbers.tolist() == list(range(30))


def test_a_tokenizer_set_to_cut_and_to_fill_up_does_neither(make_tokenizer):
    tokenizer = make_tokenizer()
    example = Example("hello there", " how are you", 1)
    expected = tokenize(example, tokenizer, 512)
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=40)
    assert tokenize(example, tokenizer, 512) == expected


def test_a_tokenizer_written_in_python():
    tokenizer = Letters(eos_token="</s>", bos_token="<s>")
    rows = tokenize_all([Example("ab", "c", 1), Example("ab", "a", 2)], tokenizer, 512)
    assert [ids(row) for row in rows] == [[98, 99, 100, 1], [98, 99, 98, 1]]
    assert rows[0].labels.tolist() == [-100, -100, 100, 1]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (row,) = tokenize_all([chat(turns)], tokenizer, 512)
    assert tokenizer.convert_ids_to_tokens(learned(row)) == [" ", "b", "</s>"]


def test_without_an_end_token_the_completion_just_stops(make_tokenizer):
    tokenizer = make_tokenizer(eos=None)
    assert runs(tokenize(Example("hello", " there", 1), tokenizer, 512), tokenizer) == [" there"]


def test_too_long_is_dropped_and_reported(make_tokenizer):
    tokenizer = make_tokenizer()
    report = Report(rows_read=2, rows_used=2)
    examples = [Example("hello", " there", 1), Example("hello " * 50, "there", 2)]
    rows = tokenize_all(examples, tokenizer, 20, report)
    assert [row.row for row in rows] == [1]
    (dropped,) = report.dropped
    assert dropped["row"] == 2
    assert dropped["why"].endswith("tokens, more than max_length 20")
    assert report.rows_used == 1
    with pytest.raises(StudioError, match=r"None of the 1 examples can be used \(row 2: .* max_length 20\)") as told:
        tokenize_all(examples[1:], tokenizer, 20)
    assert told.value.category == "data"
    with pytest.raises(StudioError, match=r"Row 2: .* more than max_length 20"):
        tokenize(examples[1], tokenizer, 20)
    assert len(tokenize_all([], tokenizer, 20)) == 0


def test_held_back_rows_may_all_be_too_long(make_tokenizer):
    tokenizer = make_tokenizer()
    report = Report(rows_used=5)
    examples = [Example("hello " * 50, "there", number) for number in (7, 8)]
    assert len(tokenize_all(examples, tokenizer, 20, report, may_be_empty=True)) == 0
    assert [dropped["row"] for dropped in report.dropped] == [7, 8]
    assert report.rows_used == 3
    (warning,) = report.warnings
    assert warning.startswith("None of the 2 held-back rows can be used (row 7: ")
    assert warning.endswith("more than max_length 20), so nothing will be measured on held-back rows.")


def test_very_long_rows_are_told(make_tokenizer):
    report = Report(rows_used=10)
    examples = [Example("hello", " there", number) for number in range(9)] + [Example("hello " * 400, "x", 9)]
    tokenize_all(examples, make_tokenizer(), 5000, report)
    assert any("1 rows are very long (row 9 has " in warning for warning in report.warnings)


# Chats


@pytest.mark.parametrize("messages", [TURNS[:2], TURNS, [SYSTEM, *TURNS]], ids=["one turn", "two turns", "system"])
@pytest.mark.parametrize("template", ["chatml", "marked", "no system", "thinking", "opening", None])
@pytest.mark.parametrize("kind", ["byte level", "metaspace"])
def test_a_chat_trains_on_the_prompt_that_generation_gets(make_tokenizer, templates, kind, template, messages):
    tokenizer = make_tokenizer(kind, adds_bos=template is None, chat_template=templates.get(template))
    row = tokenize(chat(messages), tokenizer, 512)
    seen = prompt_ids(messages[:-1], tokenizer)
    assert ids(row)[: len(seen)] == seen
    stretches = runs(row, tokenizer)
    end = "</s>" if template is None else "<|im_end|>"
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    assert stretches[-1].endswith(answers[-1] + end)
    assert row.labels[-1] == row.input_ids[-1]
    if template == "thinking":  # the prompt opens a thought that the answer closes
        assert stretches == ["\n</think>\n\n" + answers[-1] + end]
    elif template == "opening":
        assert stretches == [answers[-1] + end]
    else:
        assert [text.strip() for text in stretches] == [answer + end for answer in answers]


def test_chat_text_is_the_models_own(make_tokenizer, templates):
    tokenizer = make_tokenizer(chat_template=templates["chatml"])
    row = tokenize(chat(TURNS[:2]), tokenizer, 512)
    expected = "<|im_start|>user\nhello there<|im_end|>\n<|im_start|>assistant\nhello user<|im_end|>"
    assert tokenizer.decode(row.input_ids) == expected


def test_a_refused_system_message_goes_to_the_first_user(make_tokenizer, templates):
    tokenizer = make_tokenizer(chat_template=templates["no system"])
    text = tokenizer.decode(prompt_ids([SYSTEM, TURNS[0]], tokenizer))
    assert text == "<|im_start|>user\nBe brief.\n\nhello there<|im_end|>\n<|im_start|>assistant\n"


def test_a_model_without_a_template_gets_plain_lines(make_tokenizer):
    tokenizer = make_tokenizer(adds_bos=True)
    row = tokenize(chat(TURNS), tokenizer, 512)
    assert tokenizer.decode(row.input_ids) == (
        "<s>User: hello there\nAssistant: hello user</s>\nUser: how are you\nAssistant: I am fine, thanks</s>"
    )


def test_a_template_that_rewrites_earlier_answers_is_told(make_tokenizer, templates):
    tokenizer = make_tokenizer(chat_template=templates["thinking"])
    report = Report(rows_used=1)
    (row,) = tokenize_all([chat(TURNS)], tokenizer, 512, report)
    assert len(runs(row, tokenizer)) == 1
    assert any("some earlier answers are not learned" in warning for warning in report.warnings)


def test_a_chat_the_template_refuses_is_dropped_with_its_words(make_tokenizer, templates):
    refusing = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('Start with a user.') }}{% endif %}"
    tokenizer = make_tokenizer(chat_template=refusing + templates["chatml"])
    report = Report(rows_used=2)
    rows = tokenize_all([chat(TURNS), chat(TURNS[1:])], tokenizer, 512, report)
    assert len(rows) == 1
    assert report.dropped == [{"row": 1, "why": "The model's chat template refuses this chat: Start with a user"}]


# Encoder-decoder


def test_an_encoder_reads_the_prompt_and_the_decoder_learns_the_completion(make_tokenizer):
    tokenizer = make_tokenizer(adds_bos=True)
    row = tokenize(Example("hello there", "how are you", 1), tokenizer, 64, encoder_decoder=True)
    assert ids(row) == prompt_ids("hello there", tokenizer, encoder_decoder=True)
    assert tokenizer.decode(row.labels) == "<s>how are you</s>"
    with pytest.raises(StudioError, match="more than max_length 3"):
        tokenize(Example("hello", "how are you", 1), tokenizer, 3, encoder_decoder=True)


def test_inputs_and_targets_one_by_one_equal_all_at_once(make_tokenizer, templates):
    tokenizer = make_tokenizer(adds_bos=True, chat_template=templates["no system"])
    examples = [Example("hello there", "how are you", 1), chat([SYSTEM, *TURNS]), Example("hello", "x", 3)]
    rows = tokenize_all(examples, tokenizer, 512, encoder_decoder=True)
    assert list(rows) == [tokenize(example, tokenizer, 512, encoder_decoder=True) for example in examples]
    assert rows.lengths.tolist() != rows.target_lengths.tolist()
    assert ids(rows[1]) == prompt_ids([SYSTEM, *TURNS[:-1]], tokenizer, encoder_decoder=True)
