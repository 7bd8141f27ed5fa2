"""Grammars that are read field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.interfaces import Verdict
from txmux.wire.cursor import Cursor, MalformedError, ShortError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["verdict_of"]


def verdict_of(data: bytes, read: Callable[[Cursor], object]) -> Verdict:
    """Say whether a stream of which `data` has come so far begins as a grammar wants it.

    Args:
        data: The bytes so far.
        read: Reads from a cursor what has to be there, and raises `MalformedError` if it is not.
    """
    try:
        read(Cursor(data))
    except ShortError:
        return Verdict.NEED_MORE
    except MalformedError:
        return Verdict.NO
    return Verdict.MATCH
