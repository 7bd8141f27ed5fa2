"""Local addresses to connect from, with or without ports."""

from __future__ import annotations

import re

__all__ = ["split_source"]

_WITH_PORTS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})(?:-([0-9]{1,5}))?")


def split_source(text: str) -> tuple[str, range | None]:
    """Split what ``source =`` has into the address and its ports.

    Args:
        text: ``192.0.2.1``, ``192.0.2.1:40000-50000`` or ``[2001:db8::1]:40000``.

    Returns:
        The address, which need not be one, and the ports; ``None`` if the system is to choose.
    """
    found = _WITH_PORTS.fullmatch(text)
    if found is None:
        return text, None
    v6, v4, first, last = found.groups()
    return v6 or v4, range(int(first), int(last or first) + 1)
