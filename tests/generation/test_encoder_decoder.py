"""Encoder-decoders in the engine: prompts for the encoder, prefixes of every form in one batch, rows as if alone."""

from __future__ import annotations

import pytest
import torch

from prefix_studio.errors import StudioError
from prefix_studio.generation.engine import Row, Sampling, generate
from prefix_studio.generation.sampling import penalise
from prefix_studio.prefix.encoder_decoder import start_token
from prefix_studio.prefix.inject import forward_with_prefix
from tests.prefix.pairs import FORMS, PAIRS, random_parts
from tests.prefix.tiny import random_ids
from tests.prefix.zoo import model_of

# Small models like to repeat themselves, and what always repeats shows nothing: hence the penalty.
GREEDY = [Sampling(max_new_tokens=count, repetition_penalty=1.5) for count in (8, 14, 5, 1, 10)]
SAMPLED = [
    Sampling(max_new_tokens=8, temperature=0.8, seed=1),
    Sampling(max_new_tokens=14, temperature=1.3, top_k=20, seed=1),
    Sampling(max_new_tokens=5),
    Sampling(max_new_tokens=3, repetition_penalty=1.4),
    Sampling(max_new_tokens=9, temperature=1.0, top_p=0.8, repetition_penalty=1.2, seed=7),
]


def write(model, rows: list[Row], eos_ids=()) -> list[list[int]]:
    """Every row's tokens."""
    tokens: list[list[int]] = [[] for _ in rows]
    for made in generate(model, rows, eos_ids=eos_ids):
        for index, token in made:
            tokens[index].append(token)
    return tokens


def mixed_rows(model, settings: list[Sampling], submodules: str) -> list[Row]:
    """Prefixes of several lengths and forms and none, one of them longer than a window; prompts of several lengths."""
    prefixes = [
        random_parts(model, 5, submodules),
        None,
        random_parts(model, 20, submodules, seed=1),
        random_parts(model, 5, "decoder", seed=2),
        random_parts(model, 5, submodules, seed=3),
    ]
    prompts = [random_ids(length, seed=length).tolist() for length in (7, 3, 22, 7, 1)]
    return [Row(*row) for row in zip(prompts, prefixes, settings, strict=True)]


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(("family", "submodules"), FORMS)
def test_every_row_of_a_batch_is_its_solo_run(family, submodules, settings):
    model = model_of(family)
    rows = mixed_rows(model, settings, submodules)
    together = write(model, rows)
    assert together == [write(model, [row])[0] for row in rows]
    assert [len(tokens) for tokens in together] == [row.settings.max_new_tokens for row in rows]


@pytest.mark.parametrize(("family", "submodules"), FORMS)
def test_generation_is_repeated_full_forward_passes(family, submodules):
    model = model_of(family)
    rows = mixed_rows(model, GREEDY, submodules)
    for row, tokens in zip(rows, write(model, rows), strict=True):
        prompt, ids = torch.tensor([row.prompt_ids]), [start_token(model)]
        for token in tokens:
            with torch.no_grad():
                logits = forward_with_prefix(
                    model, row.prefix, prompt, torch.ones_like(prompt), decoder_input_ids=torch.tensor([ids])
                )
            assert token == int(penalise(logits[0, -1], set(ids), 1.5).argmax())
            ids.append(token)


@pytest.mark.parametrize("submodules", ["decoder", "all"])
def test_prefixes_and_prompts_change_what_is_written(submodules):
    """Otherwise every test above would pass with prefixes or prompts that are ignored."""
    model = model_of("bart")
    one, other = random_parts(model, 4, submodules), random_parts(model, 4, submodules, seed=9)
    settings = Sampling(12, repetition_penalty=1.5)
    rows = [Row(prompt, prefix, settings) for prompt in ([5, 6, 7], [8, 9]) for prefix in (None, one, other)]
    assert len({tuple(tokens) for tokens in write(model, rows)}) == 6


