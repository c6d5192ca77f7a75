"""How a row chooses its next token."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from prefix_studio.errors import StudioError
from prefix_studio.generation.sampling import Chooser, Sampling, choose_all

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def shares(draws: int = 1500, **settings) -> dict[int, float]:
    chooser = Chooser(Sampling(**settings), [])
    counts = Counter(chooser.choose(LOGITS) for _ in range(draws))
    return {token: count / draws for token, count in sorted(counts.items())}


def test_draws_follow_the_distribution():
    found = shares(temperature=1.0)
    assert found == pytest.approx({0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}, abs=0.04)


def test_a_low_temperature_sharpens_it():
    # p^2, normalised: 0.25, 0.09, 0.0225, 0.0025 over 0.365
    assert shares(temperature=0.5) == pytest.approx({0: 0.685, 1: 0.247, 2: 0.062, 3: 0.007}, abs=0.04)


def test_top_k_leaves_the_k_likeliest():
    assert shares(temperature=1.0, top_k=2) == pytest.approx({0: 0.625, 1: 0.375}, abs=0.04)


def test_top_p_leaves_the_fewest_that_hold_p():
    assert shares(temperature=1.0, top_p=0.7) == pytest.approx({0: 0.625, 1: 0.375}, abs=0.04)
    assert shares(draws=50, temperature=1.0, top_p=0.01) == {0: 1.0}


def test_the_repetition_penalty_speaks_of_prompt_and_answer():
    chooser = Chooser(Sampling(repetition_penalty=2.0), [0])
    scores = torch.tensor([[3.0, 2.0, -1.0, -1.5]])
    assert choose_all(scores, [chooser]) == [1]  # 3.0 / 2 is below 2.0
    assert choose_all(scores, [chooser]) == [0]  # now 2.0 / 2 is below 1.5
    unseen_low = Chooser(Sampling(repetition_penalty=2.0), [2])
    assert unseen_low.choose(torch.tensor([-5.0, -5.0, -1.0, -1.5])) == 3  # -1.0 * 2 is below -1.5


def test_temperature_zero_takes_the_likeliest():
    assert shares(draws=5) == {0: 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0, but must be 1 or more"),
        ({"temperature": -0.1}, "temperature is -0.1, but must be 0 or more"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0, but must be above 0, up to 1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_k": -1}, "top_k is -1"),
        ({"repetition_penalty": 0}, "repetition_penalty is 0, but must be above 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(StudioError, match=message):
        Sampling(**settings)
