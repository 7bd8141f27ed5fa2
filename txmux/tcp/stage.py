"""The base class of the stages of a client's connection, and the connection as they see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from txmux.classes import define
from txmux.rules.model import Refusal
from txmux.tcp.transitions import Finished, Outcome, TurnedAway
from txmux.telemetry.access_log import REMEMBERED
from txmux.transport import source_number
from txmux.wire.first_request import needed
from txmux.wire.preamble import NOTHING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.python.failure import Failure

    from txmux.backends.connect.client import ProxyClient
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Upstream
    from txmux.client.configuration import CompiledRoute, Configuration, RuleLayer
    from txmux.client.io_runtime import IORuntime
    from txmux.client.tls.terminator import AgreedTLS
    from txmux.detection.detector import Detection
    from txmux.net.relay.interface import RelayState, Timeouts
    from txmux.net.relay.peers import IRelayTransport
    from txmux.tcp.answers import AnswerRows
    from txmux.tcp.fast_path import FastLayer, FastPath
    from txmux.tcp.moving import Sockets, StayReason
    from txmux.telemetry.counting.counter_groups import ServerCounts
    from txmux.telemetry.reasons import AbortReason, EndReason
    from txmux.telemetry.record import ConnectionRecord, ConnectionState
    from txmux.wire.hello.second import SecondHello
    from txmux.wire.preamble import Preamble
    from txmux.wire.proxyprotocol.header import Address, Tlv

Step: TypeAlias = "Stage | Outcome"
"""The next step of a connection: a stage to enter, or an outcome, which `TRANSITIONS` maps to the next node."""


_LATER: Any = None  # of an attribute that is set before it is read


class Client(Protocol):
    """A client's connection as its stages see it: what is known of the client, and `advance`.

    The defaults are the class's, and an attribute is assigned only when it differs: one that an instance never sets takes
    no memory in it.
    """

    transport: IRelayTransport  # the client's; a `TlsTransport` once its TLS is terminated
    record: ConnectionRecord  # for the log: nothing is decided or connected by it
    configuration: Configuration
    runtime: IORuntime
    accepted_at: float  # by the runtime's clock
    received: bytes = b""  # bytes of the client that have not been passed on yet
    last_received_at: float = (
        0.0  # by the runtime's clock; writes of an in-process protocol count, too
    )
    has_finished: bool = False  # whether the client has half-closed; it may still read the answer
    decided: Mapping[str, str] = NOTHING  # what its routes were decided by; see `note_decided`
    preambles: tuple[Preamble, ...] = ()  # what it has said before its own bytes, outermost first
    outer: tuple[bytes, ...] = ()  # what routes saw that have opened something, if it is remembered
    source: Address | None = None  # the client's address, if a PROXY protocol header says so
    destination: Address | None = None
    tlvs: tuple[Tlv, ...] = ()
    agreed_tls: AgreedTLS | None = None  # of the client's TLS, if it was terminated here
    first_answers: AnswerRows = ()  # of a route that would have opened something for it
    is_request_cut: bool = False  # whether it was decided while a request for TLS could still come
    goes_by_hello: bool = False  # whether its routes look into hellos, and it may send one
    has_read_hello: bool = False  # whether it certainly has sent one, which was read
    decided_in: RuleLayer  # where that was decided, if they do …
    decided_route: CompiledRoute | None  # … and for which route
    is_previewed: bool = False  # whether the bytes of `received` were only peeked at (MSG_PEEK)
    waited: float = 0.0  # seconds that it has waited for a server in another process
    server_counts: ServerCounts | None = None  # the counters of its server, once it has one
    is_answered: bool = False  # whether that has sent something
    was_asked: bool | None = None  # whether it could do so in another process, if that is known
    counted_in: int = 0  # bytes that are in the counters already
    counted_out: int = 0
    first_sent: bytes = b""  # to its server, until that is counted: see `count_asked`
    hop: int = 0  # what `LoopDetector.record` returned for its connection to a server
    state: ConnectionState = "over"
    stage: Any = None  # the stage object, if there is one
    receiver: Any = None  # of what its transport reports
    may_connect: bool = False  # whether a descriptor is reserved for the server's socket
    timer: IDelayedCall | None = None  # the only one
    header_length: int = 0  # of the PROXY protocol header that it has to send, at least

    path: FastPath = _LATER

    # As long as it has no transport; see `txmux.tcp.fast_path`.

    socket: Any = None  # the client's, or its TLS
    peer_name: tuple[Any, ...] = ()  # the client's address, as ``accept()`` returns it
    detection_began: float = 0.0  # by the runtime's clock, of the detection …
    fast_layer: FastLayer = _LATER  # … and where it takes place
    detection: Any = None  # the `Detection`, if its first bytes have not decided …
    closer: Any = None  # the `CloserLook`, if more than that is to be known of it
    upstream: Upstream = _LATER
    member: Member | None = None
    server: Any = None  # the server's socket, from its opening until a stage has it
    has_server_options: bool = False  # whether `set_server_options` has been called
    sent_hello: bytes = b""  # by which it was routed, until the server has answered …
    buffered: int = 0  # … of which answer that many bytes are in the relay's buffer
    half_closed: Any = (
        None  # the socket of the peer that has half-closed its connection, if one has
    )
    before_end: int = 0  # bytes that the other peer had sent by then
    checked_at: float = 0.0  # by the runtime's clock, the sockets
    grace: bool = False  # whether the client has reset it, and its server may end soon

    def socket_ready(self, events: int) -> None:
        """Serve what has come from the client, by its state."""

    def attach_stage(self) -> Any:
        """Attach the stage object of the current state, if there is none; return it, unless it has ended for want of memory."""

    def make_transport(self, *, reading: bool) -> None: ...

    def use_transport(self) -> None:
        """Make a transport if it has none; what that reads is for the functions of the state."""

    def read(self) -> Step | None:
        """Have the functions of the current state serve what the client sends; return what follows what it has sent."""

    def await_due(self) -> Step | None:
        """Return what follows at the end of the state's time, or set the timer if that is near or if no `Sweep` looks."""

    def set_timer(self, seconds: float, call: Callable[[], Step | None]) -> None: ...
    def abort_on_error(self, problem: Exception) -> None: ...
    def finish(self, reason: EndReason) -> None: ...
    def peer_address(self) -> IAddress: ...

    def set_server_options(self) -> None:
        """Set those of the server's socket, as keepalive, that do not matter in its first second: most never last so long."""

    def server_end(self) -> ProxyClient:
        """Make the end of the server's connection for a stage, with a transport."""

    @property
    def address(self) -> Address | None: ...

    @property
    def local(self) -> Address | None: ...

    def peer(self) -> IAddress: ...
    def host(self) -> IAddress: ...
    def elapsed_ms(self) -> float: ...

    def time_left(self, timeout: float) -> float:
        """Return the seconds that are left of a time limit that counts from accept.

        They are rounded to hundredths: most clients have the same, and timers of one length share a queue.
        """

    def advance(self, step: Step | None) -> None:
        """Leave the stage with an outcome, or for another stage; ``None`` is ignored."""

    @property
    def seen(self) -> bytes:
        """What routes see of it, at most `REMEMBERED` bytes: also requests that were answered, such as PostgreSQL's for TLS."""
        requests = [one.request for one in self.preambles if not one.holds_inside]
        return b"".join((*requests, self.received[:REMEMBERED]))[:REMEMBERED]

    @property
    def granted(self) -> Mapping[str, str]:
        """What the last tunnel that it has asked for is granted for."""
        return next(filter(None, (its.granted for its in reversed(self.preambles))), NOTHING)

    @property
    def second_hello(self) -> SecondHello | None:
        return next(filter(None, (preamble.second for preamble in self.preambles)), None)

    def note_decided(self, facts: Mapping[str, str]) -> None:
        """Note what a route was decided by: the name, the host, the port and the user that the client has asked for.

        Whatever follows from a decision takes them from `decided`, and reads neither bytes nor TLS again. What is said inside a
        tunnel does not replace what it was granted for.
        """
        granted = self.granted
        self.decided = {**self.decided, **facts, **granted}
        self.record.note(facts, **granted)

    def start_detection(self, layer: RuleLayer) -> Detection[CompiledRoute]:
        """Begin to decide by the routes of a layer."""
        address, tls = self.address if layer.depends_on_client else None, self.agreed_tls
        host = address.host if address else None
        return layer.detector.start_detection(host, self.record.time, tls and tls.found)

    def open_tunnel(self) -> None:
        """Report to the client that the tunnel is open, if it has asked for one and does not know."""

    def end_layer(self) -> None:
        self.preambles = tuple(one for one in self.preambles if one.holds_inside)


