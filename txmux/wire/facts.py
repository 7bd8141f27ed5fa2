"""Makes values of matchers safe for the access log."""

import re

__all__ = ["printable"]

LONGEST_FACT = 255
_PLAIN = re.compile(r"[ -\[\]-~]*")  # printable ASCII but for the backslash


def printable(text: str) -> str:
    """Make what a client sent safe for one field of a log line.

    Args:
        text: One character a byte, as ISO 8859-1 decodes it.

    Returns:
        At most 255 printable ASCII characters; all others, and the backslash, as Python escapes them.
    """
    if len(text) <= LONGEST_FACT and _PLAIN.fullmatch(text):
        return text
    return text[:LONGEST_FACT].encode("unicode_escape").decode("ascii")[:LONGEST_FACT]
