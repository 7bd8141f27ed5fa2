"""A stage: a proxy has connected on behalf of a client, and has to send a PROXY protocol header first."""

from __future__ import annotations

from typing import ClassVar

from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from typing_extensions import override

from txmux.net.addresses import ip_address_of, text_of
from txmux.net.relay.interface import MARGIN
from txmux.net.relay.kernel import FULL
from txmux.net.sockets.poller import READ
from txmux.rules.model import NetworkSet, Refusal, Senders
from txmux.tcp.fast_path import CLIENT_GONE, DONT_WAIT
from txmux.tcp.stage import Client, Stage, Step
from txmux.tcp.transitions import Finished, Identified, Outcome, TurnedAway
from txmux.telemetry.record import ConnectionState
from txmux.transport import unmapped
from txmux.wire.facts import printable
from txmux.wire.proxyprotocol.decode import Decoded, Incomplete, decode
from txmux.wire.proxyprotocol.fields import header_facts
from txmux.wire.proxyprotocol.header import Address, Command, InvalidHeader, ProxyHeader

_START_OF_V2 = 16  # has the length of the rest
_CUT = "the stream ended inside the header"
_FORGED = "a client of this service has written it, at a place of its own choice; add 'proxy_protocol' to the backend that leads here"


def is_sender(peer: IAddress, senders: NetworkSet) -> bool:
    """Return whether a connection has to begin with a header."""
    end = ip_address_of(peer)
    if end is not None:
        return end.host in senders
    by_unix = isinstance(peer, UNIXAddress)
    return by_unix and isinstance(senders, Senders) and senders.by_unix


def enter(client: Client) -> Step | None:
    if client.transport is not None:
        return ReadingProxyHeader(client)
    client.state = "introduction"
    record_sender(client, client.peer_address())
    return read(client)


def read(client: Client) -> Step | None:
    """Read the header, if it has come whole."""
    path = client.path
    try:
        client.received = client.socket.recv(FULL, DONT_WAIT)
    except BlockingIOError:
        if path.header_timeout <= MARGIN:
            return ReadingProxyHeader(client)
        path.poller.watch(client.socket.fileno(), READ, client.socket_ready)
        return None
    except OSError:
        return CLIENT_GONE
    if not client.received:
        return CLIENT_GONE
    try:
        answer: Decoded | Incomplete | None = take_header(client)
    except InvalidHeader:  # the stage logs it
        answer = None
    if isinstance(answer, Decoded):
        return Identified(answer.length)
    return ReadingProxyHeader(client)


def due_at(client: Client) -> float:
    return client.accepted_at + client.path.header_timeout


class ReadingProxyHeader(Stage):
    """Waits for the header. Nothing else is done for the connection, because its client is not known yet."""

    state: ClassVar[ConnectionState] = "introduction"
    only_previews: ClassVar[bool] = True

    _length = 0  # of the header, at least

    @override
    def begin(self) -> Outcome | None:
        client = self._client
        record_sender(client, client.transport.getPeer())
        timeout = client.configuration.settings.proxy_timeout
        self.wait(client.time_left(timeout), self._on_timeout)
        return self.on_data() if client.received else None

    @override
    def receive(self, data: bytes) -> Outcome | None:
        self._client.received += data  # it is not counted
        return self.on_data()

    @override
    def on_data(self) -> Outcome | None:
        received = self._client.received
        if len(received) < self._length:
            return None
        try:
            answer = take_header(self._client)
        except InvalidHeader as problem:
            return self._refuse(str(problem))
        if isinstance(answer, Incomplete):
            # The fields may be many, and would be read again with every byte.
            if received.startswith(b"\r") and len(received) >= _START_OF_V2:
                self._length = len(received) + answer.need
            return None
        return Identified(answer.length)

    @override
    def on_finished(self) -> Outcome:
        if self._client.received:
            return self._refuse(_CUT)
        # It was a port scan or a health check.
        return TurnedAway(Refusal.CLOSE, "client-gone")

    @override
    def connection_lost(self, reason: Failure) -> None:
        client = self._client
        if client.received:
            client.record.note(proxy_error=_CUT)
        client.advance(Finished("proxy-header" if client.received else "client-gone"))

    def _on_timeout(self) -> Outcome:
        seconds = self._client.configuration.settings.proxy_timeout
        return self._refuse(f"no header within {seconds:g} s: see accept_proxy_from")

    def _refuse(self, problem: str) -> Outcome:
        self._client.record.note(proxy_error=printable(problem))
        return TurnedAway(Refusal.CLOSE, "proxy-header")


def record_sender(client: Client, sender: IAddress) -> None:
    client.record.note(proxy_peer=text_of(sender))


def take_header(client: Client) -> Decoded | Incomplete:
    """Read the header with which `received` begins, and take over its fields for the client if it has come in full.

    Raises:
        InvalidHeader: It is none, or a field cannot be read.
    """
    answer = decode(client.received)
    if client.runtime.loop_detector.may_forge_header(client.peer(), client.host()):
        raise InvalidHeader(_FORGED)
    if isinstance(answer, Decoded):
        _apply_header(client, answer.header)
    return answer


def _apply_header(client: Client, header: ProxyHeader) -> None:
    """Take over a header's fields for a client; raises `InvalidHeader` if a field cannot be read."""
    if header.command is Command.LOCAL:
        return
    record = client.record
    if header.tlvs:
        record.note({name: printable(text) for name, text in header_facts(header).items()})
    client.tlvs = header.tlvs
    if header.source is not None and header.destination is not None:
        client.source = _unmapped(header.source)
        client.destination = _unmapped(header.destination)
        record.client = str(client.source)
        record.local = str(client.destination)


def _unmapped(end: Address) -> Address:
    host = unmapped(end.host)
    return end if host is end.host else Address(host, end.port)