def count_asked(client: Client, counts: ServerCounts | None, came: int = 0) -> None:
    """Count that a server owes a client an answer, unless its request is not whole yet: such a server does well to be silent.

    Args:
        client: With what its server was sent `first_sent`.
        counts: The server's; ``None`` if it has answered.
        came: The bytes that have come of it by now, if that is known.
    """
    sent = client.first_sent
    if sent:
        client.first_sent = b""
        if counts is not None and max(came, len(sent)) >= needed(sent):
            counts.asked(source_number(client.record.client))


def gone(client: Client) -> Outcome:
    """Return what follows when a client has left without a byte: it was a port scan or a health check."""
    if client.transport is None:
        return Finished("client-gone")
    return TurnedAway(Refusal.CLOSE, "client-gone")


def send(client: Client, data: bytes) -> None:
    """Send bytes to a client, and count them."""
    client.use_transport()
    client.record.bytes_out += len(data)
    client.transport.write(data)


@define(eq=False)
class Stage:
    """Receives the events of the client's connection, until the connection enters the next stage.

    Methods for subclasses return the stage's outcome, or ``None`` to stay; a feature's stage may return the stage that follows. Callbacks for other objects, such as a connector's,
    call `Client.advance` themselves.
    """

    state: ClassVar[ConnectionState] = "over"
    may_connect: ClassVar[bool] = True  # a descriptor stays reserved for the server's socket

    _client: Client

    def begin(self) -> Step | None: ...

    def leave(self) -> None:
        """Release what the stage holds, such as its timer; the next stage follows."""
        if self._client.timer is not None:
            self._client.timer.cancel()

    def wait(self, seconds: float, call: Callable[[], Step | None]) -> None:
        """Set the connection's only timer; `leave` cancels it, and another call replaces it."""
        self._client.set_timer(seconds, call)

    def data_received(self, data: bytes) -> None:
        self._client.advance(self.receive(data))

    def receive(self, data: bytes) -> Step | None:
        """Buffer what the client sends, and call `on_data`."""
        client = self._client
        client.record.bytes_in += len(data)
        client.received += data
        client.last_received_at = client.runtime.clock.seconds()
        return self.on_data()

    def on_data(self) -> Step | None: ...

    def send(self, data: bytes) -> None:
        send(self._client, data)

    def peer_finished(self) -> None:
        self._client.has_finished = True
        self._client.advance(self.on_finished())

    def on_finished(self) -> Step | None: ...

    def connection_lost(self, reason: Failure) -> None:  # noqa: ARG002
        self._client.advance(Finished("client-gone"))

    def abort(self, reason: AbortReason) -> None:
        self._client.advance(TurnedAway(Refusal.RESET, reason))

    # Moving to another process.

    @property
    def cannot_move_because(self) -> StayReason | None:
        return CANNOT_MOVE.get(self.state, "undecided")

    def suspend(self) -> tuple[RelayState, Timeouts, float | None, Sockets]:
        """Stop, and return this stage's parts of a `MovedConnection`. Only if `cannot_move_because` is ``None``; `resume` or `detach` follows."""
        raise NotImplementedError

    def resume(self, relay: RelayState) -> None: ...

    def detach(self) -> None:
        """Close this process's descriptors. No FIN is sent, since another process has them, too."""


CANNOT_MOVE: dict[ConnectionState, StayReason | None] = {
    "serving": "own protocol", "awaiting-hello": "being connected", "awaiting-retry": "being connected",
    "connecting": "being connected", "relaying": None,
    "handing-over": "ending", "rejecting": "ending", "closing": "ending", "over": "ending",
}  # fmt: skip
