"""Whether an input leaves descriptors open."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable

from campaign.fuzz.target import see

__all__ = ["leaving_none_open"]


def leaving_none_open(attempt: Callable[[bytes], None]) -> Callable[[bytes], None]:

    @functools.wraps(attempt)
    def check(data: bytes) -> None:
        before = _open()
        attempt(data)
        if _open() != before:
            # Garbage of whatever was tried before may have been collected meanwhile; now there is none.
            gc.collect()
            before = _open()
            attempt(data)
            gc.collect()
            see(_open() == before, "descriptors are left open")

    return check


def _open() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - how many
