"""Matches every client at its first byte; one that says nothing is the listener's ``silent``."""

from __future__ import annotations

import attrs

from txmux.interfaces import Peeked, Transport, Verdict
from txmux.wire.plain import PlainMatcher


@attrs.frozen
class _FirstByte:
    longest: int = 1

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return Verdict.MATCH if peeked.data else Verdict.NEED_MORE


any_client = PlainMatcher(
    "any", "anything at all, from its first byte", _FirstByte(), transports=tuple(Transport)
)
