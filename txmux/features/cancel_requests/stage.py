"""A stage: a client's CancelRequest goes to each server that may have its query."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, cast

import attrs
from typing_extensions import override

from txmux.access.per_source import source_of
from txmux.backends.connect.client import ProxyClient
from txmux.backends.pool.member import Member
from txmux.backends.pool.server_health import MemberState
from txmux.backends.upstream import Upstream
from txmux.classes import define
from txmux.client.session import record_decision
from txmux.features.cancel_requests import MOST_SERVERS, destinations
from txmux.features.cancel_requests.rows import REQUESTS
from txmux.rules.feature import StageMaker
from txmux.rules.model import Refusal
from txmux.tcp.connector import BackendConnector, target_of
from txmux.tcp.stage import Client, Stage
from txmux.tcp.transitions import Outcome, Routed, TurnedAway
from txmux.wire.postgres_startup import is_cancel_request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twisted.python.failure import Failure

    from txmux.client.configuration import CompiledRoute, RuleLayer
    from txmux.client.session import ClientSession
    from txmux.telemetry.reasons import EndReason
    from txmux.telemetry.record import ConnectionState

_SECONDS = 3.0  # for all servers together: the client waits for its end
_AT_ONCE = 10  # connections to servers, for one client
_CLIENTS = 16  # of one source that are served at once; others wait for their turn


@define(eq=False, slots=False)
class Cancelling(Stage):
    """Sends the request to several servers, and closes the client's connection when they have closed theirs, as libpq waits for that."""

    state: ClassVar[ConnectionState] = "cancelling"

    _left: list[tuple[Upstream, Member]]  # the last one is next
    _number: int  # of servers, with those that are not known
    _key: tuple[str, int] | None = attrs.field(default=None, init=False)
    _open: dict[_CancelRequest, None] = attrs.field(factory=dict, init=False)
    _sent = 0
    _is_starting = False
    _cause: EndReason = "no-route"  # if nothing is sent

    @override
    def begin(self) -> Outcome | None:
        client = self._client
        self.wait(client.time_left(client.configuration.settings.detect_timeout), self._end)
        return self.on_data()

    @override
    def on_data(self) -> Outcome | None:
        client = self._client
        length = int.from_bytes(client.received[:4])
        if len(client.received) < length:
            return None
        client.received = client.received[:length]
        if self._key is not None:
            return None
        session = cast("ClientSession", client)
        record_decision(session, client.record.bytes_in, "done")  # what follows is no detection
        address, self._cause = client.address, "limit"
        self._key = f"cancel {client.record.listener}", source_of(address.host) if address else -1
        self.wait(_SECONDS, self._end)
        return None if client.runtime.handshakes.enter(self._key, self, _CLIENTS) else self._start()

    @override
    def on_finished(self) -> Outcome | None:
        return TurnedAway(Refusal.CLOSE, "client-gone") if self._key is None else None

    def has_turn(self) -> None:
        self.wait(0.0, self._start)

    def make_room(self) -> None: ...  # it has a time limit

    def _start(self) -> Outcome | None:
        self._cause = "connect-timeout"
        self.wait(_SECONDS, self._end)
        return self._go_on()

    def _go_on(self) -> Outcome | None:
        can_spare = self._client.runtime.descriptors.can_spare  # the first one is reserved
        self._is_starting = True
        while self._left and len(self._open) < _AT_ONCE and (not self._open or can_spare(1)):
            request = _CancelRequest(self, self._client, *self._left.pop())
            self._open[request] = None
            request.start()
        self._is_starting = False
        return None if self._open else self._end()

    def note(self, word: str) -> None:
        self._sent += word == "sent"
        self._client.configuration.counts.cells[REQUESTS.positions[word]] += 1

    def ended(self, request: _CancelRequest, cause: EndReason) -> None:
        del self._open[request]
        self._cause = cause
        if not self._is_starting:
            self._client.advance(self._go_on())

    def _end(self) -> Outcome:
        record = self._client.record
        record.note(cancel=f"{self._sent} of {self._number}")
        return Routed(Refusal.CLOSE, "done" if self._sent else self._cause)

    @override
    def leave(self) -> None:
        super().leave()
        for request in self._open:
            request.stop()
        self._open.clear()
        if self._key is not None:
            self._client.runtime.handshakes.leave(self._key, self)


