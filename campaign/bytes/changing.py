"""What happens again and again while clients come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class Changing(threading.Thread):
    """Does something again and again while others work."""

    def __init__(self, change: Callable[[], None], period: float) -> None:
        super().__init__(daemon=True)
        self.problem = ""
        self._change, self._period = change, period
        self._over = threading.Event()

    def run(self) -> None:
        due = time.monotonic() + self._period
        try:
            while not self._over.wait(max(0.0, due - time.monotonic())):
                due = max(due + self._period, time.monotonic())
                self._change()
        except (AssertionError, LookupError, OSError, ValueError) as problem:
            self.problem = f"{type(problem).__name__}: {problem}"

    def end(self) -> None:
        self._over.set()


@contextmanager
def all_at_once(threads: Iterable[Changing]) -> Iterator[Callable[[], None]]:
    """Have several do their work meanwhile; gives what raises an `AssertionError` if one has failed.

    All have ended afterwards.
    """
    running = [*threads]

    def look() -> None:
        for thread in running:
            if thread.problem:
                raise AssertionError(thread.problem[-2000:])

    for thread in running:
        thread.start()
    try:
        yield look
    finally:
        for thread in running:
            thread.end()
        for thread in running:
            thread.join()
    look()
