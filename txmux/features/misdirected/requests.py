"""Between a client's TLS and its connection: requests of HTTP/2 for names that belong to other routes are answered 421."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from txmux.features.misdirected.places import Fields, Place, names_of, opening, place_of, with_name
from txmux.features.misdirected.rows import MISDIRECTED
from txmux.features.misdirected.streams import Streams, TooManyError
from txmux.net.relay.peers import NO_RECEIVER
from txmux.net.sockets.transport import below_tls, unsent_bytes
from txmux.rules.model import Refusal
from txmux.transport import normal_host
from txmux.wire.cursor import MalformedError
from txmux.wire.facts import printable
from txmux.wire.hello.records import is_hello_alone

if TYPE_CHECKING:
    from txmux.client.configuration import Configuration, RuleLayer
    from txmux.tcp.stage import Client

_MOST_UNREAD = 1 << 16  # bytes for a client that reads none of its answers
_MOST_LOOKS = 200
"""Requests of a connection that are decided: each takes as long as a connection, and is a few bytes."""


_protecting: WeakKeyDictionary[Any, frozenset[int]] = WeakKeyDictionary()  # by `Configuration`


def watch(client: Client, hello: bytes, outer: RuleLayer, inside: RuleLayer) -> None:
    """Watch the requests of a client that speaks HTTP/2, unless all names lead to the same place.

    Where a certificate of the client protects another place, what cannot be read is refused.
    """
    if (outer.goes_by_hello and _chooses(outer)) or _chooses(inside):
        is_strict = id(inside) in _beside_protected(client.configuration)
        _Requests(client, Misdirected(client, hello, outer), is_strict=is_strict)


def _beside_protected(configuration: Configuration) -> frozenset[int]:
    """Return the layers beside which another route asks clients for another certificate."""
    if configuration not in _protecting:
        routes = [route for layer in configuration.layers for route in layer.detector.routes]
        ends = ((route.name, route.terminate_tls) for route in routes)
        asked = {name: tls.verification for name, tls in ends if tls and tls.client_ca}
        every = {*asked.values(), *filter(None, (route.client_cert for route in routes))}
        _protecting[configuration] = frozenset(
            id(layer) for name, layer in configuration.inside.items() if every - {asked.get(name)}
        )
    return _protecting[configuration]


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
        self._hello = with_name(hello, "") if is_hello_alone(hello) else hello  # few records
        self._layers = outer, lambda route: inside[route.name]
        self._client = address.host if address else None, client.record.time, tls.found
        self._looked: dict[int, bool] = {}
        self._by_name: dict[str, bool] = {}

    def name_of(self, fields: Fields, *, is_strict: bool) -> str:
        """Return the name that a request asks for, if it is misdirected; if `is_strict`, after many looks each is that is not known.

        Raises:
            MalformedError: It cannot be read.
        """
        names = names_of(fields)
        self.name = self.name or next(iter(names), "")
        others = (name for name in names if name != self.name)
        return next((n for n in others if self._is_elsewhere(n, fields, is_strict)), "")

    def _is_elsewhere(self, name: str, fields: Fields, is_strict: bool) -> bool:  # noqa: FBT001 - as above
        asked = hash((name, *fields))  # they may be long
        is_misdirected = self._looked.get(asked)
        if is_misdirected is None and len(self._looked) < _MOST_LOOKS:
            own = self._place(name, fields)
            is_misdirected = own is not None and own != self._place(self.name, fields)
            self._looked[asked] = self._by_name[name] = is_misdirected
        if is_misdirected is None:
            is_misdirected = is_strict or self._by_name.get(name, False)
        return is_misdirected

    def _place(self, name: str, fields: Fields) -> Place | None:
        hello, request = with_name(self._hello, name), opening(fields, name)
        return place_of(name, hello, request, self._layers, *self._client)


class _Requests:
    """The protocol of a client's TLS, and the transport of its connection."""

    def __init__(self, client: Client, misdirected: Misdirected, *, is_strict: bool) -> None:
        transport: Any = client.transport
        own: Any = self
        self.transport = transport
        self.protocol: Any = client
        self._client, self._misdirected = client, misdirected
        self._count = 0
        self._is_strict = is_strict
        self._streams = Streams(self._is_misdirected, self._may_pass_unread)
        self._unread = 0
        directlyProvides(self, IHalfCloseableProtocol, providedBy(transport))
        transport.protocol, client.transport = own, own

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def _is_misdirected(self, fields: Fields) -> bool:
        client = self._client
        try:
            name = self._misdirected.name_of(fields, is_strict=self._is_strict)
        except MalformedError:
            name = "" if self._may_pass_unread() else "?"
        if not name:
            return False
        self._count += 1
        first = client.record.facts.get("misdirected_host", printable(name))
        client.record.note(misdirected_host=first, misdirected=str(self._count))
        client.configuration.counts.cells[MISDIRECTED.at] += 1
        return True

    def _may_pass_unread(self) -> bool:
        self._client.record.note(misdirected_unread="yes")
        return not self._is_strict

    def _send(self, data: bytes) -> None:
        self._client.record.bytes_out += len(data)
        # What waits may be a server's, for a client that is slow.
        self._unread = self._unread + len(data) if unsent_bytes(below_tls(self.transport)) else 0
        self.transport.write(data)
        if self._unread > _MOST_UNREAD:
            raise TooManyError

    # The protocol.

    def dataReceived(self, data: bytes) -> None:
        client: Any = self._client
        record = client.record
        try:
            passed = self._streams.from_client(data)
            record.bytes_in += len(data) - len(passed)
            if answers := self._streams.answers():
                self._send(answers)
        except TooManyError:
            client.end("limit")
            return
        if passed:
            self.protocol.dataReceived(passed)

    def readConnectionLost(self) -> None:
        self.protocol.readConnectionLost()

    def writeConnectionLost(self) -> None:
        self.protocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        protocol, self.protocol = self.protocol, NO_RECEIVER  # breaks a reference cycle
        protocol.connectionLost(reason)

    # The transport.

    def write(self, data: bytes) -> None:
        passed = self._streams.from_server(data)
        self._client.record.bytes_out += len(passed) - len(data)
        self.transport.write(passed)
