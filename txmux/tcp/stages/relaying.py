"""A stage: both ends are connected, and a relay carries the bytes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, cast

import attrs
from typing_extensions import override

from txmux.backends.connect.client import ProxyClient
from txmux.backends.pool.member import Member
from txmux.backends.upstream import Upstream
from txmux.classes import define
from txmux.net.relay.interface import RelayedBytes, RelayResult, RelayState, SideState, Timeouts
from txmux.net.relay.kernel import BUFFER, FULL, MORE, VIEW, KernelSide
from txmux.net.relay.peer_state import has_ended, unacknowledged_by, unanswered_by
from txmux.net.relay.peers import NO_RECEIVER
from txmux.net.relay.relay import GRACE, MAX_FINAL_BYTES, Relay
from txmux.net.sockets.plainsocket import reset_on_close
from txmux.net.sockets.poller import ERROR, FINISHED, READ
from txmux.tcp.fast_path import DONT_WAIT
from txmux.tcp.moving import SlotRelease, Sockets, StayReason
from txmux.tcp.stage import Client, Stage, Step, count_asked
from txmux.tcp.transitions import Finished
from txmux.telemetry.reasons import AbortReason, RelayReason
from txmux.telemetry.record import ConnectionRecord, ConnectionState
from txmux.transport import source_number

_LONGEST_REQUEST = 1 << 14  # bytes of one that are looked at
_DONT_WAIT_MORE = DONT_WAIT | MORE


def enter(
    client: Client, upstream: Upstream, member: Member, end: ProxyClient | None, *moved: Any
) -> Step | None:
    if end is not None:
        return Relaying(client, upstream, member, end, *moved)
    is_first, client.state = client.state == "connecting", "relaying"
    client.may_connect = False
    client.runtime.descriptors.reserved -= 1
    own, server, client.server_counts = client.socket, client.server, member.counts
    if client.counted_in and is_first:  # while the server was being connected
        member.counts.relayed(client.counted_in, client.counted_out)
    if client.received:
        unsent, client.received = client.received, b""
        return make_stage(client, server, unsent)
    watch = client.path.poller.watch
    watch(server.fileno(), READ, partial(_forward, client, server, own))
    watch(own.fileno(), READ, partial(_forward, client, own, server))
    if not is_first:
        _forward(client, server, own, 0, client.buffered)
    return None


def _forward(client: Client, source: Any, sink: Any, events: int, buffered: int = 0) -> None:  # noqa: C901, PLR0912 - each message would pay for another call
    try:
        own = client.socket
        if source is client.half_closed or (events & ERROR and source is not own):
            _leave_to_stage(client, source, lambda side: side.ready(events))
            return
        more = True
        while more:
            try:
                count = buffered or source.recv_into(BUFFER, 0, DONT_WAIT)
            except BlockingIOError:
                return
            except OSError:
                if source is own is client.half_closed and client.agreed_tls is not None:
                    # What it has not read may be a ticket (RFC 8446, section 4.6.1); what it is sent next fails.
                    client.path.poller.unwatch(source.fileno())
                elif source is not own or not _awaits_end_of_server(client):
                    _leave_to_stage(client, source, KernelSide.lost)
                return
            if not count:
                _peer_finished(client, source, sink)
                return
            client.last_received_at = client.path.seconds()
            record = client.record
            if source is own:
                record.bytes_in += count
            else:
                if not record.bytes_out:
                    asked_ms = (record.detect_ms or 0.0) + (record.connect_ms or 0.0)
                    waited = (client.last_received_at - client.accepted_at) * 1000 - asked_ms
                    upstream, counts = client.upstream, client.server_counts
                    counts.answered(upstream.counts, waited)  # type: ignore[union-attr]  # it is relayed
                    if upstream.backend.proxy_protocol != "off":
                        counts.answered_header(VIEW[:count])  # type: ignore[union-attr]  # the same
                record.bytes_out += count
            # If the source has half-closed, the kernel keeps its last bytes (MSG_MORE) for a packet with the FIN.
            more = bool(events & FINISHED) and count < FULL
            try:
                sent = sink.send(VIEW[:count], _DONT_WAIT_MORE if more else DONT_WAIT)
            except BlockingIOError:
                sent = 0
            except OSError:
                _leave_to_stage(client, sink, KernelSide.set_unwritable)
                return
            # The sink is slow, or this is a bulk transfer.
            if sent < count or (count == FULL and client.agreed_tls is None):
                client.advance(make_stage(client, sink, bytes(VIEW[sent:count])))
                return
    except Exception as problem:  # noqa: BLE001 - one connection's error must not affect others
        client.abort_on_error(problem)


def _peer_finished(client: Client, source: Any, sink: Any) -> None:
    if client.half_closed is not None:
        if client.agreed_tls is not None and client.socket.is_nested:
            _leave_to_stage(client, source, KernelSide.peer_finished)
        else:
            client.finish("done")
        return
    client.half_closed, client.last_received_at = source, client.path.seconds()
    record = client.record
    client.before_end = record.bytes_out if source is client.socket else record.bytes_in
    if source is client.server and not record.bytes_out:
        client.server_counts.closed()  # type: ignore[union-attr]  # it is relayed
    client.path.poller.change(source.fileno(), 0)
    try:
        sink.shutdown(socket.SHUT_WR)
    except BlockingIOError:  # of TLS
        client.attach_stage()
    except OSError:
        pass  # the next read reports the error


# After a reset of the client, which many clients send once they have what they want.


def _awaits_end_of_server(client: Client) -> bool:
    """Close the client's socket, and wait for the server as a `Relay` does; return false if more than that is to be done."""
    own, server, record = client.socket, client.server, client.record
    if unacknowledged_by(server) or not record.bytes_out or client.half_closed is own:
        return False
    lost = unacknowledged_by(own)
    if client.half_closed is server:
        lost -= client.agreed_tls is None  # the FIN, as in `KernelSide.unacknowledged`
        lost = max(lost, record.bytes_in - client.before_end)
    is_over = client.half_closed is server or has_ended(server)
    if is_over or lost > MAX_FINAL_BYTES:
        end_after_reset(client, is_late=lost <= MAX_FINAL_BYTES)
        return True
    poller = client.path.poller
    poller.closing(own.fileno())
    own.close()
    poller.watch(server.fileno(), 0, partial(server_ended, client))
    client.grace = True
    if client.timer is not None:
        client.timer.cancel()
    client.timer = client.runtime.clock.callLater(GRACE, server_ended, client, 0)
    return True


