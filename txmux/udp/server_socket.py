"""A flow's socket to its server, and failover."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectBindError
from twisted.logger import Logger

from txmux.backends.connect.connector import proxy_header
from txmux.backends.connect.dial import NO_PORT, OWN_TROUBLE, no_address
from txmux.backends.pool.member import Member
from txmux.backends.pool.pool import Unavailable
from txmux.net.sockets.poller import READ
from txmux.net.sockets.transport import place_of
from txmux.udp import ancillary
from txmux.udp.port import send
from txmux.udp.sources import bind_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Protocol

    from txmux.backends.upstream import Upstream
    from txmux.net.sockets.descriptors import Descriptors
    from txmux.net.sockets.poller import Poller
    from txmux.rules.model import Server
    from txmux.telemetry.reasons import ConnectFailure
    from txmux.wire.proxyprotocol.header import Address

    class SocketOwner(Protocol):
        """A flow, as its server socket sees it."""

        @property
        def poller(self) -> Poller:
            """Watches sockets."""

        @property
        def buffer(self) -> memoryview:
            """Takes what servers say."""

        @property
        def descriptors(self) -> Descriptors:
            """Those of this process."""

        @property
        def facts(self) -> Mapping[str, str]:
            """What is known of the client."""

        @property
        def held(self) -> Sequence[bytes]:
            """What goes to the next server if one refuses."""

        @property
        def client(self) -> Address:
            """The client's address."""

        @property
        def local(self) -> Address | None:
            """The address that the client asked."""

        @property
        def local_host(self) -> str:
            """The same without its port, a link-local one with its interface."""

        def waits_for_names(self) -> None:
            """Record that there is no server before names have been looked up."""

        def begins(self, server: str, /) -> None:
            """A server was chosen; it gets what is held next."""

        def answered(self) -> None:
            """Record that the server has said something for the first time, which comes next."""

        def from_server(self, data: memoryview, size: int, /) -> None:
            """Take datagrams of the server."""

        def refused(self) -> None:
            """Record that a server that had answered refuses now."""

        def given_up(self, cause: ConnectFailure, /) -> None:
            """Record that no server is left."""

        def lost(self, count: int, /) -> None:
            """Count datagrams that were dropped."""


_log = Logger()

# As numbers: enumerations cost more than what is done with them.
_IPV4, _IPV6 = int(socket.AF_INET), int(socket.AF_INET6)
_new_socket: Callable[[int, int], socket.socket] = socket.SocketType  # type: ignore[assignment]
"""Makes what `socket.socket` is made of, without what Python adds to it; it has all that is used here."""
_DATAGRAMS = int(socket.SOCK_DGRAM) | int(socket.SOCK_NONBLOCK)
_AT_ONCE = 16  # batches of a server before others have their turn
_TRY_EACH = 8  # wake-ups
_MANY = 16  # batches after which a server's datagrams are worth being put together


