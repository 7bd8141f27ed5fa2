"""The matcher for HTTP/2 without TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict
from txmux.wire.http2_opening import PREFACE
from txmux.wire.text import begins_with

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Http2Matcher"]


@attrs.frozen
class _Http2Predicate:
    longest: int = len(PREFACE)
    first_bytes: frozenset[int] = frozenset(PREFACE[:1])

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return begins_with(peeked.data, PREFACE)


@implementer(IProtocolMatcher)
class Http2Matcher:
    """Matches the connection preface of an HTTP/2 client with prior knowledge (RFC 9113, sections 3.3 and 3.4)."""

    name = "http2"
    summary = "HTTP/2 without TLS, gRPC included, by its preface"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:  # noqa: ARG002
        """Make the predicate; there is nothing to configure."""
        return _Http2Predicate()
