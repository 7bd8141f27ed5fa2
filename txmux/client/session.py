"""A client's connection or flow of datagrams, as other packages see it, and what is recorded of it."""

from __future__ import annotations

import itertools
import secrets
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from txmux.net.sockets.plainsocket import is_multipath
from txmux.telemetry.reasons import EndReason
from txmux.telemetry.record import ConnectionRecord

if TYPE_CHECKING:
    from txmux.access.per_source import Permit
    from txmux.client.configuration import Configuration, RuleLayer
    from txmux.client.io_runtime import IORuntime
    from txmux.client.tls.terminator import AgreedTLS
    from txmux.net.relay.interface import RelayedBytes
    from txmux.rules.model import Logged
    from txmux.telemetry.counting.counter_groups import RouteCounts, ServerCounts
    from txmux.telemetry.reasons import AbortReason
    from txmux.telemetry.record import ConnectionState
    from txmux.wire.proxyprotocol.header import Address


class ClientSession(Protocol):
    """A client's connection or flow."""

    record: ConnectionRecord
    logged: Logged  # whether it gets a line, or only if there is something to look into
    admitted: bool
    permit: Permit | None  # counts it for its source, if that is limited
    decided_after: int  # bytes of the client that had come when it was routed
    refusal_reason: EndReason | None  # the reason that the log gives if it was routed to a refusal

    @property
    def configuration(self) -> Configuration: ...

    @property
    def unrecognised(self) -> bytes | None:
        """Its first bytes, if no route took it."""

    @property
    def state(self) -> ConnectionState: ...

    @property
    def runtime(self) -> IORuntime: ...

    @property
    def address(self) -> Address | None: ...

    @property
    def received(self) -> bytes: ...

    @property
    def layer(self) -> RuleLayer | None: ...  # where it is detected; ``None``: outermost

    @property
    def agreed_tls(self) -> AgreedTLS | None: ...  # of the client's TLS, if it is terminated here

    @property
    def was_moved_here(self) -> bool: ...  # another process decided; how is not known here

    def elapsed_ms(self) -> float: ...
    def relayed(self) -> RelayedBytes: ...
    def count_bytes(self) -> None: ...
    def end(self, reason: AbortReason, /) -> None: ...


def has_ended(connection: ClientSession) -> bool:
    return connection.record.reason is not None


class CountedSession(ClientSession, Protocol):
    """A client's connection."""

    accepted_at: float  # by the runtime's clock
    counted: RouteCounts | None  # the counters of its route; ``None`` once it is over
    counted_in: int  # bytes that are in the counters already
    counted_out: int
    server_counts: ServerCounts | None  # the counters of its server, once it has one


def _make_ids() -> Iterator[str]:
    # The prefix is not made at import: workers are forked from a process that has imported this.
    prefix = secrets.token_hex(4)
    for number in itertools.count(1):
        yield f"{prefix}-{number:x}"


new_id = _make_ids().__next__


def record_multipath(record: ConnectionRecord, transport: Any) -> None:
    """Record a connection by MPTCP, of the client or to its server."""
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if isinstance(handle, socket.socket) and is_multipath(handle):
        record.note(mptcp="yes")


def record_decision(session: ClientSession, bytes_in: int, reason: EndReason) -> None:
    """Record that a client is routed, and the reason if it is to a refusal; only the first call counts."""
    record = session.record
    if record.detect_ms is None:
        record.detect_ms = session.elapsed_ms()
        record.bytes_in = session.decided_after = bytes_in
        session.refusal_reason = reason
        if session.runtime.events.sees_decisions:
            session.runtime.events.decided(session)
        session.configuration.counts.decided(record)
    if session.permit is not None:
        session.permit.mark_decided()


def count_bytes(session: CountedSession) -> None:
    """Count what a connection has relayed since it was counted last."""
    if session.counted is not None and session.record.detect_ms is not None:
        relayed = session.relayed()
        more_in = relayed.bytes_in - session.counted_in
        more_out = relayed.bytes_out - session.counted_out
        counts = session.configuration.counts
        counts.relayed(session.counted, session.server_counts, more_in, more_out)
        session.counted_in, session.counted_out = relayed.bytes_in, relayed.bytes_out


def record_end(session: CountedSession, reason: EndReason) -> None:
    """Record how a connection has ended, and count it."""
    record, counted = session.record, session.counted
    record.reason, record.duration_ms, session.counted = reason, session.elapsed_ms(), None
    if counted is not None:
        counts = session.configuration.counts
        more_in = record.bytes_in - session.counted_in
        more_out = record.bytes_out - session.counted_out
        counts.relayed(counted, session.server_counts, more_in, more_out)
        counts.connection_ended(counted, record, reason)
        session.runtime.clients.ended(session)
