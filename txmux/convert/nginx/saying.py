"""What clients say in their ClientHello, as conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.convert.patterns import protocol_patterns
from txmux.convert.terms import Term

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Lost = Callable[[int, str], None]

NAME, PROTOCOLS, VERSION, ADDRESS = "sni", "alpn", "version", "address"
"""What is known of a client."""

VERSIONS = {
    "SSLv2": "ssl2",
    "SSLv3": "ssl3",
    "TLSv1": "1.0",
    "TLSv1.1": "1.1",
    "TLSv1.2": "1.2",
    "TLSv1.3": "1.3",
}
"""How nginx and txmux call them."""

_MOST_IN_LINE = 8
_ACME = "acme-tls/1"
"""Clients of ACME offer this protocol and no other (RFC 8737, section 3)."""


def tls(**options: str) -> Term:
    return Term("tls", tuple(options.items()))


def names(patterns: list[str]) -> Iterable[Term]:
    """Yield what a client has to say that asks for one of these names; no line gets too long."""
    regular = [name for name in patterns if name.startswith("~")]
    others = [name for name in patterns if not name.startswith("~")]
    for at in range(0, len(others), _MOST_IN_LINE):
        yield tls(sni=",".join(others[at : at + _MOST_IN_LINE]))
    for pattern in regular:
        yield tls(sni=pattern)


def offered(text: str, line: int, lost: Lost) -> str:
    """Write a list of protocols as a pattern of one that is offered."""
    first = text.partition(",")[0]
    if text != _ACME:
        lost(line, f"{text}: becomes alpn={first}, for clients that offer others, too")
    return first


def protocols(pattern: str, line: int, lost: Lost) -> str:
    """Write a regular expression on the list of protocols as patterns of one that is offered.

    Raises:
        InexpressibleError: It is about the whole list.
    """
    patterns, exact = protocol_patterns(pattern)
    if not exact and patterns != _ACME:
        lost(line, f"~{pattern}: becomes alpn={patterns}, wherever in the client's list it is")
    return patterns
