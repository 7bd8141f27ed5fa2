"""No garbage is looked for while very many connections move to another process."""

from __future__ import annotations

import gc

__all__ = ["UNCOLLECTED"]

_MANY = 20_000
"""New objects among which looking for garbage would take so long, over 5 ms, that clients would notice."""
_FEW = 250_000
"""Objects among which looking for garbage takes a tenth of a second; a process that only looks after others has a quarter of them."""


class _Uncollected:
    """The time while connections move; as a context, which may be entered again in itself.

    All of them are in use, and everybody would have to wait while garbage is looked for among them. If there are many, it is not
    looked for there later either, until `release`: what belongs to a connection is freed by its end.
    """

    def __init__(self) -> None:
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
            young = gc.get_count()[0]
            if young > _MANY:
                gc.freeze()
            if self._was_enabled:
                gc.enable()

    def release(self) -> None:
        """Free the garbage that was left aside with the connections, now that this process has handed them over.

        While it still has very many that cannot be moved, nothing happens.
        """
        if not self._count and gc.get_freeze_count():
            gc.freeze()  # to count all objects
            if gc.get_freeze_count() < _FEW:
                gc.unfreeze()
                gc.collect()


UNCOLLECTED = _Uncollected()
"""That of this process."""
