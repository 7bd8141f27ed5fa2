"""The errors that txmux raises; each message tells its reader what to change."""

from __future__ import annotations

__all__ = ["ListenError", "MuxError", "OptionError", "printable"]


def printable(text: str, most: int | None = None) -> str:
    """Escape what others have written, so that it can neither begin a line of its own nor command a terminal.

    Args:
        text: For a log, an answer or a terminal.
        most: The most characters that are given; all if there is no limit.
    """
    is_long = most is not None and len(text) > most
    cut = text[:most] if is_long else text
    escaped = cut if cut.isprintable() else "".join(map(_escaped, cut))
    return f"{escaped[:most]}…" if is_long or (most and len(escaped) > most) else escaped


def _escaped(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


class MuxError(Exception):
    """What all errors of txmux have in common."""


class OptionError(MuxError):
    """A matcher cannot use an option's value, or cannot do without it.

    Args:
        option: The option's name, or ``None`` when no single option is at fault.
        message: What is wrong and what would be right, without the option's name.
    """

    def __init__(self, option: str | None, message: str) -> None:
        super().__init__(f"{option}: {message}" if option else message)
        self.option = option


class ListenError(MuxError):
    """A listening socket could not be opened: a taken port, a missing permission."""
