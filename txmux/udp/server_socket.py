"""A flow's socket to its server, and failover."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.error import ConnectBindError
from twisted.logger import Logger

from txmux.access.per_source import source_of
from txmux.backends.connect.dial import LASTING_ERRORS, LOCAL_ERRORS, NO_PORT
from txmux.backends.connect.source import prepare_datagrams
from txmux.backends.names.destinations import ClientTarget, Denial, Unknown
from txmux.backends.pool.hold import HeldClient
from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import Unavailable
from txmux.backends.pool.ports import PORT_SHORTAGE
from txmux.errors import cause_of
from txmux.net.addresses import address_in
from txmux.net.sockets.client import IN_USE
from txmux.net.sockets.poller import READ
from txmux.net.sockets.transport import sockaddr
from txmux.telemetry.reasons import CLIENT_FAULTS, ConnectFailure, EndReason
from txmux.transport import source_number, source_of_client
from txmux.udp import ancillary
from txmux.udp.port import DatagramPort, FlowKey, send
from txmux.wire.proxyprotocol.header import Address

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall

    from txmux.backends.names.destinations import Destinations
    from txmux.backends.upstream import Upstream
    from txmux.telemetry.record import ConnectionRecord
    from txmux.udp.live_flows import LiveFlows

    class SocketOwner(Protocol):
        """A flow, as its server socket sees it."""

        live: LiveFlows
        record: ConnectionRecord
        decided: Mapping[str, str]
        port: DatagramPort
        key: FlowKey
        held: tuple[bytes, ...]

        @property
        def client(self) -> Address: ...
        def server_chosen(self, upstream: Upstream, server: str | None, /) -> None: ...
        @property
        def started_at(self) -> float: ...
        def waits(self, upstream: Upstream, /) -> None: ...
        def server_answered(self, upstream: Upstream, member: Member | None, /) -> None: ...
        def from_server(self, data: memoryview, size: int, /) -> None: ...
        def no_server_left(self, upstream: Upstream, cause: ConnectFailure, /) -> None: ...
        def end(self, reason: EndReason, /) -> None: ...
        def count_lost(self, count: int, /) -> None: ...


_log = Logger()
_FAILED = "backend {backend}: cannot connect to {server}: {why}"

# As numbers, since enumerations are slow.
_IPV4, _IPV6 = int(socket.AF_INET), int(socket.AF_INET6)
_new_socket: Callable[[int, int], socket.socket] = socket.SocketType  # type: ignore[assignment]
"""Makes the C base class of `socket.socket`, which is faster and has all that is used here."""
_DATAGRAMS = int(socket.SOCK_DGRAM) | int(socket.SOCK_NONBLOCK)
_AT_ONCE = 16  # batches of a server before others have their turn
_TRY_EACH = 8  # wake-ups
_SETTLED = 0.2  # seconds without a refusal after which a server counts as reachable
_MANY = 16  # batches after which joining a server's datagrams pays off


class ServerSocket:
    """Sends a flow's datagrams to a server, or to the next one while none has answered.

    Each flow opens one and closes it, though that is a third of its cost: in one kept for the next flow, a late answer would go to the
    wrong client.
    """

    __slots__ = (
        "_batches", "_dropped", "_flow", "_has_more", "_header", "_held", "_lasts", "_look_up",
        "_settling", "_tried", "_wakes", "is_answered", "member", "sock", "upstream",
    )  # fmt: skip

    def __init__(self, flow: SocketOwner, upstream: Upstream) -> None:
        self._flow = flow
        self.upstream = upstream
        self._tried: dict[Member, ConnectFailure] = {}
        self.member: Member | None = None
        self.sock: socket.socket | None = None
        self._batches = self._wakes = self._dropped = 0
        self._has_more = False
        self._header = b""
        self._held: HeldClient | None = None
        self._settling: IDelayedCall | None = None
        self._look_up: Deferred[None] | None = None
        self.is_answered = False  # whether the server has answered

    # To a server.

    def choose_server(self, *, may_wait: bool = True) -> None:
        """Choose a server, and send it what is held; `may_wait` allows to wait for the first look-up of its names."""
        upstream, flow = self.upstream, self._flow
        # Most backends do not depend on the client.
        picked = upstream.pool.pick(self._affinity() if upstream.depends_on_client else "")
        looked_up = None
        if picked is Unavailable.NO_SERVER and may_wait:
            # Only clients that come as the service starts wait for a name.
            looked_up = upstream.first_look_ups()
        if looked_up is not None:
            flow.server_chosen(upstream, None)
            looked_up.addCallback(lambda _: self._names_are_known())
            return
        self._go_to(picked, "limit" if picked is Unavailable.FULL else "no-server")

    def _affinity(self) -> str:
        return self.upstream.affinity(self._flow.client, self._flow.decided)

    def _names_are_known(self) -> None:
        if self._flow is not None:
            self.choose_server(may_wait=False)
            self._look_up = None

    def _go_to(self, member: Member | Unavailable, otherwise: ConnectFailure) -> None:
        """Connect to a server, or to the next one that can be reached."""
        flow, destinations = self._flow, self.upstream.destinations
        while isinstance(member, Member):
            if destinations is not None:
                chosen = self._choose(member, destinations)
                if chosen is None:
                    return
                if not isinstance(chosen, Member):
                    member, otherwise = Unavailable.NO_SERVER, chosen
                    break
                member = chosen
            failure = self._open(member)
            if failure is not None:
                member = self._next(member, *failure)
                continue
            flow.server_chosen(self.upstream, member.target.text)
            opened = self.sock
            for data in flow.held:
                self.send(data, 0, is_held=True)
                # Refused, and all that is held was sent to another server.
                if self.sock is not opened:
                    return
            if flow.held:
                member.counts.asked(source_number(flow.record.client))
            return
        self._hold(next(reversed(self._tried.values()), otherwise))

    # Waiting for a server.

    @property
    def is_waiting(self) -> bool:
        return self._held is not None and self._held.is_waiting

    def _hold(self, cause: ConnectFailure) -> None:
        """Wait for a server, or give up."""
        upstream, flow = self.upstream, self._flow
        self._stop_settling()
        why = upstream.hold(self._held_client(), cause, self._tried)
        if why is None:
            self._tried = {}
            flow.waits(upstream)
        else:
            self._give_up(why)

    def _held_client(self) -> HeldClient:
        if self._held is None:
            flow, seconds = self._flow, self.upstream.backend.hold
            source = source_of(flow.client.host)
            self._held = HeldClient(
                flow.started_at, seconds, self._try_again, self._waited_in_vain, source
            )
        return self._held

    def _waited_in_vain(self, why: ConnectFailure) -> None:
        self.upstream = self.upstream.current() or self.upstream
        self._give_up(why)

    def _give_up(self, why: ConnectFailure) -> None:
        self._flow.no_server_left(self.upstream, why)

    def _try_again(self) -> bool:
        self.upstream = self.upstream.current() or self.upstream
        pool, held = self.upstream.pool, self._held
        picked = pool.pick_in_turn(self._affinity() if self.upstream.depends_on_client else "")
        if picked is Unavailable.NO_SERVER and held is not None and held.seconds:
            return False
        self._go_to(picked, "limit" if picked is Unavailable.FULL else "no-server")
        if held is not None and held.is_trying:
            clock = self._flow.live.runtime.clock
            self._settling = clock.callLater(_SETTLED, self._stop_waiting, held, is_connected=True)
        return True

    def _stop_waiting(self, held: HeldClient, *, is_connected: bool = False) -> None:
        self._stop_settling()
        if held.since >= 0:
            record = self._flow.record
            record.note(held=held.waited(record.facts, self._flow.live.seconds()))
            self.upstream.pool.waiting.remove(held, is_connected=is_connected)
            held.since = -1.0

    def _stop_settling(self) -> None:
        settling, self._settling = self._settling, None
        if settling is not None and settling.active():
            settling.cancel()

    def _choose(
        self, template: Member, destinations: Destinations
    ) -> Member | ConnectFailure | None:
        """Return the client's own choice for a server of the rules, or why it gets none; ``None`` while its name is looked up."""
        flow = self._flow
        asked = ClientTarget(flow.decided, *self._local()) if destinations.needs_local else None
        asked = asked or ClientTarget(flow.decided, "", 0)
        chosen = destinations.choose(template, asked, self._tried)
        if isinstance(chosen, Member):
            return chosen
        self.upstream.pool.abandoned(template)
        if isinstance(chosen, Unknown) and self._look_up is None:
            flow.server_chosen(self.upstream, None)
            self._look_up = destinations.look_up(chosen, flow.client)
            self._look_up.addCallbacks(lambda _: self._names_are_known(), lambda _: None)
            return None
        cause: ConnectFailure = "limit"  # of look-ups
        if isinstance(chosen, Denial):
            cause, server = chosen
            flow.record.server = server or flow.record.server  # else the last one tried
        if not self._tried and cause not in CLIENT_FAULTS:
            template.counts.failed(cause)
        return cause

    def _open(
        self, member: Member, client: Address | None = None
    ) -> tuple[ConnectFailure, str] | None:
        """Make a socket for a server, for a client that has another address now if that is given; returns why not, and the words for the log, unless it has them."""
        server, flow, target = None, self._flow, member.target
        live = flow.live
        live.runtime.descriptors.client_accepted()
        try:
            host, port = target.host, target.port
            server = _new_socket(_IPV6 if ":" in host else _IPV4, _DATAGRAMS)
            if member.sockets.options or self.upstream.backend.source:
                sources = self.upstream.sockets.sources
                its_sources = sources.sources_towards(host, client or flow.client)
                prepare_datagrams(server, member.sockets.options, its_sources)
            server.connect(sockaddr(host, port) if "%" in host else (host, port))
            live.poller.watch(server.fileno(), READ, self._ready)
        except (OSError, ConnectBindError) as problem:
            if server is not None:
                server.close()
            # EAGAIN means that no local UDP port is left.
            lacks_port = isinstance(problem, BlockingIOError)
            is_own = (
                isinstance(problem, ConnectBindError) or lacks_port or problem.errno in LOCAL_ERRORS
            )
            self._lasts = getattr(problem, "errno", None) in LASTING_ERRORS
            name, why = self.upstream.backend.name, NO_PORT if lacks_port else cause_of(problem)
            if lacks_port or getattr(problem, "strerror", "") == IN_USE:
                source = source_of_client(flow.record.client)
                PORT_SHORTAGE.failed(name, member.server.text, why, source)
                why = ""
            elif is_own:
                _log.warn(_FAILED, backend=name, server=target.text, why=why)
                why = ""
            return "error" if is_own else "connect-refused", why
        self.member, self.sock = member, server
        if self.upstream.backend.proxy_protocol == "v2":
            self._prepare_header(client)
        return None

    def visit(self, client: Address, answered: Callable[[memoryview], None]) -> VisitSocket | None:
        """Make a further socket, by which the server notices an address that the client may have; ``None`` if that cannot be."""
        current, header, member = self.sock, self._header, self.member
        has_room = self._flow.live.runtime.descriptors.room()
        if not has_room or current is None or member is None:
            return None
        if self._open(member, client) is not None:
            return None
        made, its_header = self.sock, self._header
        self.sock, self._header = current, header
        assert made is not None  # noqa: S101
        return VisitSocket(self._flow, made, its_header, answered)

    def move_in(
        self, visit: VisitSocket, answered: Callable[[memoryview], None]
    ) -> VisitSocket | None:
        """Use the socket of another address of the client, and return the one until now, whose answers are for the address that was left."""
        if self.sock is not None:
            self._ready(READ)  # what waits was sent to the old address
        if self.sock is None:
            visit.close()
            return None
        if self._batches >= _MANY:
            self._count_dropped(self.sock)
        left = VisitSocket(self._flow, self.sock, self._header, answered)
        visit.is_over = True
        self.sock, self._header = visit.sock, visit.header
        self._flow.live.poller.watch(visit.sock.fileno(), READ, self._ready)
        gathers = ancillary.gathers(visit.sock)
        self._batches = _MANY * gathers
        self._dropped = ancillary.queue_of(visit.sock)[1] * gathers
        return left

    def _local(self) -> tuple[str, int]:
        """Return the IP address and port that the client has sent to, a link-local one with its interface."""
        flow = self._flow
        address = address_in(flow.record.local or "")
        if address is None:
            return "", 0
        host = str(address.host)
        local = flow.port.local_host(flow.key[1])
        # A PROXY header may name another address, without an interface.
        return local if local.partition("%")[0] == host else host, address.port

    def _prepare_header(self, client: Address | None = None) -> None:
        """Put a PROXY header on the next datagram, or on each, as the rules say."""
        flow = self._flow
        local = address_in(flow.record.local or "")
        client = client or flow.client
        self._header = self.upstream.proxy_header(client, local, datagrams=True)

    def client_moved(self) -> None:
        """Show the server the client's new address, as the source address or in PROXY headers."""
        sources, member = self.upstream.sockets.sources, self.member
        if not sources.of_client or member is None:
            if self._header:
                self._prepare_header()
            return
        # Later: datagrams of both addresses are being processed.
        self._flow.live.poller.call_soon(self._bind_anew)

    def _bind_anew(self) -> None:
        if self.sock is None:
            return
        self._ready(READ)  # what waits was sent to the old address
        old, member = self.sock, self.member
        if old is None or member is None or self._open(member) is not None:
            return
        self._close(old)
        self._batches = self._dropped = 0

    def send(self, data: Any, size: int, *, is_held: bool = False) -> None:
        """Send datagrams to the server; if it refuses those that are held, the next one gets them."""
        server, flow = self.sock, self._flow
        if server is None:
            flow.count_lost(ancillary.datagrams_in(len(data), size))
            return
        lost = 0
        try:
            if not size and not self._header:
                server.send(data)
            elif self._header:
                lost = sum(
                    send(server, part, its_size)
                    for part, its_size in _with_headers(self._header, data, size)
                )
            else:
                lost = send(server, data, size)
        except ConnectionRefusedError:
            lost = 0 if is_held else ancillary.datagrams_in(len(data), size)
            self._refused()
        except OSError:
            lost = 1
        if lost:
            flow.count_lost(lost)  # which may have ended

    def _next(self, member: Member, cause: ConnectFailure, why: str) -> Member | Unavailable:
        """Return the server to try after one that has failed; `why` is for the log."""
        self._tried[member] = cause
        server = member.target.text
        if self._held is None:  # a held flow tries the same server again and again
            self._flow.record.note_tried([f"{server} {cause}"])
        is_own = cause == "error" and not self._lasts
        member.counts.failed(cause, is_local=is_own)
        in_turn = self._held is not None and self._held.is_trying
        found = self.upstream.pool.next_after(
            member, self._affinity(), self._tried, is_local_fault=is_own, in_turn=in_turn
        )
        if why:
            is_last = not (isinstance(found, Member) or in_turn)
            name = self.upstream.backend.name
            (_log.warn if is_last else _log.debug)(_FAILED, backend=name, server=server, why=why)
        return found

    def _refused(self) -> None:
        """Try the next server, unless this one has answered before."""
        member = self.member
        if member is None or self.sock is None:
            return
        if self.is_answered:
            self._flow.end("connect-refused")
            return
        self._close(self.sock)
        self.sock, self.member = None, None
        following = self._next(member, "connect-refused", "connection refused")
        self._go_to(following, "connect-refused")

    # From the server.

    def _ready(self, events: int) -> None:  # noqa: ARG002 - reading finds out what it is
        flow = self._flow
        buffer = flow.live.buffer
        # An empty read costs half as much as an answer. If answers come one by one, a second read is tried only now and then.
        self._wakes += 1
        most = _AT_ONCE if self._has_more or not self._wakes % _TRY_EACH else 1
        for count in range(most):
            server, size = self.sock, 0
            if server is None:
                return
            try:
                if self._batches < _MANY:
                    length = server.recv_into(buffer)
                else:
                    length, fields, _, _ = server.recvmsg_into([buffer], ancillary.SPACE)
                    if fields:
                        _, size = ancillary.read(fields)
            except BlockingIOError:
                self._has_more = count > 1
                return
            except OSError as problem:
                if problem.errno == errno.ECONNREFUSED:
                    self._refused()
                    return
                continue  # a router reports that the server is unreachable for now
            if self._batches < _MANY:
                self._count_batch(server)
            flow.from_server(buffer[:length], size)
        self._has_more = most > 1

    def catch_up(self) -> None:
        """Pass on what the server has sent already: if the loop is late, the server was not quiet."""
        if self.sock is not None:
            self._ready(0)

    def _count_batch(self, server: socket.socket) -> None:
        self._batches += 1
        if not self.is_answered:
            self.is_answered = True
            if self._held is not None:
                self._stop_waiting(self._held, is_connected=True)
            if self.member is not None:
                self.upstream.pool.connected(self.member)
            self._flow.server_answered(self.upstream, self.member)
        if self._batches == _MANY:
            ancillary.gather(server)

    # The end.

    def local_address(self) -> str | None:
        if self.sock is None:
            return None
        host, port = self.sock.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    # To another process, and from one.

    def as_json(self) -> dict[str, Any]:
        tried = {member.target.text: cause for member, cause in self._tried.items()}
        held = self._held if self.is_waiting else None
        waited = None if held is None else self._flow.live.seconds() - held.since
        backend = self.upstream.backend
        its = {
            name: getattr(backend, name)
            for name in ("proxy_protocol", "idle_timeout", "answers", "source")
        }
        return {"tried": tried, "waited": waited, **its}

    def suspend(self) -> None:
        """Read nothing of the server; what it says waits in the socket."""
        if self._held is not None and self._held.is_waiting:
            self.upstream.pool.waiting.remove(self._held)
        if self.sock is not None:
            # Another process may keep it open, so closing it here would not end the watch.
            self._flow.live.poller.unwatch(self.sock.fileno())

    def resume(self) -> None:
        if self.sock is not None:
            self._flow.live.poller.watch(self.sock.fileno(), READ, self._ready)
        elif self._held is not None:
            self._hold("no-server")

    def has_waited(self, seconds: float) -> None:
        """Continue the wait of another process, or choose a server."""
        held = self._held_client()
        held.since = self._flow.live.seconds() - seconds
        if self.upstream.hold(held, "no-server") is None:
            self._flow.waits(self.upstream)
        else:
            self.choose_server()

    def restore(
        self, member: Member, sock: socket.socket, fields: Mapping[str, Any], *, is_answered: bool
    ) -> None:
        """Use a server that another process has chosen, where `as_json` returned the fields."""
        sock.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self._flow.live.poller.watch(sock.fileno(), READ, self._ready)
        self.member, self.sock, self.is_answered = member, sock, is_answered
        if ancillary.gathers(sock):
            self._batches = _MANY
        _, self._dropped = ancillary.queue_of(sock)
        tried: Mapping[str, ConnectFailure] = fields.get("tried", {})
        for address, cause in tried.items():
            other = self.upstream.pool.member_at(address)
            if other is not None:
                self._tried[other] = cause
        if self.upstream.backend.proxy_protocol == "v2":
            self._prepare_header()

    def end(self, *, is_unanswered: bool = False, is_moved: bool = False) -> None:
        """Close the socket, and report to the pool whether the server had time to answer and did not.

        With `is_moved`, another process has the flow.
        """
        if self._held is not None:
            self._stop_waiting(self._held)
        if self.sock is not None:
            self._close(self.sock)
        if self._look_up is not None:
            self._look_up.cancel()
        member, self.member, self.sock = self.member, None, None
        if member is not None:
            pool = self.upstream.pool
            if not (self.is_answered or is_moved):
                member.counts.unanswered()
            if self.is_answered:
                pool.released(member)
            elif is_unanswered:
                pool.unanswered(member, source_number(self._flow.record.client))
            else:
                pool.abandoned(member)
        self._flow = None  # type: ignore[assignment]

    def _count_dropped(self, sock: socket.socket) -> None:
        dropped = ancillary.queue_of(sock)[1]
        self._flow.count_lost(ancillary.since(dropped, self._dropped))

    def _close(self, sock: socket.socket) -> None:
        if self._batches >= _MANY:  # fewer fit into the buffer, so none was dropped
            self._count_dropped(sock)
        self._flow.live.poller.closing(sock.fileno())
        sock.close()


