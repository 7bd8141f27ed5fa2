"""A predicate for protocols whose first datagram has binary fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.interfaces import Datagrams, Verdict
from txmux.wire.cursor import Cursor, MalformedError, ShortError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DatagramFields"]


@attrs.frozen
class DatagramFields:
    """Whether the first datagram has binary fields, each of which allows only some values.

    Args:
        read: Reads the fields, and raises as `Cursor` does; the datagram is there in full, so a field that is not is a
            no. What it returns does not matter.
        first_bytes: The bytes that the datagram can begin with; ``None`` is any.
    """

    _read: Callable[[Cursor], object]
    first_bytes: frozenset[int] | None = None
    longest: int = attrs.field(default=1, init=False)

    def __call__(self, peeked: Datagrams, /) -> Verdict:
        """Say what the first datagram is."""
        try:
            self._read(Cursor(peeked.data))
        except (ShortError, MalformedError):
            return Verdict.NO
        return Verdict.MATCH
