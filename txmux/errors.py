"""The errors that txmux raises; each message tells its reader what to change."""

import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ListenError", "MuxError", "OptionError", "cause_of", "how_to_install", "printable"]

_PLAIN = {"\r\n", "\n", "\t", "\xa0", "\u202f"}  # the last ones are blanks in numbers of the page
_END_OR_ONE = re.compile(r"\r\n|.", re.DOTALL)
_OF_CLASS = {
    "ConnectingCancelledError": "no connection in time",
    "ConnectionDone": "the connection was closed",
    "ConnectionLost": "the connection was lost",
    "ParseError": "it is not HTTP",
    "TimeoutError": "timed out",
}
"""For errors whose own text names no cause."""

_MOST_LISTED = 30


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


def printable_lines(text: str) -> str:
    """Escape what others have written as `printable` does, but for ends of lines, tabs and blanks."""
    if text.isprintable():
        return text
    return "".join(map(_escaped_but_ends, _END_OR_ONE.findall(text)))


def _escaped_but_ends(text: str) -> str:
    return text if text in _PLAIN else _escaped(text)


def _escaped(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def cause_of(problem: Any) -> str:
    """Return why a connection failed, in the system's words, such as ``connection refused``.

    Twisted's text says it twice, with its number: "Connection was refused by other side: 111: Connection refused."
    """
    number: Any = getattr(problem, "osError", None) or getattr(problem, "errno", None)
    said = problem.args[0] if hasattr(problem, "osError") else getattr(problem, "strerror", None)
    if isinstance(inner := getattr(said, "value", None), Exception):
        # Twisted puts a failure there, as for a UNIX socket whose queue is full.
        return cause_of(inner)
    if said or isinstance(number, int):
        text = str(said or os.strerror(number))
        return text[:1].lower() + text[1:] if text[1:2].islower() else text
    what = {"OpenSSL.SSL": "no TLS: ", "OpenSSL.crypto": ""}.get(type(problem).__module__)
    reasons = problem.args[0] if what is not None and problem.args else ()
    if isinstance(reasons, list) and reasons:
        return f"{what}{', '.join(str(reason) for *_, reason in reasons)}"
    kind = type(problem).__name__
    return _OF_CLASS.get(kind) or str(problem).rstrip(".") or kind


def how_to_install(extra: str) -> str:
    """Return the command that adds an extra to the environment of this program, which need not be that of the shell."""
    return f"{_pip()} install 'txmux[{extra}]'"


def how_to_reinstall(package: str) -> str:
    """Return the command that restores the files of a package there, and changes no other package."""
    return f"{_pip()} install --force-reinstall --no-deps {package}"


def _pip() -> str:
    pip = Path(sys.prefix, "bin", "pip")
    program = str(pip) if pip.exists() else f"{sys.executable} -m pip"
    return f"{sudo_for(Path(sys.prefix))}{program}"


def own_command(words: str) -> str:
    """Return the line for a shell that runs the command `txmux` of this installation with words."""
    program = Path(sys.prefix, "bin", "txmux")
    shown = program if program.exists() else "txmux"
    return f"{sudo_for(Path(sys.prefix))}{shown} {words}"


def sudo_for(path: Path) -> str:
    """Return what stands before a command that changes a file which is not this user's; nothing where there is no sudo."""
    try:
        owner = path.stat().st_uid
    except OSError:  # another user may see it
        owner = 0
    is_own = owner == os.geteuid() != 0
    return "" if is_own or shutil.which("sudo") is None else "sudo "


class MuxError(Exception):
    """What all errors of txmux have in common.

    Attributes:
        do: What the operator does about it, if that is not to correct the rules.
    """

    do = ""


PLUGIN_ERRORS = (Exception, SystemExit)
"""What a matcher of another package may raise; `sys.exit` there is to end neither a service nor a command."""


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


def joined(words: Sequence[str], by: str = "or") -> str:
    return f" {by} ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def listed(known: Iterable[str], there_are: str = "there are") -> str:
    """Return `` (there are http, tls)``."""
    words = list(known)
    shown = [*words[:_MOST_LISTED], *(["…"] if len(words) > _MOST_LISTED else [])]
    return f" ({there_are} {', '.join(shown) or 'none'})"
