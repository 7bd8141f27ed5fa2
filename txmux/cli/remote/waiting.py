"""Waiting until something is so in a running service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PERIOD = 0.5


def wait_until(is_so: Callable[[], bool]) -> None:
    """Ask again and again, without end.

    Args:
        is_so: Asks.
    """
    while not is_so():
        time.sleep(_PERIOD)
