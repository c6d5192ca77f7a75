"""Rows become examples; what is left out is told, and the halves share no prompt."""

from __future__ import annotations

import pytest

from prefix_studio.data.examples import load_examples
from prefix_studio.errors import StudioError
from prefix_studio.recipe import DataPart

PAIRS = [{"q": f"question {number}", "a": f"answer {number}"} for number in range(40)]
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def load(source, **fields):
    return load_examples(DataPart(source=source, **fields))


def test_templates_make_prompt_and_completion(write):
    split = load(write("rows.jsonl", PAIRS), prompt="Q: {{ q }}\n", completion=" {{ a }}", validation=0)
    assert (split.train[3].prompt, split.train[3].completion) == ("Q: question 3\n", " answer 3")
    assert split.train[3].row == 4
    assert split.train[3].input == "Q: question 3\n"
    assert (split.report.rows_read, split.report.rows_used, split.report.dropped) == (40, 40, [])


def test_what_the_recipe_leaves_out_is_guessed(write):
    source = write("rows.jsonl", PAIRS)
    assert load(source).train[0].prompt.startswith("question")
    only_completion = load(source, completion="{{ q }}")
    assert only_completion.train[0].prompt.startswith("answer")
    only_prompt = load(source, prompt="{{ a }}")
    assert only_prompt.train[0].completion.startswith("question")


def test_a_share_a_count_and_none(write):
    source = write("rows.jsonl", PAIRS)
    assert [len(half) for half in (load(source).train, load(source).validation)] == [36, 4]
    assert len(load(source, validation=7).validation) == 7
    assert load(source, validation=0).validation == []
    assert load(source) == load(source)
    with pytest.raises(StudioError, match="asks for 40 rows, but there are 40 usable rows"):
        load(source, validation=40)


def test_a_prompt_never_stands_in_both_halves_and_keeps_its_references(write):
    rows = [{"q": f"q{number % 20}", "a": f"a{number // 2}"} for number in range(100)]
    split = load(write("rows.jsonl", rows), validation=0.3)
    assert not {example.prompt for example in split.train} & {example.prompt for example in split.validation}
    assert len(split.validation) == 30
    for example in split.validation:
        assert example.references == tuple(dict.fromkeys(r["a"] for r in rows if r["q"] == example.prompt))
    assert [example.row for example in split.train] == sorted(example.row for example in split.train)


def test_one_prompt_cannot_be_split(write):
    split = load(write("rows.jsonl", [{"q": "same", "a": str(number)} for number in range(12)]))
    assert (len(split.train), split.validation) == (12, [])
    assert "All rows have the same prompt, so none could be held back for validation." in split.report.warnings


def test_a_second_file_validates_and_its_leaks_are_told(write):
    held = write("held.jsonl", [PAIRS[0], {"q": "new", "a": "x"}, {"q": "empty", "a": None}])
    split = load(write("rows.jsonl", PAIRS), validation=held)
    assert [example.prompt for example in split.validation] == ["question 0", "new"]
    assert split.report.dropped == [{"row": 3, "why": "empty completion (validation file)"}]
    assert (split.report.rows_read, split.report.rows_used) == (43, 42)
    assert any("1 of 2 validation prompts are also in the training rows" in text for text in split.report.warnings)


def test_empty_cells_are_dropped_with_the_reason(write):
    rows = [*PAIRS, {"q": " ", "a": "x"}, {"q": "x", "a": "\n"}, {"q": None, "a": "x"}]
    assert load(write("rows.jsonl", rows)).report.dropped == [
        {"row": 41, "why": "empty prompt"},
        {"row": 42, "why": "empty completion"},
        {"row": 43, "why": "empty prompt"},
    ]


def test_repeated_and_few_rows_are_told(write):
    warnings = load(write("rows.jsonl", [*PAIRS[:3], PAIRS[1], PAIRS[1]]), validation=0).report.warnings
    assert "2 of 5 training rows repeat an earlier row, prompt and completion." in warnings
    assert any(text.startswith("Only 5 rows to learn from") for text in warnings)
    assert load(write("many.jsonl", PAIRS)).report.warnings == []


def test_nothing_usable_is_an_error_that_says_why(write):
    with pytest.raises(StudioError, match=r"None of the 2 rows can be used \(row 1: empty completion\)") as told:
        load(write("rows.jsonl", [{"q": "x", "a": ""}] * 2))
    assert told.value.category == "data"


