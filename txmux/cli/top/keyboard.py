"""Keys, as a terminal sends them: bytes in UTF-8, and escape sequences (ECMA-48, and those of xterm). Pure."""

from __future__ import annotations

import re

__all__ = ["read_keys"]

_NAMES = {
    b"A": "up",
    b"B": "down",
    b"C": "right",
    b"D": "left",
    b"H": "home",
    b"F": "end",
    b"Z": "backtab",
    b"1~": "home",
    b"4~": "end",
    b"5~": "page-up",
    b"6~": "page-down",
    b"7~": "home",
    b"8~": "end",
}
_CONTROLS = {
    b"\t": "tab",
    b"\r": "enter",
    b"\n": "enter",
    b"\x08": "backspace",
    b"\x7f": "backspace",
    b"\x0c": "redraw",
    b"\x15": "clear",
}
_SEQUENCE = re.compile(rb"\x1b(?:\[([0-?]*[ -/]*[@-~])|O([ -~]))")
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_LONGEST = 32  # bytes of a sequence


def read_keys(data: bytes, *, is_last: bool = False) -> tuple[list[str], bytes]:
    """Read keys.

    Args:
        data: What the terminal has sent.
        is_last: Whether nothing has come for a while, so that what looks like the beginning of a sequence is not one.

    Returns:
        The keys: characters, and the names of others, which have more than one letter. And what is to be put before the bytes
        that come next.
    """
    keys = []
    while data:
        if not is_last and len(data) < _LONGEST and _BEGUN.match(data):
            break
        if found := _SEQUENCE.match(data):
            name = _NAMES.get(found[1] or found[2])
            keys += [name] if name else []
            data = data[found.end() :]
        elif data[:1] == b"\x1b":
            keys.append("escape")
            data = data[1:]
        else:
            size = _size_of(data[0])
            if len(data) < size and not is_last:
                break
            key = _CONTROLS.get(data[:1]) or data[:size].decode("utf-8", "replace")
            keys += [key] if key.isprintable() else []
            data = data[size:]
    return keys, data


def _size_of(lead: int) -> int:
    """Return how many bytes a character has, by its first one."""
    if 0xC2 <= lead < 0xF5:
        return 2 + (lead >= 0xE0) + (lead >= 0xF0)
    return 1
