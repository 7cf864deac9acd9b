"""How the next token is chosen from the logits.

Temperature, top_p and the penalty for repetition mean what they mean in llama.cpp. Called by
`sakuin.context.generate`; commands check their options by it, without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sakuin.arguments import real, shown, whole

if TYPE_CHECKING:
    from torch import Tensor

LAST = 64
"""The newest tokens, those of the prompt included, that `repeat_penalty` makes less likely."""

Chooser = Callable[["Tensor", Sequence[int]], int]
"""From logits `(vocabulary,)` and the tokens so far to the next token."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest at `temperature` 0, else drawn from the most likely `top_p`
    of the mass.

    repeat_penalty : before that, the logit of each token that is among the last 64 is divided by it where it
        is above 0, and multiplied where it is below; 1 changes nothing. Tokens that end an answer are left
        alone.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    repeat_penalty: float = 1.0

    def __post_init__(self) -> None:
        temperature, top_p, penalty = real(self.temperature), real(self.top_p), real(self.repeat_penalty)
        if temperature is None or temperature < 0:
            raise ValueError(
                f"temperature must be a finite number of at least 0, got {shown(self.temperature)}"
            )
        if top_p is None or not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {shown(self.top_p)}")
        if penalty is None or penalty <= 0:
            raise ValueError(
                f"repeat_penalty must be a finite number above 0 (1 changes nothing), got "
                f"{shown(self.repeat_penalty)}"
            )
        if self.seed is not None:
            object.__setattr__(self, "seed", whole("seed", self.seed, -(1 << 63), (1 << 64) - 1))

    def chooser(self, ends: Collection[int] = ()) -> Chooser:
        """A function from logits and the tokens so far to a token. ends : tokens that end an answer."""
        choose = self._drawing()
        if self.repeat_penalty == 1:
            return lambda logits, _: choose(logits)
        return lambda logits, so_far: choose(self._penalized(logits, set(so_far[-LAST:]).difference(ends)))

    def _penalized(self, logits: Tensor, seen: set[int]) -> Tensor:
        import torch

        logits, at = (
            logits.float().clone(),
            torch.tensor(sorted(seen), dtype=torch.long, device=logits.device),
        )
        here = logits[at]
        logits[at] = torch.where(here > 0, here / self.repeat_penalty, here * self.repeat_penalty)
        return logits

    def _drawing(self) -> Callable[[Tensor], int]:
        if self.temperature == 0:
            return lambda logits: int(logits.argmax())
        import torch

        generator = torch.Generator()
        generator.seed() if self.seed is None else generator.manual_seed(self.seed)

        def draw(logits: Tensor) -> int:
            # However small the temperature is, the likeliest token stays at 0 and no other becomes no number.
            below = logits.double().cpu() - logits.max().double().cpu()
            shares, order = (below / self.temperature).float().softmax(-1).sort(descending=True)
            shares[shares.cumsum(-1) - shares > self.top_p] = 0.0
            return int(order[torch.multinomial(shares, 1, generator=generator)])

        return draw
