"""How fast a run goes, and how long it will still take.

Knows the seconds that steps and evaluations took; knows nothing of what they did.
"""

from __future__ import annotations

from collections import deque

RECENT = 50


class Pace:
    """The recent steps and the last evaluation, measured; what has not been measured yet is counted in steps.

    evaluation, closing: how many steps' time an evaluation, and the texts written at the end, are likely to take.
    """

    def __init__(self, evaluation: float = 0.0, closing: float = 0.0) -> None:
        self.evaluation, self.closing = evaluation, closing
        self.evaluation_seconds: float | None = None
        self._steps: deque[tuple[float, int]] = deque(maxlen=RECENT)
        self._first = True

    def step(self, seconds: float, tokens: int) -> None:
        if self._first and self._steps:
            # A process's first step also warms up kernels and caches: as soon as there is another, forget it.
            self._steps.clear()
            self._first = False
        self._steps.append((seconds, tokens))

    @property
    def seconds_per_step(self) -> float:
        return sum(seconds for seconds, _ in self._steps) / max(1, len(self._steps))

    @property
    def tokens_per_s(self) -> float:
        """Tokens of prompts and completions, without padding and virtual tokens."""
        return sum(tokens for _, tokens in self._steps) / max(1e-9, sum(seconds for seconds, _ in self._steps))

    def eta(self, steps: int, evaluations: int) -> float:
        """Seconds for so many more steps and evaluations, and for the end."""
        measured = self.evaluation_seconds
        evaluation = self.evaluation * self.seconds_per_step if measured is None else measured
        return (steps + self.closing) * self.seconds_per_step + evaluations * evaluation