def server_ended(client: Client, events: int) -> None:
    # Without events, the server has had the time to close it.
    end_after_reset(client, is_late=events > 0 or has_ended(client.server))


def end_after_reset(client: Client, *, is_late: bool) -> None:
    reset_on_close(client.server)
    if is_late:
        client.record.note(reset="late")
    client.advance(Finished("done" if is_late else "client-reset"))


def _leave_to_stage(client: Client, peer: Any, react: Callable[[KernelSide], None]) -> None:
    """Attach a stage, and have the relay's side of one of the sockets react."""
    is_client, stage = peer is client.socket, client.attach_stage()
    if stage is not None:
        react(client.receiver if is_client else stage.server.receiver)


def make_stage(client: Client, sink: Any = None, unsent: bytes = b"") -> Relaying:
    """Make a stage that continues the relay; it first sends the unsent bytes to the sink."""
    upstream, member, server = client.upstream, client.member, client.server
    assert member is not None  # noqa: S101 - it is relayed
    finished, after_end = client.half_closed, 0
    if finished is not None:
        record = client.record
        received = record.bytes_out if finished is client.socket else record.bytes_in
        after_end = received - client.before_end
    of_client, of_server = (
        SideState(
            received=0,
            held=unsent if end is sink else b"",
            has_finished=finished is end,
            is_reading=finished is not end,
            after_end=after_end,
            is_half_closing=finished not in {None, end} and bool(getattr(end, "_kept", b"")),
        )
        for end in (client.socket, server)
    )
    state = RelayState(of_client, of_server, client.path.seconds() - client.last_received_at, None)
    stage = Relaying(client, upstream, member, client.server_end(), state, upstream.timeouts)
    client.is_answered = client.record.bytes_out > 0
    client.make_transport(reading=False)
    client.member = client.server = None  # the stage has them from here on
    return stage


def due_at(client: Client) -> float:
    if client.half_closed is not None:
        return 0.0
    return client.last_received_at + client.upstream.timeouts.idle


def check(client: Client, now: float) -> None:
    """Check the sockets, once a second."""
    if client.agreed_tls is not None and not client.has_server_options:
        client.socket.release_buffers()
    client.set_server_options()
    if client.half_closed is None and now - client.checked_at >= client.path.peer_check_interval:
        client.checked_at = now
        if any(unanswered_by(peer).tries for peer in (client.socket, client.server)):
            stage = client.attach_stage()
            if stage is not None:
                stage.relay.check_peers()


