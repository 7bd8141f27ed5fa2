"""Which program a configuration is for, and what converts it."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

import attrs

from txmux.convert.haproxy import convert_haproxy
from txmux.convert.sslh import convert_sslh
from txmux.convert.writer import ConvertError, Draft

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from txmux.interfaces import IProtocolMatcher

__all__ = ["PROGRAMS", "Conversion", "Program", "convert"]

Program = Literal["sslh", "haproxy"]
PROGRAMS: tuple[Program, ...] = ("sslh", "haproxy")

_SSLH = re.compile(rb"^\s*(listen|protocols)\s*[:=]", re.MULTILINE)
_HAPROXY = re.compile(rb"^\s*(global|defaults|(frontend|backend|listen)\s+\S)", re.MULTILINE)


@attrs.frozen
class Conversion:
    """A rules file.

    Attributes:
        text: It has no errors but its ``# LOOK:`` lines.
        warnings: What is lost or different, a line each.
        has_looks: Whether there are ``# LOOK:`` lines, of which each waits for a person's decision.
    """

    text: str
    warnings: tuple[str, ...]
    has_looks: bool = False


def convert(
    data: bytes,
    path: str,
    matchers: Mapping[str, IProtocolMatcher],
    port_of: Callable[[str], int | None],
    program: Program | None = None,
) -> Conversion:
    """Convert a configuration.

    Args:
        data: What is in the file.
        path: Its name.
        matchers: The matchers there are, by name.
        port_of: Gives the TCP port of a service, or ``None``.
        program: Whose configuration it is; by default that is guessed.

    Raises:
        ConvertError: Nothing of it can be converted.
    """
    draft = Draft(path)
    if (program or _guess(data, path)) == "sslh":
        convert_sslh(data, path, draft, matchers, port_of)
    else:
        convert_haproxy(data, path, draft, matchers)
    text = draft.finish(matchers)
    return Conversion(text, draft.warnings, draft.has_looks)


def _guess(data: bytes, path: str) -> Program:
    # The content first: a name may say anything.
    sslh, haproxy = _SSLH.search(data), _HAPROXY.search(data)
    if bool(sslh) != bool(haproxy):
        return "sslh" if sslh else "haproxy"
    for program in PROGRAMS:
        if program in PurePath(path).name:
            return program
    raise ConvertError(
        f"{path}: neither an sslh.cfg nor an haproxy.cfg; tell which by --from sslh or --from haproxy"
    )
