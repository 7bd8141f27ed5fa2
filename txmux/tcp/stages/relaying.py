"""A stage: both ends are connected, and a relay carries the bytes."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, cast

import attrs
from typing_extensions import override

from txmux.backends.connect.client import ProxyClient
from txmux.backends.pool.member import Member
from txmux.backends.upstream import Upstream
from txmux.classes import define
from txmux.net.relay.interface import RelayedBytes, RelayResult, RelayState, Timeouts
from txmux.net.relay.peers import NO_RECEIVER
from txmux.net.relay.relay import Relay
from txmux.tcp.moving import MovedConnection, SlotRelease, Sockets, StayReason
from txmux.tcp.stage import Stage, count_asked
from txmux.tcp.transitions import Finished
from txmux.telemetry.reasons import AbortReason, RelayReason
from txmux.telemetry.record import ConnectionRecord, ConnectionState
from txmux.transport import source_number

_LONGEST_REQUEST = 1 << 14  # bytes of one that are looked at


@define(eq=False)
class Relaying(Stage):
    """A relay carries the bytes, and is the receiver of both ends.

    Args:
        state: How far another relay has come, in another process or in `SocketConnection`; ``None`` if it begins here.
        timeouts: When to give up; those of the backend if not given.
        release_elsewhere: Releases the slot that the connection still has in that process, where others may wait for it.
    """

    state: ClassVar[ConnectionState] = "relaying"
    may_connect: ClassVar[bool] = False

    _upstream: Upstream | None
    _member: Member | None
    server: ProxyClient
    _state: RelayState | None = None
    _timeouts: Timeouts | None = None
    _release_elsewhere: SlotRelease | None = None
    _has_moved: bool = attrs.field(default=False, init=False)
    _asked_ms: float | None = attrs.field(default=None, init=False)
    _is_answered: bool = attrs.field(default=False, init=False)
    relay: Relay = attrs.field(default=cast("Relay", None), init=False)  # until it begins

    @override
    def begin(self) -> None:
        client, server, upstream, state = self._client, self.server, self._upstream, self._state
        end: Any = client  # of the connection: what the relay sees of it
        if state is not None and self._timeouts is not None:
            self._state = None
            self.relay = client.runtime.relay(end, server, self._timeouts, self._over)
            self._is_answered = client.record.bytes_out + state.server.received > 0
            counts = None if self._member is None or self._is_answered else self._member.counts
            count_asked(client, counts, client.record.bytes_in)
            self._watch_first_bytes(client.record.bytes_in + state.client.received > 0)
            self.relay.adopt(state)
            return
        assert upstream is not None  # noqa: S101 - it has just been connected
        settings = client.configuration
        client.runtime.set_options(server.transport, settings.options)
        self.relay = client.runtime.relay(
            end, server, upstream.timeouts, self._over, upstream.rates, settings.settings.keepalive
        )
        received, client.received = client.received, b""
        self._is_answered = client.server_counts is not None  # in the stage before
        first = client.first_sent or received
        if first and self._member is not None and not self._is_answered:
            client.first_sent = first
            count_asked(client, self._member.counts)
        self._watch_first_bytes(bool(first))
        if client.counted_in and client.server_counts is not None and not self._is_answered:
            # It has waited for a server.
            client.server_counts.relayed(client.counted_in, client.counted_out)
        self.relay.start(received, client_finished=client.has_finished)

    # What the server answers, for its counters.

    def _watch_first_bytes(self, is_asked: bool) -> None:  # noqa: FBT001
        if self._member is None:
            return
        self._client.server_counts = self._member.counts
        if is_asked:
            self._asked_ms = _connected_ms(self._client.record)
        if not self._is_answered:
            self.relay.on_first_byte = self._first_byte_came

    def _first_byte_came(self, is_servers: bool, data: bytes | memoryview) -> None:  # noqa: FBT001 - of a callback
        client, upstream, member = self._client, self._upstream, self._member
        if self._is_answered or upstream is None or member is None:
            return
        if not data:  # its end
            if is_servers and self._asked_ms is not None:
                member.counts.closed()
            return
        now = client.elapsed_ms()
        if self._asked_ms is None:
            self._asked_ms = _connected_ms(client.record) if is_servers else now
            if is_servers:
                member.counts.asked(source_number(client.record.client))
            else:
                client.first_sent = bytes(data[:_LONGEST_REQUEST])
                count_asked(client, member.counts)
        if is_servers:
            self._is_answered = True
            member.counts.answered(upstream.counts, now - self._asked_ms)
            if upstream.backend.proxy_protocol != "off":
                member.counts.answered_header(data)

    def _count_end(self, reason: RelayReason) -> None:
        if self._is_answered or self._member is None:
            return
        if reason == "server-reset":
            self._member.counts.failed("reset", source=source_number(self._client.record.client))
        elif self._asked_ms is not None:
            self._member.counts.unanswered()

    @override
    def leave(self) -> None:
        if self._has_moved:
            return
        if self.relay is None:  # there was no memory for one, which would end both connections
            self.server.receiver = NO_RECEIVER
            self.server.transport.abortConnection()
        if self._release_elsewhere is not None:
            # Connections that wait there came before those that wait here.
            self._release_elsewhere(partial(self._keep_slot(), lambda: None))
        elif self._upstream is not None and self._member is not None:
            self._upstream.pool.released(self._member)

    @override
    def abort(self, reason: AbortReason) -> None:
        self.relay.abort(reason)

    @override
    def relayed(self) -> RelayedBytes:
        record, relayed = self._client.record, self.relay.relayed()
        total = record.bytes_in + relayed.bytes_in, record.bytes_out + relayed.bytes_out
        return RelayedBytes(*total, relayed.last_at)

    def _over(self, result: RelayResult) -> None:
        record = self._client.record
        record.bytes_in += result.bytes_in
        record.bytes_out += result.bytes_out
        reason, reset = result.reason, result.reset
        if reset == "late":
            # A server that has said nothing has not said all.
            reason, reset = ("done", reset) if record.bytes_out else (reason, "")
        if reset:
            record.note(reset=reset)
        self._count_end(reason)
        self._client.advance(Finished(reason))

    # Moving to another process.

    @property
    def keeps_slot(self) -> bool:
        """Whether the connection still counts for its server's limit after it has moved to another process."""
        is_limited = self._upstream is not None and self._upstream.pool.is_limited
        return is_limited or self.has_slot_elsewhere

    @property
    def has_slot_elsewhere(self) -> bool:
        """Whether a process that it has left before still counts it."""
        return self._release_elsewhere is not None

    def move_away(self) -> SlotRelease:
        """Keep the slot in the pool for a connection that another process relays; return what releases it in the end."""
        self._has_moved = True
        elsewhere, release = self._release_elsewhere, self._keep_slot()
        if elsewhere is None:
            return release
        return lambda free: release(partial(elsewhere, free))

    def _keep_slot(self) -> SlotRelease:
        if self._upstream is None or self._member is None:
            return lambda free: free()
        self._upstream.pool.moved_away(self._member)
        return partial(self._upstream.pool.release_slot, self._member)

    @property
    @override
    def cannot_move_because(self) -> StayReason | None:
        relay = self.relay
        if relay.ending:  # one of its ends may have lost its socket
            return "ending"
        if relay.is_movable:
            return None
        server: Any = self.server.receiver
        return "TLS to the server" if server.is_layered else "TLS ends here"

    @override
    def suspend(self) -> tuple[RelayState, Timeouts, float | None, Sockets]:
        client: Any = self._client.transport.getHandle()
        server: Any = self.server.transport.getHandle()
        return self.relay.suspend(), self.relay.timeouts, None, (client, server)

    @override
    def resume(self, moved: MovedConnection) -> None:
        self.relay.resume(moved.relay)

    @override
    def detach(self) -> None:
        self.relay.detach()


def _connected_ms(record: ConnectionRecord) -> float:
    return (record.detect_ms or 0.0) + (record.connect_ms or 0.0)
