"""Inputs that are changed by chance alone, where there is no coverage to lead."""

from __future__ import annotations

import random
from collections.abc import Sequence


def changed(
    data: bytes, others: Sequence[bytes], words: Sequence[bytes], chance: random.Random
) -> bytes:
    """Change an input in one place or a few."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        data = _changed(data, others, words, chance)
    return data


def _changed(
    data: bytes, others: Sequence[bytes], words: Sequence[bytes], chance: random.Random
) -> bytes:
    at, end = sorted(chance.randint(0, len(data)) for _ in range(2))
    before, piece, after = data[:at], data[at:end], data[end:]
    other = chance.choice(others)
    start = chance.randint(0, len(other))
    bit = bytes(byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1])
    return chance.choice(
        (
            data[:at] + chance.randbytes(1) + data[at + 1 :],
            data[:at] + bit + data[at + 1 :],
            before,
            before + after,
            before + piece * chance.choice((2, 3, 9)) + after,
            data[:at] + chance.choice(words or [b""]) + data[at:],
            before + other[start : start + chance.choice((4, 40, 400))] + after,
        )
    )