class ServerSocket:
    """Sends a flow's datagrams to a server, or to the next one while none has answered.

    Args:
        flow: The flow it belongs to.
        upstream: Whose servers are tried: one, and after refusals up to ``retries`` others.

    Attributes:
        is_answered: Whether the server has said something.
    """

    __slots__ = (
        "_batches",
        "_dropped",
        "_flow",
        "_has_more",
        "_header",
        "_member",
        "_server",
        "_tried",
        "_wakes",
        "is_answered",
        "upstream",
    )

    def __init__(self, flow: SocketOwner, upstream: Upstream) -> None:
        self._flow = flow
        self.upstream = upstream
        self._tried: dict[Member, ConnectFailure] = {}
        self._member: Member | None = None
        self._server: socket.socket | None = None
        self._batches = self._wakes = self._dropped = 0
        self._has_more = False
        self._header = b""
        self.is_answered = False

    @property
    def is_open(self) -> bool:
        return self._server is not None

    # To a server.

    def begin(self) -> None:
        """Choose a server, and send it what is held."""
        self._begin(self.upstream.first_names)

    def _begin(self, first_names: Callable[[], Any]) -> None:
        pool = self.upstream.pool
        found = pool.pick(self._affinity())
        if found is Unavailable.NO_SERVER and (looked_up := first_names()) is not None:
            # Only those that come as the service starts ever wait for a name.
            self._flow.waits_for_names()
            looked_up.addCallback(lambda _: self._names_are_known())
            return
        self._go_to(found, "limit" if found is Unavailable.FULL else "no-server")

    def _affinity(self) -> str:
        return self.upstream.affinity(self._flow.client, self._flow.facts)

    def _names_are_known(self) -> None:
        if self._flow is not None:
            self._begin(lambda: None)

    def _go_to(self, found: Member | Unavailable, otherwise: ConnectFailure) -> None:
        """Go to a server, or to the next one that there is a way to."""
        while isinstance(found, Member):
            cause = self._open(found)
            if cause is None:
                self._send_held()
                return
            found = self._next(found, cause)
        self._flow.given_up(next(reversed(self._tried.values()), otherwise))

    def _open(self, member: Member) -> ConnectFailure | None:
        """Make a socket for a server; tell why not."""
        target, server = self._target(member), None
        family = _IPV6 if ":" in target.host else _IPV4
        self._flow.descriptors.client_accepted()
        try:
            if target.depends_on_client:
                raise no_address()
            server = _new_socket(family, _DATAGRAMS)
            if self.upstream.sources is not None:
                bind_for(server, self.upstream.sources, target.host, self._flow.client)
            server.connect(place_of(target.host, target.port))
            self._flow.poller.watch(server.fileno(), READ, self._ready)
        except (OSError, ConnectBindError) as problem:
            if server is not None:
                server.close()
            why = str(problem) if isinstance(problem, ConnectBindError) else problem.strerror
            # The system says EAGAIN where it has no port left for a socket of UDP.
            lacks_port = isinstance(problem, BlockingIOError)
            is_own = (
                isinstance(problem, ConnectBindError) or lacks_port or problem.errno in OWN_TROUBLE
            )
            (_log.warn if is_own else _log.debug)(
                "backend {backend}: no way to {server}: {why}",
                backend=self.upstream.backend.name,
                server=target.text,
                why=NO_PORT if lacks_port else why,
            )
            return "error" if is_own else "connect-refused"
        self._member, self._server = member, server
        self._prepare_header()
        return None

    def _target(self, member: Member) -> Server:
        return member.target_for(self._flow.local_host if self.upstream.asks_where else "")

    def _prepare_header(self) -> None:
        """Put a PROXY header on the next datagram, or on each, if the rules ask for it."""
        backend, flow = self.upstream.backend, self._flow
        if backend.proxy_protocol == "v2":
            self._header = proxy_header(backend, flow.client, flow.local, datagrams=True)

    def client_moved(self) -> None:
        """Show the server the client's new address, if it sees or is told the client's own."""
        sources, member = self.upstream.sources, self._member
        if sources is None or not sources.of_client or member is None:
            if self._header:
                self._prepare_header()
            return
        # Later, since the datagrams that tell of it are being read, or sent, just now.
        self._flow.poller.call_soon(self._bind_anew)

    def _bind_anew(self) -> None:
        if self._server is None:
            return
        self._ready(READ)  # what waits was said to the old address
        old, member = self._server, self._member
        if old is not None and member is not None and self._open(member) is None:
            self._count_dropped(old)
            self._batches = self._dropped = 0
            self._flow.poller.closing(old.fileno())
            old.close()

    def _send_held(self) -> None:
        flow, server, member = self._flow, self._server, self._member
        assert member is not None  # noqa: S101 - it has just been opened
        flow.begins(self._target(member).text)
        for data in flow.held:
            self.send(data, 0, is_held=True)
            if self._server is not server:  # refused: all that is held has gone to another one
                break

    def send(self, data: Any, size: int, *, is_held: bool = False) -> None:
        """Send datagrams to the server.

        Args:
            data: Their bytes.
            size: The bytes of each but the last; 0 if there is one.
            is_held: Whether they go to the next server if this one refuses.
        """
        server = self._server
        if server is None:
            self._flow.lost(ancillary.datagrams_in(len(data), size))
            return
        try:
            if self._header:
                lost = sum(
                    send(server, part, its_size)
                    for part, its_size in self._with_headers(data, size)
                )
            else:
                lost = send(server, data, size)
        except ConnectionRefusedError:
            lost = 0 if is_held else ancillary.datagrams_in(len(data), size)
            self._refused()
        if lost:
            self._flow.lost(lost)

    def _with_headers(self, data: Any, size: int) -> Iterator[tuple[Any, int]]:
        """Put the header before each datagram, or before the first one; give what is sent at once, with its size."""
        header, parts = self._header, ancillary.split(data, size)
        if self.upstream.backend.proxy_every == "first":
            self._header = b""
            yield header + bytes(parts[0]), 0
            if len(parts) > 1:
                yield data[size:], size
            return
        longer = len(header) + len(parts[0])
        count = max(1, min(ancillary.MOST_AT_ONCE, ancillary.MOST_BYTES_AT_ONCE // longer))
        for start in range(0, len(parts), count):
            some = parts[start : start + count]
            yield b"".join(header + bytes(part) for part in some), longer if len(some) > 1 else 0

    def _next(self, member: Member, cause: ConnectFailure) -> Member | Unavailable:
        self._tried[member] = cause
        member.counts.failed(cause)
        pool, affinity = self.upstream.pool, self._affinity()
        again = len(self._tried) <= self.upstream.backend.retries
        if cause == "error":  # this machine's trouble says nothing of the server
            pool.abandoned(member)
        elif again:
            return pool.retry(member, affinity, self._tried)
        else:
            pool.failed(member)
        return pool.pick(affinity, self._tried) if again else Unavailable.NO_SERVER

    def _refused(self) -> None:
        """Go on with the next server, unless this one has answered before."""
        member = self._member
        if member is None:
            return
        if self.is_answered:
            self._flow.refused()
            return
        _log.debug(
            "backend {backend}: {server} has no such port",
            backend=self.upstream.backend.name,
            server=self._target(member).text,
        )
        self._close()
        self._member = None
        self._go_to(self._next(member, "connect-refused"), "connect-refused")

    # From the server.

    def _ready(self, events: int) -> None:  # noqa: ARG002 - whatever it is, reading tells
        flow = self._flow
        buffer = flow.buffer
        # To ask in vain costs as much as half an answer. Where answers come one by one, it is tried only now and then whether they still do.
        self._wakes += 1
        most = _AT_ONCE if self._has_more or not self._wakes % _TRY_EACH else 1
        for count in range(most):
            server, size = self._server, 0
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
                continue  # a machine between has told that there is no way for now
            if self._batches < _MANY:
                self._count_batch(server)
            flow.from_server(buffer[:length], size)
        self._has_more = most > 1

    def catch_up(self) -> None:
        """Pass on what the server has said already: the loop may be late, and nobody has been quiet then."""
        if self._server is not None:
            self._ready(0)

    def _count_batch(self, server: socket.socket) -> None:
        """Record one of the first batches of a server."""
        self._batches += 1
        if not self.is_answered:
            self.is_answered = True
            if self._member is not None:
                self.upstream.pool.connected(self._member)
            self._flow.answered()
        if self._batches == _MANY:
            ancillary.gather(server)

    # The end.

    def local_address(self) -> str | None:
        """Return the address that the server sees; ``None`` if there is no server."""
        if self._server is None:
            return None
        host, port = self._server.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    # To another process, and from one.

    @property
    def server_socket(self) -> socket.socket | None:
        """That to the server, if there is one."""
        return self._server

    def as_json(self) -> dict[str, Any]:
        """Return what another process needs to go on, besides the socket, as values of JSON."""
        tried = {self._target(member).text: cause for member, cause in self._tried.items()}
        return {"is_introduced": not self._header, "tried": tried}

    def stand_still(self) -> None:
        """Hear nothing of the server; what it says waits in the socket."""
        if self._server is not None:
            # It may stay open in another process, so that closing it here would not end the watch.
            self._flow.poller.forget(self._server.fileno())

    def resume(self) -> None:
        """Hear the server again, after `stand_still`."""
        if self._server is not None:
            self._flow.poller.watch(self._server.fileno(), READ, self._ready)

    def go_on(
        self,
        member: Member,
        server: socket.socket,
        fields: Mapping[str, Any],
        *,
        is_answered: bool,
    ) -> None:
        """Go on with a server that another process has chosen.

        Args:
            member: The server.
            server: The socket to it.
            fields: What `fields` gave there.
            is_answered: Whether it has said something.

        Raises:
            OSError: The system lacks what it takes to watch the socket.
        """
        server.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self._flow.poller.watch(server.fileno(), READ, self._ready)
        self._member, self._server, self.is_answered = member, server, is_answered
        if ancillary.gathers(server):
            self._batches = _MANY
        _, self._dropped = ancillary.queue_of(server)
        tried: Mapping[str, ConnectFailure] = fields.get("tried", {})
        for other in self.upstream.pool.members:
            place = self._target(other).text
            if place in tried:
                self._tried[other] = tried[place]
        is_introduced = fields.get("is_introduced", False)
        if not (is_introduced and self.upstream.backend.proxy_every == "first"):
            self._prepare_header()

    def end(self, *, is_unanswered: bool = False) -> None:
        """Close the socket, and have the pool told.

        Args:
            is_unanswered: Whether that says something of the server: it had time to answer.
        """
        member, self._member = self._member, None
        self._close()
        if member is not None:
            pool = self.upstream.pool
            if self.is_answered:
                pool.released(member)
            elif is_unanswered:
                pool.unanswered(member)
            else:
                pool.abandoned(member)
        self._flow = None  # type: ignore[assignment]

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            self._count_dropped(server)
            self._flow.poller.closing(server.fileno())
            server.close()

    def _count_dropped(self, server: socket.socket) -> None:
        """Count what the system has dropped of what the server said."""
        if self._batches >= _MANY:  # fewer have room
            self._flow.lost(ancillary.since(ancillary.queue_of(server)[1], self._dropped))