@define(eq=False)
class _CancelRequest:
    """A request to one server, and the receiver of that connection. Implements `txmux.net.relay.peers.PeerReceiver`."""

    _stage: Cancelling
    _client: Client
    _upstream: Upstream
    _member: Member
    _connector: BackendConnector = attrs.field(init=False)
    _server: ProxyClient | None = attrs.field(default=None, init=False)

    def start(self) -> None:
        pool = self._upstream.pool
        self._connector = connector = BackendConnector(
            self._client, self._upstream, self._connected, self._failed
        )
        connector.tried = dict.fromkeys(pool.members, "no-server")  # it tries no other one
        # A session that has all slots is what a cancel request is for, and others must not wait for that.
        self._member = attrs.evolve(self._member, takes_slot=False)
        connector.start_with(self._member)

    def stop(self) -> None:
        if self._server is None:
            self._connector.cancel()
            self._stage.note("failed")
        else:
            self._server.give_up()
            self._upstream.pool.released(self._member)

    def _connected(self, server: ProxyClient, member: Member) -> None:
        self._server, self._member, server.receiver = server, member, self
        server.transport.write(self._client.received)
        self._stage.note("sent")

    def _failed(self, cause: EndReason) -> None:
        self._stage.note("failed")
        self._stage.ended(self, cause)

    def data_received(self, data: bytes) -> None: ...

    def peer_finished(self) -> None:
        assert self._server is not None  # noqa: S101 - it is its receiver
        self._server.transport.loseConnection()

    def connection_lost(self, reason: Failure) -> None:  # noqa: ARG002
        self._upstream.pool.released(self._member)
        self._stage.ended(self, "done")


class CancelMaker(StageMaker):
    """Makes the stages of clients whose query may be at another server than where their request would go, or at several."""

    @override
    def __call__(self, client: Client, then: Any, *of: Any) -> Any:
        if not is_cancel_request(client.received):
            return then
        layer, route = of
        servers: dict[tuple[object, str], tuple[Upstream, Member]] = {}
        unknown = 0
        for upstream in _upstreams(client, layer, route):
            its = upstream.destinations
            for member in upstream.pool.members:
                to = member if its is None else its.choose(member, target_of(client, its))
                if isinstance(to, Member) and not _is_here(client, to):
                    servers[upstream.backend.proxy, to.target.text] = upstream, to
                else:
                    unknown += 1
        number = len(servers) + unknown
        usual = layer.default if route is None else route.destination
        if not servers or (number == 1 and next(iter(servers.values()))[0] is usual):
            return then
        # Those that are up come first, in case that the time does not suffice for all.
        ordered = sorted(servers.values(), key=lambda pair: pair[1].state is not MemberState.UP)
        return Cancelling(client, ordered[MOST_SERVERS - 1 :: -1], number)


def _is_here(client: Client, member: Member) -> bool:
    target, detector = member.target, client.runtime.loop_detector
    return target.kind == "tcp" and detector.is_own_address(target.host, target.port)


def _upstreams(client: Client, layer: RuleLayer, route: CompiledRoute | None) -> Iterator[Upstream]:
    """Yield the backends to which a client's session may have gone."""
    apart, detector = layer.cancelling, layer.detector
    end = math.inf if route is None else detector.ranks[detector.routes.index(route)]
    asked = [its for rank, its in zip(apart.ranks, apart.items, strict=True) if rank < end]

    def inside(outer: CompiledRoute) -> tuple[Any, Any]:
        within = client.configuration.inside[outer.name]
        return within.detector.routes, within.default

    address, tls = client.address, client.agreed_tls
    last = (asked, layer.default) if route is None else ([*asked, route], None)
    seen = address and address.host, client.record.time, tls and tls.found
    found: set[Any] = set()
    for destination in destinations(*last, attrgetter("destination"), inside, *seen):
        to = destination
        while isinstance(to, Upstream) and to not in found:
            found.add(to)
            yield to
            to = to.fallback
