"""Between a client's TLS and its connection: requests of HTTP/2 for names that belong to other routes are answered 421."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from txmux.features.misdirected.places import Fields, Place, name_of, opening, place_of, with_name
from txmux.features.misdirected.rows import MISDIRECTED
from txmux.features.misdirected.streams import Streams, TooManyError
from txmux.net.relay.peers import NO_RECEIVER
from txmux.net.sockets.transport import below_tls, unsent_bytes
from txmux.rules.model import Refusal
from txmux.transport import normal_host
from txmux.wire.cursor import MalformedError
from txmux.wire.facts import printable

if TYPE_CHECKING:
    from txmux.client.configuration import RuleLayer
    from txmux.tcp.stage import Client

_MOST_UNREAD = 1 << 16  # bytes for a client that reads none of its answers
_MOST_LOOKS = 200
"""Requests of a connection that are decided: each takes as long as a connection, and is a few bytes."""


def watch(client: Client, hello: bytes, outer: RuleLayer, inside: RuleLayer) -> None:
    """Watch the requests of a client that speaks HTTP/2, unless all names lead to the same place."""
    if (outer.goes_by_hello and _chooses(outer)) or _chooses(inside):
        with suppress(MalformedError):
            _Requests(client, Misdirected(client, with_name(hello, ""), outer))


def _chooses(layer: RuleLayer) -> bool:
    return len(layer.detector.routes) + (not isinstance(layer.default, Refusal)) > 1


class Misdirected:
    """Finds requests whose clients would get elsewhere by connections of their own.

    Attributes:
        name: That of the connection: the one in its hello, or else that of its first request.
    """

    def __init__(self, client: Client, hello: bytes, outer: RuleLayer) -> None:
        tls, inside = client.agreed_tls, client.configuration.inside
        address = client.address
        assert tls is not None  # noqa: S101 - it ends here
        self.name = normal_host(tls.sni or "")
        self._hello = hello
        self._layers = outer, lambda route: inside[route.name]
        self._client = address.host if address else None, client.record.time, tls.found
        self._looked: dict[int, bool] = {}
        self._by_name: dict[str, bool] = {}

    def name_of(self, fields: Fields) -> str:
        """Return the name that a request asks for, if it is misdirected."""
        name = name_of(fields)
        self.name = self.name or name
        if name in {"", self.name}:
            return ""
        asked = hash(tuple(fields))  # they may be long
        is_misdirected = self._looked.get(asked)
        if is_misdirected is None and len(self._looked) < _MOST_LOOKS:
            own = self._place(name, fields)
            is_misdirected = own is not None and own != self._place(self.name, fields)
            self._looked[asked] = self._by_name[name] = is_misdirected
        if is_misdirected is None:
            is_misdirected = self._by_name.get(name, False)
        return name if is_misdirected else ""

    def _place(self, name: str, fields: Fields) -> Place | None:
        hello, request = with_name(self._hello, name), opening(fields, name)
        return place_of(name, hello, request, self._layers, *self._client)


class _Requests:
    """The protocol of a client's TLS, and the transport of its connection."""

    def __init__(self, client: Client, misdirected: Misdirected) -> None:
        transport: Any = client.transport
        own: Any = self
        self.transport = transport
        self.protocol: Any = client
        self._client, self._misdirected = client, misdirected
        self._count = 0
        self._streams = Streams(self._is_misdirected)
        self._unread = 0
        directlyProvides(self, providedBy(transport))
        transport.wrappedProtocol, client.transport = own, own

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def _is_misdirected(self, fields: Fields) -> bool:
        name = self._misdirected.name_of(fields)
        if not name:
            return False
        client = self._client
        self._count += 1
        facts = {"misdirected_host": printable(name), **client.record.facts}
        client.record.facts = {**facts, "misdirected": str(self._count)}
        client.configuration.counts.cells[MISDIRECTED.at] += 1
        return True

    def _send(self, data: bytes) -> None:
        self._client.record.bytes_out += len(data)
        # What waits may be a server's, for a client that is slow.
        self._unread = self._unread + len(data) if unsent_bytes(below_tls(self.transport)) else 0
        self.transport.write(data)
        if self._unread > _MOST_UNREAD:
            raise TooManyError

    # The protocol.

    def dataReceived(self, data: bytes) -> None:
        record = self._client.record
        try:
            passed = self._streams.from_client(data)
            record.bytes_in += len(data) - len(passed)
            if answers := self._streams.answers():
                self._send(answers)
        except TooManyError:
            self.protocol.end("limit")
            return
        if passed:
            self.protocol.dataReceived(passed)

    def readConnectionLost(self) -> None:
        self.protocol.readConnectionLost()

    def truncated(self) -> None:
        self.protocol.truncated()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        protocol, self.protocol = self.protocol, NO_RECEIVER  # breaks a reference cycle
        protocol.connectionLost(reason)

    # The transport.

    def write(self, data: bytes) -> None:
        passed = self._streams.from_server(data)
        self._client.record.bytes_out += len(passed) - len(data)
        self.transport.write(passed)
