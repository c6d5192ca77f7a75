"""Many prefixes in one batch: every row writes what it writes alone, and what full forward passes say."""

from __future__ import annotations

import pytest
import torch

from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.prefix.inject import forward_with_prefix
from tests.prefix.tiny import FAMILIES, random_ids, random_prefix
from tests.prefix.zoo import model_of

NO_END: set[int] = set()


def write(model, rows: list[Row], eos_ids=NO_END) -> list[list[int]]:
    """Every row's tokens."""
    tokens: list[list[int]] = [[] for _ in rows]
    for made in generate(model, rows, eos_ids=eos_ids):
        for index, token in made:
            tokens[index].append(token)
    return tokens


def mixed_rows(model, settings: list[Sampling]) -> list[Row]:
    """Prefixes of several lengths and none, prompts of several lengths; together they pass the sliding windows."""
    prefixes = [random_prefix(model, 5), None, random_prefix(model, 11, seed=1), None, random_prefix(model, 2, seed=2)]
    prompts = [random_ids(length, seed=length).tolist() for length in (7, 3, 12, 7, 1)]
    return [Row(*row) for row in zip(prompts, prefixes, settings, strict=True)]


GREEDY = [Sampling(max_new_tokens=count) for count in (8, 14, 6, 1, 10)]
SAMPLED = [
    Sampling(max_new_tokens=8, temperature=0.8, seed=1),
    Sampling(max_new_tokens=14, temperature=1.3, top_k=20, seed=1),
    Sampling(max_new_tokens=6),
    Sampling(max_new_tokens=10, repetition_penalty=1.4),
    Sampling(max_new_tokens=9, temperature=1.0, top_p=0.8, repetition_penalty=1.2, seed=7),
]


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_of_a_batch_is_its_solo_run(family, settings):
    model = model_of(family)
    rows = mixed_rows(model, settings)
    together = write(model, rows)
    assert together == [write(model, [row])[0] for row in rows]
    assert [len(tokens) for tokens in together] == [row.settings.max_new_tokens for row in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_is_repeated_full_forward_passes(family):
    model = model_of(family)
    for row, tokens in zip(mixed_rows(model, GREEDY), write(model, mixed_rows(model, GREEDY)), strict=True):
        ids = list(row.prompt_ids)
        for token in tokens:
            batch = torch.tensor([ids])
            logits = forward_with_prefix(model, row.prefix, batch, torch.ones_like(batch))
            assert token == int(logits[0, -1].argmax())
            ids.append(token)


@pytest.mark.parametrize("family", ["mistral", "gemma3"])
def test_a_prefix_longer_than_the_window_is_exact_too(family):
    model = model_of(family)
    rows = [
        Row(random_ids(length, seed=length).tolist(), random_prefix(model, 24), Sampling(max_new_tokens=8))
        for length in (9, 2, 30)
    ]
    assert write(model, rows) == [write(model, [row])[0] for row in rows]


def test_prefixes_change_what_is_written():
    """Otherwise every test above would pass with prefixes that are ignored."""
    model = model_of("llama")
    prompt = [5, 6, 7]
    rows = [Row(prompt, prefix, Sampling(12)) for prefix in (None, random_prefix(model, 4), random_prefix(model, 4, 9))]
    assert len({tuple(tokens) for tokens in write(model, rows)}) == 3


def test_seeds_decide_what_is_sampled():
    model = model_of("llama")
    rows = [Row([5, 6], None, Sampling(16, temperature=1.0, seed=seed)) for seed in (3, 3, 4)]
    one, same, other = write(model, rows)
    assert one == same != other


def test_a_row_ends_with_its_end_token_and_the_others_go_on():
    model = model_of("llama")
    rows = mixed_rows(model, GREEDY)
    free = write(model, rows)
    end = free[0][4]
    cut = write(model, rows, eos_ids={end})
    expected = [tokens[: tokens.index(end) + 1] if end in tokens else tokens for tokens in free]
    assert cut == expected
    assert len(cut[0]) < len(free[0])


def test_the_consumer_may_end_rows():
    model = model_of("llama")
    rows = [Row([5, 6], None, Sampling(6)), Row([7], None, Sampling(6))]
    run = generate(model, rows, eos_ids=NO_END)
    assert [index for index, _ in next(run)] == [0, 1]
    assert [index for index, _ in run.send({0})] == [1]
    assert sum(len(made) for made in run) == 4


def test_generation_stops_when_told():
    model = model_of("llama")
    answers = iter([False, False, True])
    steps = list(generate(model, [Row([5])], eos_ids=NO_END, should_stop=lambda: next(answers)))
    assert len(steps) == 2


def test_prompts_are_read_in_one_pass_and_later_tokens_one_pass_a_step():
    model = model_of("llama")
    prefix = random_prefix(model, 4)
    sizes = []
    model.get_input_embeddings().register_forward_hook(lambda _module, args, _output: sizes.append(args[0].shape))
    write(model, [Row([5, 6, 7], prefix, Sampling(3)), Row([5, 6, 7], None, Sampling(2)), Row([8], None, Sampling(3))])
    assert [tuple(size) for size in sizes] == [(3, 3), (3, 1), (2, 1)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mpt"])
def test_rows_end_where_the_models_positions_end(family):
    model = model_of(family)  # 96 positions
    rows = [Row(random_ids(50).tolist(), random_prefix(model, 40), Sampling(50)), Row([5], None, Sampling(200))]
    assert [len(tokens) for tokens in write(model, rows)] == [6, 95]


def test_a_prompt_that_leaves_no_position_is_refused():
    model = model_of("llama")
    with pytest.raises(StudioError, match="60 tokens and 36 virtual tokens in front, which leaves nothing"):
        next(generate(model, [Row([5] * 60, random_prefix(model, 36))], eos_ids=NO_END))


def test_a_prompt_without_tokens_is_refused():
    with pytest.raises(StudioError, match="The prompt has no tokens"):
        next(generate(model_of("llama"), [Row([])], eos_ids=NO_END))


def test_no_rows_are_no_work():
    assert list(generate(model_of("llama"), [], eos_ids=NO_END)) == []


def test_the_callers_gradient_mode_is_left_alone_between_steps():
    run = generate(model_of("llama"), [Row([5])], eos_ids=NO_END)
    next(run)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
