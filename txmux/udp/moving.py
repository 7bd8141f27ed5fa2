"""A flow as it goes on in another process: what is told of it, and what is made of that there.

What one version does not tell, another one does without, and what it does not know, it overlooks.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

import attrs

from txmux.telemetry.reasons import understood
from txmux.telemetry.states import STATES
from txmux.udp.flow_view import FlowView
from txmux.wire.proxyprotocol.decode import decode_datagram
from txmux.wire.proxyprotocol.encode import encode_v2

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from txmux.access.per_source import Permit
    from txmux.backends.pool.member import Member
    from txmux.backends.upstream import Destination, Upstream
    from txmux.detection.detector import FlowDetection
    from txmux.tcp.configuration import Configuration
    from txmux.telemetry.counting.counts import RouteCounts
    from txmux.telemetry.reasons import EndReason
    from txmux.telemetry.states import ConnectionState
    from txmux.udp.connection_ids import ConnectionIds
    from txmux.udp.following import Following
    from txmux.udp.port import DatagramPort
    from txmux.udp.server_socket import ServerSocket
    from txmux.udp.table import TimeoutQueue
    from txmux.wire.proxyprotocol.header import Header

    PortOf = Callable[[str], DatagramPort | None]

_REMEMBERED = 30.0  # seconds for which clients that are led to no server are remembered, so that they are decided about once
_TRIED_AGAIN = 1.0  # the same for those who found no server, as it may be back soon


def remembered_for(reason: EndReason) -> float:
    """Return the seconds for which a client without a server is remembered.

    Args:
        reason: Why it is led to none.
    """
    return _REMEMBERED if reason in {"no-route", "denied"} else _TRIED_AGAIN


class Movable(FlowView):
    """What a flow does to leave this process, and to come into it."""

    __slots__ = (
        "_client",
        "_counted",
        "_counted_before",
        "_detection",
        "_flows",
        "_following",
        "_is_stray",
        "_key",
        "_late",
        "_level",
        "_nowhere",
        "_port",
        "_server_socket",
        "_started_at",
        "_still_in",
        "admitted",
        "beside",
        "bytes_in",
        "bytes_out",
        "configuration",
        "datagrams_in",
        "datagrams_out",
        "decided_after",
        "entered_at",
        "heard_at",
        "held",
        "ids",
        "led_for",
        "logged",
        "permit",
        "proxy_header",
        "queue",
        "record",
        "state",
        "unrecognised",
    )

    state: ConnectionState
    configuration: Configuration
    permit: Permit | None
    ids: ConnectionIds | None
    proxy_header: Header | None
    unrecognised: bytes | None
    led_for: EndReason | None
    decided_after: int
    entered_at: float
    _counted: RouteCounts | None
    _is_stray: bool
    _counted_before: tuple[int, ...]
    _following: Following | None
    _nowhere: EndReason
    _server_socket: ServerSocket | None
    _still_in: TimeoutQueue | None
    _late: EndReason | None

    if TYPE_CHECKING:
        _detection: FlowDetection[Any] | None

        def _lead(self, destination: Destination, reason: EndReason) -> None: ...

        def _way_to(self, upstream: Upstream) -> ServerSocket: ...

        def _look(self) -> None: ...

        def count_bytes(self) -> None:
            """Count what was moved."""

        def over(self, reason: EndReason) -> None:
            """End it."""

    # Another process goes on with it.

    @property
    def server_socket(self) -> socket.socket | None:
        """The one to its server, if there is one."""
        return None if self._server_socket is None else self._server_socket.server_socket

    def stand_still(self) -> None:
        """Hear nothing of the server, and do not end, until `resume` or `let_go`. What comes waits in the socket."""
        self._still_in = self.queue
        self._flows.table.leave(self)
        if self._server_socket is not None:
            self._server_socket.stand_still()

    def resume(self) -> None:
        """Go on here: nobody has taken it."""
        queue, self._still_in = self._still_in, None
        if queue is None:
            return
        self._flows.rejoin(self, queue, self.entered_at, self.heard_at)
        if self._server_socket is not None:
            self._server_socket.resume()
        if self._late is not None:
            self.over(self._late)

    def as_json(self) -> dict[str, Any]:
        """Return what another process needs to go on with it, as values of JSON."""
        peer, local = self._key
        now = self._flows.seconds()
        server_socket = self._server_socket
        return {
            "record": attrs.asdict(self.record),
            "peer": peer,
            "local": local.hex(),
            "place": self._port.place,
            "client": str(self._client),
            "generation": self.configuration.version,
            "state": self.state,
            "age": self.elapsed_ms() / 1000,
            "in_state": now - self.entered_at,
            "quiet": now - self.heard_at,
            "logged": self.logged,
            "counts": [self.bytes_in, self.bytes_out, self.datagrams_in, self.datagrams_out],
            "held": [_text(data) for data in self.held],
            "answered": server_socket is not None and server_socket.is_answered,
            "way": None if server_socket is None else server_socket.as_json(),
            "nowhere": self._nowhere,
            "is_stray": self._is_stray,
            "led_for": self.led_for,
            "decided_after": self.decided_after,
            "unrecognised": None if self.unrecognised is None else _text(self.unrecognised),
            "introduction": self._proxy_header_bytes(),
            "ids": None if self.ids is None else self.ids.as_json(),
            "trail": None if self._following is None else self._following.as_json(),
        }

    def _proxy_header_bytes(self) -> str | None:
        header = self.proxy_header
        return None if header is None else _text(encode_v2(header, datagrams=True))

    def let_go(self) -> EndReason | None:
        """Forget it: another process goes on with it, and tells the log of its end.

        Returns:
            How it has to end there, if it was to end meanwhile.
        """
        self._still_in = None
        self.count_bytes()
        if self._counted is not None:
            self.configuration.counts.moved_away(self._counted)
            self._counted = None
        self.held = ()
        self.logged = False
        self.over("done")
        return self._late

    def comes_back(self) -> None:
        """Record that the flow comes back as another object, before it is known here that this one is to `let_go`."""
        if self._following is not None:
            self._following.end()
            self._following = None

    # Another process has begun it.

    def go_on(
        self,
        fields: Mapping[str, Any],
        led_to: tuple[Upstream, Member | None] | None,
        server: socket.socket | None,
        port_of: PortOf,
    ) -> None:
        """Go on where another process has stopped.

        Args:
            fields: What `fields` gave there.
            led_to: The backend that it was led to, and the server among those that are known here.
            server: The socket to it.
            port_of: Gives the port of a place here.
        """
        state = fields.get("state", "relaying")
        self.logged = fields["logged"]
        counts = tuple(map(int, fields["counts"]))
        self.bytes_in, self.bytes_out, self.datagrams_in, self.datagrams_out = counts
        self._counted_before = counts  # by the other process
        self._counted = self.runtime.column.route(self.record.listener, self.record.route or "")
        self._started_at -= fields["age"]
        self.held = tuple(b64decode(data) for data in fields.get("held", ()))
        led_for = fields.get("led_for")
        self.led_for = None if led_for is None else understood(led_for)
        self.decided_after = fields.get("decided_after", 0)
        self._nowhere = understood(fields.get("nowhere", self._nowhere))
        self._is_stray = fields.get("is_stray", False)
        if fields.get("unrecognised") is not None:
            self.unrecognised = b64decode(fields["unrecognised"])
        if fields.get("introduction") is not None:
            found = decode_datagram(b64decode(fields["introduction"]))
            self.proxy_header = None if found is None else found.header
        self.configuration.counts.adopted(self._counted)
        now = self._flows.seconds()
        times = now - fields.get("in_state", 0.0), now - fields.get("quiet", 0.0)
        if state == "peeking":
            self._decide_again(*times)
            return
        self._detection = None
        if self.permit is not None:
            self.permit.settle()
        if fields.get("trail") is not None:
            self._following = self._flows.following_of(
                self, self._port, self._key, fields["trail"], port_of
            )
        if state in STATES:
            self.state = state
        if led_to is None:
            self.held = ()
            seconds = remembered_for(self._nowhere)
            queue = self._flows.table.queue(seconds, is_spare=True, is_final=True)
            self._flows.rejoin(self, queue, *times)
        elif led_to[1] is None or server is None:
            self._lead(led_to[0], self.led_for or "no-route")
        else:
            upstream, member = led_to[0], led_to[1]
            self._server_socket = self._way_to(upstream)
            is_answered = fields.get("answered", True)
            self._server_socket.go_on(
                member, server, is_answered=is_answered, fields=fields.get("way") or {}
            )
            backend = upstream.backend
            seconds = backend.idle_timeout if is_answered else backend.unanswered_timeout
            queue = self._flows.table.queue(
                seconds, is_spare=not is_answered, is_final=not is_answered
            )
            self._flows.rejoin(self, queue, *times)

    def _decide_again(self, entered_at: float, heard_at: float) -> None:
        """Show what was held to the rules of this process, which may be others."""
        seconds = self.configuration.settings.detect_timeout
        queue = self._flows.table.queue(seconds, is_spare=True, is_final=True)
        self._flows.rejoin(self, queue, entered_at, heard_at)
        if self.held:
            self._look()


def client_of(fields: Mapping[str, Any]) -> str:
    """Return the address of the client of a flow of another process, as it is now."""
    return str(fields.get("client", fields["record"]["client"]))


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")