def test_text_learns_from_one_column_and_splits_by_it(write):
    rows = [{"text": f"line {number % 30}"} for number in range(60)]
    split = load(write("rows.jsonl", rows), format="text", validation=0.2)
    assert {example.prompt for example in split.train} == {""}
    assert not {e.completion for e in split.train} & {e.completion for e in split.validation}
    assert len(split.validation) == 12


@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_a_column_that_is_not_there_names_the_field(write, field):
    with pytest.raises(StudioError, match=rf"data.{field} asks for the column 'qq'.*Did you mean {{{{ q }}}}\?"):
        load(write("rows.jsonl", PAIRS), **{field: "{{ qq }}"})


# Chats


def test_chats_in_every_dialect_are_one_shape(write):
    sharegpt = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": "hello"}]
    as_text = '[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]'
    rows = [{"chat": chat} for chat in (CHAT, sharegpt, parts, as_text, [*CHAT, {"role": "user", "content": "bye"}])]
    split = load(write("rows.jsonl", rows), validation=0)
    assert all(example.messages == CHAT for example in split.train)
    assert len(split.train) == 5
    assert (split.train[0].prompt, split.train[0].completion, split.train[0].input) == ("hi", "hello", CHAT[:1])


@pytest.mark.parametrize(
    ("chat", "why"),
    [
        (CHAT[:1], "no assistant turn to learn"),
        (CHAT[1:], "no message before the assistant's turn"),
        ([CHAT[0], {"role": "assistant", "content": " "}], "the last assistant turn is empty"),
        ([], "the messages are not a list, or an empty one"),
        (None, "the messages are not a list, or an empty one"),
        ("[{]", "the messages are neither a list nor JSON ("),
        ([CHAT[0], "hello"], "message 2 is not an object"),
        ([CHAT[0], {"content": "hello"}], "message 2 has neither role nor from"),
        ([CHAT[0], {"role": "narrator", "content": "x"}], "message 2 has the unknown role 'narrator'"),
        ([CHAT[0], {"role": "assistant"}], "message 2 has no text"),
        ([{"role": "user", "content": [{"type": "image"}]}, CHAT[1]], "message 1 holds a part that is not text"),
    ],
)
def test_a_malformed_chat_is_dropped_with_the_reason(write, chat, why):
    split = load(write("rows.jsonl", [{"messages": CHAT}, {"messages": chat}]), validation=0)
    (dropped,) = split.report.dropped
    assert dropped["row"] == 2
    assert dropped["why"].startswith(why)


def test_a_longer_chat_reads_as_a_transcript_and_splits_by_it(write):
    chats = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": str(n % 5)}, CHAT[1]]
        for n in range(20)
    ]
    split = load(write("rows.jsonl", [{"messages": chat} for chat in chats]), validation=0.2)
    assert split.train[0].prompt.startswith("System: Be brief.\nUser: ")
    assert len(split.validation) == 4
    assert not {e.prompt for e in split.train} & {e.prompt for e in split.validation}


def test_format_chat_makes_two_messages_of_prompt_and_completion(write):
    split = load(write("rows.jsonl", PAIRS), format="chat", validation=0)
    assert split.train[0].messages == [
        {"role": "user", "content": "question 0"},
        {"role": "assistant", "content": "answer 0"},
    ]


def test_the_column_of_a_chat_can_be_named_and_misnamed(write):
    source = write("rows.jsonl", [{"log": CHAT, "other": "x"}])
    assert load(source, messages="log").train[0].messages == CHAT
    with pytest.raises(StudioError, match=r"data.messages asks for the column 'logs'.*Did you mean log\?"):
        load(source, messages="logs")


# Samples


def test_a_sample_brings_its_templates_and_its_held_back_rows():
    split = load("sample:restaurants")
    assert (len(split.train), len(split.validation)) == (400, 100)
    assert split.train[0].prompt.endswith(" =>")
    assert split.report.warnings == []
    assert len(load("sample:restaurants", validation=0.25).validation) == 100
    assert load("sample:replies").train[0].messages[0]["role"] == "user"
    assert load("sample:reviews", completion="{{ text }}", prompt="{{ label }}").train[0].prompt in (
        "positive",
        "negative",
        "mixed",
    )
