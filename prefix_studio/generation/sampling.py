"""How one row turns logits into its next token: greedy, or drawn under a temperature, top-k and top-p.

Every row draws from a generator of its own, on the CPU, one number a token: what it writes depends on its seed and
its logits, never on the rows beside it. Knows logits and token ids; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefix_studio.errors import StudioError


@dataclass(frozen=True)
class Sampling:
    """A row's settings, in the names of transformers' GenerationConfig.

    temperature: 0 takes the likeliest token always. top_k: 0 is off. top_p, repetition_penalty: 1 is off.
    stop: strings at which the text ends; they are cut off. Raises StudioError for what makes no sense.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", tuple(text for text in self.stop if text))
        limits = {
            "max_new_tokens": (self.max_new_tokens >= 1, "1 or more"),
            "temperature": (0 <= self.temperature < float("inf"), "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, up to 1"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "above 0"),
            "seed": (0 <= self.seed < 2**63, "0 or more, below 2^63"),
        }
        for name, (holds, allowed) in limits.items():
            if not holds:
                raise StudioError(f"{name} is {getattr(self, name)}, but must be {allowed}.")


class Chooser:
    """One row's choice of tokens: its settings, its random numbers and the tokens it has seen."""

    def __init__(self, settings: Sampling, prompt_ids: Sequence[int]):
        self.settings = settings
        self.seen = set(prompt_ids)
        self.generator = torch.Generator().manual_seed(settings.seed)

    @property
    def is_plain(self) -> bool:
        """Whether this row just takes the likeliest token."""
        return self.settings.temperature == 0 and self.settings.repetition_penalty == 1

    def choose(self, logits: Tensor) -> int:
        """The next token from logits [vocabulary]."""
        scores = logits.float()
        if self.settings.repetition_penalty != 1:
            scores = penalise(scores, self.seen, self.settings.repetition_penalty)
        if self.settings.temperature == 0:
            return int(scores.argmax())
        return draw(scores, self.settings, self.generator)

    def remember(self, token: int) -> None:
        self.seen.add(token)


def choose_all(logits: Tensor, choosers: Sequence[Chooser]) -> list[int]:
    """The next token of every row, from logits [B, vocabulary]."""
    tokens = logits.argmax(dim=-1).tolist()
    for row, chooser in enumerate(choosers):
        if not chooser.is_plain:
            tokens[row] = chooser.choose(logits[row])
        chooser.remember(tokens[row])
    return tokens


def penalise(scores: Tensor, seen: set[int], penalty: float) -> Tensor:
    """Makes tokens seen before less likely (Keskar et al., CTRL, 2019, section 4.1)."""
    ids = torch.tensor(sorted(seen), device=scores.device)
    before = scores[ids]
    return scores.index_put((ids,), torch.where(before > 0, before / penalty, before * penalty))


def draw(scores: Tensor, settings: Sampling, generator: torch.Generator) -> int:
    """Draws from the tokens that top-k and top-p leave; float64, so that a neighbour's rounding does not show."""
    ordered, ids = (scores.double() / settings.temperature).sort(descending=True, stable=True)
    if settings.top_k:
        ordered, ids = ordered[: settings.top_k], ids[: settings.top_k]
    shares = ordered.softmax(dim=0)
    before = shares.cumsum(dim=0) - shares  # what likelier tokens hold; 0 for the first, which always stays
    shares = shares[before < settings.top_p]
    ladder = shares.cumsum(dim=0)
    spot = torch.rand((), generator=generator, dtype=torch.float64).to(ladder.device) * ladder[-1]
    rung = int(torch.searchsorted(ladder, spot, right=True))
    return int(ids[min(rung, len(ladder) - 1)])
