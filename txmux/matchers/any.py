"""Matches every client at its first byte, or with its first datagram; one that says nothing is the listener's ``silent``."""

from txmux.classes import frozen
from txmux.interfaces import Peeked, Transport, Verdict
from txmux.wire import Cursor, DatagramFields, PlainMatcher


@frozen
class _FirstByte:
    longest: int = 1

    def __call__(self, peeked: Peeked, /) -> Verdict:
        return Verdict.MATCH if peeked.data else Verdict.NEED_MORE


def _read_nothing(_: Cursor) -> None:
    """Accept any datagram, also an empty one (RFC 867 and 868)."""


any = PlainMatcher(  # noqa: A001 - the matcher of a module has its name
    "any",
    "anything at all, from its first byte",
    _FirstByte(),
    transports=tuple(Transport),
    datagrams=DatagramFields(_read_nothing),
)
