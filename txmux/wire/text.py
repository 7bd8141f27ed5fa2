"""Small questions to bytes that several matchers ask."""

from __future__ import annotations

import re

from txmux.interfaces import Verdict

__all__ = ["begins_with", "printable"]

_LONGEST_FACT = 255
_PLAIN = re.compile(r"[ -\[\]-~]*")  # printable ASCII but for the backslash


def begins_with(data: bytes, expected: bytes) -> Verdict:
    """Say whether a stream of which `data` has come so far begins with `expected`."""
    if data.startswith(expected):
        return Verdict.MATCH
    return Verdict.NEED_MORE if expected.startswith(data) else Verdict.NO


def printable(text: str) -> str:
    """Make what a client sent safe for one field of a log line.

    Args:
        text: One character a byte, as ISO 8859-1 decodes it.

    Returns:
        At most 255 printable ASCII characters; all others, and the backslash, as Python escapes them.
    """
    if len(text) <= _LONGEST_FACT and _PLAIN.fullmatch(text):
        return text
    return text[:_LONGEST_FACT].encode("unicode_escape").decode("ascii")[:_LONGEST_FACT]
