"""How the next token of a choice is chosen: penalties, biases, a form that it must have, and then by chance.

Called by `sakuin.server.asking.speaking`, in the scheduler's thread.
"""

from __future__ import annotations

from torch import Tensor

from sakuin.context.sampling import Sampling
from sakuin.server.asking.wanted import Constraint, Likely, Wanted


class Sampler:
    """Of the `number`-th choice of a request."""

    def __init__(self, wanted: Wanted, number: int) -> None:
        seed = None if wanted.seed is None else wanted.seed + number
        self._choose = Sampling(wanted.temperature, wanted.top_p, seed).chooser()
        self._wanted = wanted
        self._said: dict[int, int] = {}
        self.constraint: Constraint | None = None if wanted.grammar is None else wanted.grammar.begin()

    def choose(self, logits: Tensor) -> int:
        """The next token by `logits`, `(vocabulary,)`."""
        token = self._choose(self._changed(logits), ())
        self._said[token] = self._said.get(token, 0) + 1
        return token

    def _changed(self, logits: Tensor) -> Tensor:
        wanted = self._wanted
        if wanted.bias or ((wanted.presence or wanted.frequency) and self._said):
            logits = logits.float().clone()
            for token, more in wanted.bias.items():
                logits[token] += more
            if wanted.presence or wanted.frequency:
                for token, times in self._said.items():
                    logits[token] -= wanted.presence + wanted.frequency * times
        return logits if self.constraint is None else self.constraint.allow(logits)


def likely(logits: Tensor, token: int, n: int) -> Likely:
    """How likely the model itself found a token, and the `n` likeliest."""
    shares = logits.float().log_softmax(-1)
    values, at = shares.topk(min(n, len(shares)))
    return Likely(token, float(shares[token]), list(zip(at.tolist(), values.tolist(), strict=True)))