@define(eq=False)
class Relaying(Stage):
    """A relay carries the bytes, and is the receiver of both ends.

    Args:
        state: How far the connection has been relayed, by another process or without a stage; ``None`` if that begins here.
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
    relay: Relay = attrs.field(default=cast("Relay", None), init=False)  # until it begins

    @override
    def begin(self) -> None:
        client, server, upstream, state = self._client, self.server, self._upstream, self._state
        end: Any = client  # of the connection: what the relay sees of it
        if state is not None and self._timeouts is not None:
            self._state = None
            self.relay = client.runtime.relay(end, server, self._timeouts, self._over)
            counts = None if self._member is None or client.is_answered else self._member.counts
            count_asked(client, counts, client.record.bytes_in)
            has_come = client.record.bytes_in + state.client.received > 0
            self._watch_first_bytes(has_come if client.was_asked is None else client.was_asked)
            self.relay.adopt(state)
            return
        assert upstream is not None  # noqa: S101 - it has just been connected
        settings = client.configuration
        client.runtime.set_options(server.transport, settings.options)
        self.relay = client.runtime.relay(
            end, server, upstream.timeouts, self._over, upstream.rates, settings.settings.keepalive
        )
        received, client.received = client.received, b""
        is_asked = client.server_counts is not None  # in the stage before
        first = client.first_sent or received
        if first and self._member is not None and not is_asked:
            client.first_sent = first
            count_asked(client, self._member.counts)
        before = client.counted_in or client.record.bytes_out
        if before and self._member is not None and not is_asked:
            end.count_bytes()  # some may have been for txmux, and by it, and not the server's
            self._member.counts.relayed(len(received), 0)
        self._watch_first_bytes(is_asked or bool(first))
        self.relay.start(received, client_finished=client.has_finished)

    # What the server answers, for its counters.

    def _watch_first_bytes(self, is_asked: bool) -> None:  # noqa: FBT001
        if self._member is None:
            return
        self._client.server_counts = self._member.counts
        if is_asked:
            self._asked_ms = _connected_ms(self._client.record)
        if not self._client.is_answered:
            self.relay.on_first_byte = self._first_byte_came

    def _first_byte_came(self, is_servers: bool, data: bytes | memoryview) -> None:  # noqa: FBT001 - of a callback
        client, upstream, member = self._client, self._upstream, self._member
        if client.is_answered or upstream is None or member is None:
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
            client.is_answered = True
            member.counts.answered(upstream.counts, now - self._asked_ms)
            if upstream.backend.proxy_protocol != "off":
                member.counts.answered_header(data)

    def _count_end(self, reason: RelayReason) -> None:
        if self._client.is_answered or self._member is None:
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
        release(self._upstream, self._member, self._release_elsewhere)

    @override
    def abort(self, reason: AbortReason) -> None:
        self.relay.abort(reason)

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
            has_spoken = self._client.is_answered or result.bytes_out
            reason, reset = ("done", reset) if has_spoken else (reason, "")
        if reset:
            record.note(reset=reset)
        self._count_end(reason)
        self._client.advance(Finished(reason))

    # Moving to another process.

    @property
    def is_asked(self) -> bool | None:
        return None if self._member is None else self._asked_ms is not None

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
        elsewhere, release_here = self._release_elsewhere, _keep_slot(self._upstream, self._member)
        if elsewhere is None:
            return release_here
        return lambda free: release_here(partial(elsewhere, free))

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
    def resume(self, relay: RelayState) -> None:
        self.relay.resume(relay)

    @override
    def detach(self) -> None:
        self.relay.detach()


def release(
    upstream: Upstream | None, member: Member | None, elsewhere: SlotRelease | None = None
) -> None:
    """Release the slot of a connection; `elsewhere` is as in `Relaying`."""
    if elsewhere is not None:
        # Connections that wait there came before those that wait here.
        elsewhere(partial(_keep_slot(upstream, member), lambda: None))
    elif upstream is not None and member is not None:
        upstream.pool.released(member)


def _keep_slot(upstream: Upstream | None, member: Member | None) -> SlotRelease:
    if upstream is None or member is None:
        return lambda free: free()
    upstream.pool.moved_away(member)
    return partial(upstream.pool.release_slot, member)


def _connected_ms(record: ConnectionRecord) -> float:
    return (record.detect_ms or 0.0) + (record.connect_ms or 0.0)
