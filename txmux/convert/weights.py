"""Shares of clients, as the weights of servers."""

from __future__ import annotations

from fractions import Fraction
from math import gcd, lcm
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_WEIGHT = 65535


def whole_weights(shares: Sequence[Fraction]) -> list[int]:
    """Return whole numbers with the same proportions, or nearly so where they would be too large."""
    most = lcm(*(share.denominator for share in shares))
    numbers = [int(share * most) for share in shares]
    numbers = [number // gcd(*numbers) for number in numbers]
    too_much = Fraction(max(numbers), _MOST_WEIGHT)
    return [max(1, round(n / too_much)) if too_much > 1 else n for n in numbers]