def passes(module, rows: list[Row], model) -> list[int]:
    """The batch sizes of the module's forward passes."""
    sizes: list[int] = []

    def note(_module, args, kwargs):
        sizes.append(len(args[0] if args else kwargs["input_ids"]))

    hook = module.register_forward_pre_hook(note, with_kwargs=True)
    write(model, rows)
    hook.remove()
    return sizes


def test_relative_positions_let_prefixes_of_any_length_go_together():
    model = model_of("t5")
    rows = [Row([5, 6], random_parts(model, 4, "decoder"), Sampling(3)), Row([7], None, Sampling(2))]
    assert passes(model.get_encoder(), rows, model) == [2], "prompts are read once"
    assert passes(model.get_decoder(), rows, model) == [2, 2, 1]


def test_learned_positions_make_groups_of_prefixes_of_one_length():
    model = model_of("bart")
    one, other = (random_parts(model, 4, "all", seed=seed) for seed in (1, 2))
    rows = [Row([5, 6], one, Sampling(2)), Row([7], None, Sampling(2)), Row([7, 8, 9], other, Sampling(2))]
    assert passes(model.get_encoder(), rows, model) == [2, 1]
    assert passes(model.get_decoder(), rows, model) == [2, 1] * 2


def test_rows_end_by_themselves_or_when_told():
    model = model_of("bart")
    rows = mixed_rows(model, GREEDY, "all")
    free = write(model, rows)
    end = free[0][4]
    expected = [tokens[: tokens.index(end) + 1] if end in tokens else tokens for tokens in free]
    assert write(model, rows, eos_ids={end}) == expected
    run = generate(model, rows, eos_ids=())
    assert sorted(index for index, _ in next(run)) == [0, 1, 2, 3, 4]
    assert sorted(index for index, _ in run.send({0, 2})) == [1, 4]


def test_a_token_that_must_come_first_comes_first():
    """mBART and M2M-100 are told the language so."""
    model = model_of("m2m_100")
    rows = mixed_rows(model, SAMPLED, "all")
    free = write(model, rows)
    model.generation_config.forced_bos_token_id = 44
    told = write(model, rows)
    assert [tokens[0] for tokens in told] == [44] * 5
    assert any(tokens[0] != 44 for tokens in free)
    prompt, prefix = torch.tensor([rows[0].prompt_ids]), rows[0].prefix
    logits = forward_with_prefix(
        model, prefix, prompt, torch.ones_like(prompt), decoder_input_ids=torch.tensor([[2, 44]])
    )
    (second,) = write(model, [Row(prompt[0].tolist(), prefix, Sampling(2))])
    assert second == [44, int(logits[0, -1].argmax())], "the next one is written after it"


def test_what_the_model_forbids_is_never_written():
    """Marian's own settings forbid its padding, whose score is 0 where all others are below."""
    model = model_of("marian")
    rows = mixed_rows(model, SAMPLED, "decoder")
    seen = {token for tokens in write(model, rows) for token in tokens}
    word, suppressed = sorted(seen)[:2]
    model.generation_config.bad_words_ids = [[word], [5, 6]]
    model.generation_config.suppress_tokens = [suppressed]
    assert not {word, suppressed} & {token for tokens in write(model, rows) for token in tokens}


@pytest.mark.parametrize("family", ["bart", "led", "pegasus"])
def test_rows_end_where_the_decoders_positions_end(family):
    model = model_of(family)  # 96 positions on each side
    rows = [Row(random_ids(96).tolist(), random_parts(model, 90, "decoder"), Sampling(50))]
    assert [len(tokens) for tokens in write(model, rows)] == [5]
    with pytest.raises(StudioError, match="The prompt has 97 tokens, and the model's encoder reads 96"):
        write(model, [Row([5] * 97)])


@pytest.mark.parametrize("family", PAIRS)
def test_a_prompt_without_tokens_is_refused(family):
    with pytest.raises(StudioError, match="The prompt has no tokens"):
        write(model_of(family), [Row([])])
