"""Turns the garbage collector off during work that makes very many objects."""

import gc

_MANY = 20_000
"""New objects for which a garbage collection takes over 5 ms, which clients would notice."""


class Uncollected:
    """A reentrant context in which no garbage is collected; all who use it share one.

    Args:
        freezes: Whether objects stay excluded afterwards if there are many new ones.
    """

    def __init__(self, *, freezes: bool = False) -> None:
        self._freezes = freezes
        self._count = 0
        self._was_enabled = False

    def __enter__(self) -> None:
        if not self._count:
            self._was_enabled = gc.isenabled()
            gc.disable()
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count:
            if self._freezes and gc.get_count()[0] > _MANY:
                gc.freeze()
            if self._was_enabled:
                gc.enable()


UNCOLLECTED = Uncollected()
"""For documents: they are freed without a collection, which would go through all of them."""

UNCOLLECTED_FOR_GOOD = Uncollected(freezes=True)
"""For connections that move, and rules: all their objects are in use, and their end frees them without a collection."""
