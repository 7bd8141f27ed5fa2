"""``/etc/default/sslh``, which the start script of Debian reads as a shell does; nothing of it is run here."""

from __future__ import annotations

import re
import shlex

from txmux.convert.writer import ConvertError

_OPTIONS = "DAEMON_OPTS"
_ASSIGNED = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
IS_DEFAULTS = re.compile(rb"^[ \t]*(export[ \t]+)?DAEMON_OPTS=", re.MULTILINE)
"""What tells such a file."""


def read_defaults(text: str, path: str) -> tuple[list[str], int, dict[str, str]]:
    """Read the arguments of sslh.

    Args:
        text: What is in the file.
        path: Its name.

    Returns:
        The arguments, their line, and all variables.

    Raises:
        ConvertError: It has no arguments, or ones that depend on what is not in the file.
    """
    variables: dict[str, str] = {}
    found = 0
    lines = text.replace("\\\n", " \x00").split("\n")
    number = 1
    for line in lines:
        here, number = number, number + 1 + line.count("\x00")
        try:
            words = shlex.split(line.replace("\x00", ""), comments=True)
        except ValueError as error:
            raise ConvertError(f"{path}:{here}: {error}") from None
        for word in words:
            assigned = _ASSIGNED.fullmatch(word)
            if assigned:
                variables[assigned["name"]] = _expanded(assigned["value"], variables)
                found = here if assigned["name"] == _OPTIONS else found
    options = variables.get(_OPTIONS, "")
    unknown = re.search(r"[$`]", options)
    if not found or unknown:
        why = f"{_OPTIONS} depends on what a shell does" if unknown else f"there is no {_OPTIONS}"
        raise ConvertError(f"{path}:{found}: {why}; write 'txmux convert sslh -- ARGUMENTS'")
    try:
        return shlex.split(options), found, variables
    except ValueError as error:
        raise ConvertError(f"{path}:{found}: {error}") from None


def _expanded(text: str, variables: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda f: variables.get(f[1] or f[2], f[0]), text)
