"""How a reader goes on with more bytes: a copy of what it found in fewer ones, since those may have another continuation."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def copied(one: T) -> T:
    """Copy an object without slots. `copy.copy` would take longer than to read a byte, and a client may send byte by byte."""
    new = object.__new__(type(one))
    new.__dict__ = one.__dict__.copy()
    return new
