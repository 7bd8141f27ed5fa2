"""What matchers for UDP make of a ClientHello that comes in datagrams: those of QUIC and DTLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from txmux.interfaces import MOST_DATAGRAMS, Datagrams, Verdict
from txmux.wire.hello_options import name_in

if TYPE_CHECKING:
    from txmux.wire.client_hello import HelloReader
    from txmux.wire.hello_options import HelloOptions

__all__ = ["HelloOpening", "server_name", "verdict_on"]


class HelloOpening(Protocol):
    """How far an opening with a ClientHello has come."""

    @property
    def refused(self) -> bool:
        """Whether it is none, whatever follows."""

    @property
    def hello(self) -> HelloReader:
        """The ClientHello, as far as it has come."""


def server_name(opening: HelloOpening) -> str | None:
    """Return the server name as a `Key` wants it: empty if there is none and never will be, ``None`` while it is not known."""
    name = name_in(opening.hello)
    return "" if name is None and opening.refused else name


def verdict_on(opening: HelloOpening, wanted: HelloOptions | None, flow: Datagrams) -> Verdict:
    """Return whether the hello is what is wanted, once it is whole, or cannot be any more.

    Args:
        opening: How far it has come.
        wanted: What it has to have; without it, a hello is not enough, and more datagrams are waited for.
        flow: The datagrams until now.
    """
    if opening.refused:
        return Verdict.NO
    if wanted is not None:
        if opening.hello.malformed or not wanted.fit(opening.hello):
            return Verdict.NO
        if opening.hello.hello:
            return Verdict.MATCH
    return Verdict.NEED_MORE if len(flow.datagrams) < MOST_DATAGRAMS else Verdict.NO
