"""Reloads, one after another, whatever else happens."""

from __future__ import annotations

import threading
import time
from typing import Self

from campaign.soak.service import Soaked


class Reloads:
    """Has rules reloaded within a ``with``, by a thread.

    Args:
        soaked: Whose.
        seconds: From one to the next.

    Attributes:
        problems: What went wrong, a line each.
    """

    def __init__(self, soaked: Soaked, seconds: float) -> None:
        self._soaked = soaked
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _go_on(self) -> None:
        due = time.monotonic() + self._seconds
        while not self._over.wait(max(0.0, due - time.monotonic())):
            try:
                self._soaked.reload()
            except AssertionError as problem:
                self.problems.append(f"a reload: {problem}")
                return
            # Those that could not be, as an upgrade took its time, are left out.
            due = max(due + self._seconds, time.monotonic())
