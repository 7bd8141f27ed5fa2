"""A stage: a proxy has connected on behalf of a client, and a PROXY protocol header has to say whose the connection is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from twisted.internet.address import UNIXAddress
from typing_extensions import override

from txmux.net.addresses import ip_address_of, text_of
from txmux.rules.model import Refusal, Senders
from txmux.tcp.stage import Stage
from txmux.wire.facts import printable
from txmux.wire.proxyprotocol.decode import Incomplete, decode
from txmux.wire.proxyprotocol.header import InvalidHeader

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.python.failure import Failure

    from txmux.rules.model import NetworkSet
    from txmux.telemetry.states import ConnectionState

_START_OF_V2 = 16  # has the length of the rest
_CUT = "the stream ended inside of the header"


def is_sender(peer: IAddress, senders: NetworkSet) -> bool:
    """Return whether a connection has to begin with a header.

    Args:
        peer: Where it comes from.
        senders: As in the rules.
    """
    end = ip_address_of(peer)
    if end is not None:
        return end.host in senders
    by_unix = isinstance(peer, UNIXAddress)
    return by_unix and isinstance(senders, Senders) and senders.by_unix


class ReadingProxyHeader(Stage):
    """Waits for the header. Nothing else is done for the connection, because it is not known yet whose it is."""

    state: ClassVar[ConnectionState] = "introduction"
    only_looks: ClassVar[bool] = True

    _detection: IDelayedCall | None = None
    _length = 0  # of the header, at least

    @override
    def begin(self) -> None:
        client = self._client
        client.record.facts["proxy_peer"] = text_of(client.transport.getPeer())
        self.wait(client.configuration.settings.proxy_timeout, self._too_late)
        # The time that detection has counts from accept for every client.
        self._detection = client.detection_deadline()

    @override
    def leave(self) -> None:
        super().leave()
        if self._detection is not None and self._detection.active():
            self._detection.cancel()

    @override
    def data(self, data: bytes) -> None:
        client = self._client
        client.received += data
        received = client.received
        if len(received) < self._length:
            return
        try:
            answer = decode(received)
            if isinstance(answer, Incomplete):
                # The fields may be many, and would be read again with every byte.
                if received.startswith(b"\r") and len(received) >= _START_OF_V2:
                    self._length = len(received) + answer.need
                return
            client.apply_proxy_header(answer.header)
        except InvalidHeader as problem:
            self._refuse(str(problem))
            return
        if client.admit():
            # What comes after the header is the client's own.
            client.skip(answer.length)
            client.record.bytes_in += len(client.received)
            deadline, self._detection = self._detection, None
            client.peek(client.configuration.top, deadline)

    @override
    def on_finished(self) -> None:
        if self._client.received:
            self._refuse(_CUT)
        else:
            # It was a port scan or a health check.
            self._client.turn_away(Refusal.CLOSE, "client-gone")

    @override
    def lost(self, reason: Failure) -> None:
        client = self._client
        if client.received:
            client.record.facts["proxy_error"] = _CUT
        client.over("proxy-header" if client.received else "client-gone")

    def _too_late(self) -> None:
        seconds = self._client.configuration.settings.proxy_timeout
        self._refuse(f"there was no header in {seconds:g} s: see accept_proxy_from")

    def _refuse(self, problem: str) -> None:
        self._client.record.facts["proxy_error"] = printable(problem)
        self._client.turn_away(Refusal.CLOSE, "proxy-header")