class VisitSocket:
    """A further socket to a flow's server, for an address that its client may have moved to, or may not have left: the server finds out.

    Args:
        flow: The flow.
        sock: Connected to the server.
        header: The PROXY header before each datagram, or nothing.
        answered: Called with what the server sends.
    """

    __slots__ = ("_answered", "_flow", "header", "is_over", "sock")

    def __init__(
        self,
        flow: SocketOwner,
        sock: socket.socket,
        header: bytes,
        answered: Callable[[memoryview], None],
    ) -> None:
        self._flow, self._answered = flow, answered
        self.sock, self.header = sock, header
        self.is_over = False
        flow.live.poller.watch(sock.fileno(), READ, self._ready)

    def send(self, data: Any, size: int) -> None:
        parts = _with_headers(self.header, data, size) if self.header else ((data, size),)
        lost = 0
        for part, its_size in parts:
            try:
                lost += send(self.sock, part, its_size)
            except OSError:
                lost += 1
        if lost:
            self._flow.count_lost(lost)

    def _ready(self, events: int) -> None:  # noqa: ARG002 - reading finds out what it is
        buffer = self._flow.live.buffer
        for _ in range(_AT_ONCE):
            try:
                length, fields, _, _ = self.sock.recvmsg_into([buffer], ancillary.SPACE)
            except OSError:
                return
            size = ancillary.read(fields)[1]
            for part in ancillary.split(buffer[:length], size):
                self._answered(part)
                if self.is_over:
                    return

    def close(self) -> None:
        self.is_over = True
        self._flow.live.poller.closing(self.sock.fileno())
        self.sock.close()


def _with_headers(header: bytes, data: Any, size: int) -> Iterator[tuple[Any, int]]:
    """Yield what is sent at once, with its size; the header comes before each datagram."""
    parts = ancillary.split(data, size)
    longer = len(header) + len(parts[0])
    count = max(1, min(ancillary.MOST_AT_ONCE, ancillary.MOST_BYTES_AT_ONCE // longer))
    for start in range(0, len(parts), count):
        some = parts[start : start + count]
        yield b"".join(header + bytes(part) for part in some), longer if len(some) > 1 else 0
