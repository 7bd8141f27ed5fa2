"""Predicates for protocols that begin with a few binary fields, each of which allows only some values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.wire.cursor import MalformedError
from txmux.wire.reading import verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from txmux.interfaces import Peeked, Verdict
    from txmux.wire.cursor import Cursor

__all__ = ["FieldsPredicate", "literal", "one_of"]


@attrs.frozen
class FieldsPredicate:
    """Whether the fields that a reader wants are there.

    Attributes:
        read: Reads the fields; raises as `Cursor` does. What it returns does not matter.
        longest: The most bytes that it reads.
        first_bytes: The bytes that it allows first; ``None`` for any.
    """

    read: Callable[[Cursor], object]
    longest: int
    first_bytes: frozenset[int] | None

    def __call__(self, peeked: Peeked, /) -> Verdict:
        """Say what these bytes are."""
        return verdict_of(peeked.data, self.read)


def literal(cursor: Cursor, expected: bytes) -> None:
    """Read bytes that have to be these.

    Raises:
        MalformedError: They begin otherwise.
        ShortError: They are not there in full.
    """
    cursor.number(len(expected), value := int.from_bytes(expected, "big"), value)


def one_of(cursor: Cursor, allowed: Collection[int]) -> int:
    """Read one byte that has to be among those allowed.

    Raises:
        MalformedError: It is another.
        ShortError: It is not there.
    """
    value = cursor.number(1, 0, 0xFF)
    if value not in allowed:
        raise MalformedError
    return value
