"""The matcher for iperf3."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Iperf3Matcher"]

_COOKIE_SIZE = 37
_COOKIE = re.compile(rb"[a-z2-7]{36}\x00")
_BEGINNING = re.compile(rb"[a-z2-7]{0,36}")


@attrs.frozen
class _Iperf3Predicate:
    longest: int = _COOKIE_SIZE
    first_bytes: frozenset[int] = frozenset(b"abcdefghijklmnopqrstuvwxyz234567")

    def __call__(self, peeked: Peeked, /) -> Verdict:
        if _COOKIE.match(peeked.data):
            return Verdict.MATCH
        return Verdict.NEED_MORE if _BEGINNING.fullmatch(peeked.data) else Verdict.NO


@implementer(IProtocolMatcher)
class Iperf3Matcher:
    """Matches the cookie with which an iperf3 client begins each of its connections.

    36 letters of ``a`` to ``z`` and ``2`` to ``7``, and a NUL (``make_cookie`` in iperf's ``iperf_util.c``,
    ``COOKIE_SIZE`` in its ``iperf.h``). Early releases put the name of the client's machine and the time there;
    they are not matched.
    """

    name = "iperf3"
    summary = "iperf3, by the cookie that begins its connections"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _Iperf3Predicate()
