"""How long a part of the campaign goes on, and from where its chance comes."""

from __future__ import annotations

import random
import time

import attrs


@attrs.define
class Budget:
    """What one part of the campaign may use.

    Args:
        seconds: It begins nothing new after this time.
        seed: Whatever is left to chance follows from it, so that the same seed tries the same again.
        only: What is in the names of all that is tried.
    """

    seconds: float
    seed: int
    only: str = ""
    _began: float = attrs.field(factory=time.monotonic, init=False)

    def left(self) -> float:
        """Give the seconds that are left, at least 0."""
        return max(0.0, self._began + self.seconds - time.monotonic())

    def is_spent(self) -> bool:
        return not self.left()

    def chance(self, trial: int) -> random.Random:
        return random.Random(f"{self.seed} {trial}")
