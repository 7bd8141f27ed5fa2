"""What a connection is at, and what it is told and knows there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs
from typing_extensions import override

from txmux.net.relay.interface import Moved
from txmux.rules.model import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.python.failure import Failure

    from txmux.access.loops import Connection
    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Destination, Upstream
    from txmux.interfaces import Exchange
    from txmux.net.relay.ends import IRelayTransport
    from txmux.tcp.configuration import CompiledRoute, Configuration, RuleLayer
    from txmux.tcp.io_runtime import IORuntime
    from txmux.tcp.preconnection import Held, Preconnection
    from txmux.telemetry.reasons import AbortReason, ConnectFailure, EndReason
    from txmux.telemetry.record import ConnectionRecord
    from txmux.telemetry.states import ConnectionState
    from txmux.wire.proxyprotocol.header import Address, Header, Tlv


class Client(Protocol):
    """What a stage sees of a client's connection: what is known of it, and where it can go from here.

    Attributes:
        transport: Leads to the client, or to what is inside of its TLS.
        record: For the access log.
        configuration: The rules under which the client was accepted.
        runtime: Has the timers and the relays.
        received: What the client has said, and nobody has been given yet.
        heard_at: When it last said something, or a protocol of this process did, by the engine's clock; 0 is never. A relay
            does not keep it up.
        has_finished: Whether it will say no more; it may still want to hear the answer.
        asked: Requests that were answered here, and that its server is to be asked again.
        tlvs: Fields of the PROXY protocol header that it began with.
        ended_tls: What is known of its TLS, if that is ended here, as fields for such a header.
        race: A connection that it gets if it says nothing.
        is_looked_at: Whether what it has said is still in its socket, too.
    """

    transport: IRelayTransport
    record: ConnectionRecord
    configuration: Configuration
    runtime: IORuntime
    received: bytes = b""
    heard_at: float = 0.0
    has_finished: bool = False
    asked: tuple[Exchange, ...] = ()
    tlvs: tuple[Tlv, ...] = ()
    ended_tls: tuple[Tlv, ...] = ()
    race: Preconnection | None = None
    is_looked_at: bool = False

    @property
    def address(self) -> Address | None:
        """The client's real address; ``None`` if it has no IP address."""

    @property
    def local(self) -> Address | None:
        """The address that it connected to."""

    def peer(self) -> IAddress:
        """Return the client's real address as Twisted has it."""

    def host(self) -> IAddress:
        """Return the address that it connected to as Twisted has it."""

    def elapsed_ms(self) -> float:
        """Return how long ago the client was accepted, in milliseconds."""

    def apply_proxy_header(self, header: Header) -> None:
        """Take note of what a PROXY protocol header says of it; `InvalidHeader` if a field cannot be read."""

    def skip(self, count: int) -> None:
        """Take note that the first bytes it has said are not its own, and forget them."""

    def detection_deadline(self) -> IDelayedCall:
        """Begin to count the time that detection has."""

    def admit(self) -> bool:
        """Let the client in, or turn it away; tell which."""

    def peek(self, level: RuleLayer, deadline: IDelayedCall | None = None) -> None:
        """Find out what the client speaks, by the routes of a level; `deadline` may have begun, or even run out."""

    def decided(self, level: RuleLayer, branch: CompiledRoute | None) -> None:
        """Go where the routes of a level lead the client: `branch` takes it, or none of them if that is ``None``."""

    def lead(self, destination: Destination, reason: EndReason) -> None:
        """Go to a destination; `reason` is for the log, should that be a refusal."""

    def run_ahead(self, upstream: Upstream) -> None:
        """Begin to connect to a server that the client is led to if it says nothing."""

    def connect(self, upstream: Upstream) -> None:
        """Connect to a server of a backend."""

    def note_server(self, transport: Connection) -> None:
        """Take note of a connection to a server, before anything is sent on it."""

    def fall_back(self, upstream: Upstream, cause: ConnectFailure) -> None:
        """Go where clients are led when no server of a backend can be reached."""

    def relay(
        self, upstream: Upstream, member: Member, server: ProxyClient, held: Held | None = None
    ) -> None:
        """Relay to a server that is connected, whose end is `server`, and that may have said something already."""

    def turn_away(self, how: Refusal, reason: EndReason) -> None:
        """Close the connection; `reason` is for the log, and the answer of `Refusal.REJECT` depends on it, too."""

    def over(self, reason: EndReason) -> None:
        """Record that nothing is left of the connection. Only the first call counts."""


@attrs.define(eq=False)
class Stage:
    """What a connection is at: it is told what happens at the client's end, until the connection goes on.

    Args:
        client: The client's connection.

    Attributes:
        state: Its name.
        only_looks: Whether what the client says may stay in its socket meanwhile.
    """

    state: ClassVar[ConnectionState] = "over"
    only_looks: ClassVar[bool] = False

    _client: Client
    _deadline: IDelayedCall | None = attrs.field(default=None, init=False)

    def begin(self) -> None:
        """Begin, now that the connection is here."""

    def leave(self) -> None:
        """End what was waited for, because the connection goes on."""
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()

    def wait(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something later, unless the stage is left before. Replaces an earlier wait."""
        Stage.leave(self)
        self._deadline = self._client.runtime.clock.callLater(seconds, call)

    def data(self, data: bytes) -> None:
        """Keep what the client says."""
        client = self._client
        client.record.bytes_in += len(data)
        client.received += data
        client.heard_at = client.runtime.clock.seconds()
        self.on_data()

    def on_data(self) -> None:
        """Look at what the client has said, which is more than before."""

    def finished(self) -> None:
        """Record that the client will say no more."""
        self._client.has_finished = True
        self.on_finished()

    def on_finished(self) -> None:
        """React to the client's half-close."""

    def lost(self, reason: Failure) -> None:  # noqa: ARG002
        self._client.over("client-gone")

    def moved(self) -> Moved:
        """Return how much has gone each way until now."""
        record = self._client.record
        return Moved(record.bytes_in, record.bytes_out, self._client.heard_at)

    def abort(self, reason: AbortReason) -> None:
        """End the connection at once, whatever it is doing."""
        self._client.turn_away(Refusal.RESET, reason)


class _Over(Stage):
    """The connection is over, and nothing that happens counts any more."""

    @override
    def data(self, data: bytes) -> None: ...

    @override
    def finished(self) -> None: ...

    @override
    def lost(self, reason: Failure) -> None: ...

    @override
    def abort(self, reason: AbortReason) -> None: ...


_nobody: Any = None
OVER = _Over(_nobody)
"""What all connections are at that are over, so that what they were at before goes at once."""
