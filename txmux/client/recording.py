"""Records what becomes of a client: its ID, the decision, the bytes, and the end."""

from __future__ import annotations

import itertools
import secrets
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from txmux.net.sockets.plainsocket import is_multipath

if TYPE_CHECKING:
    from txmux.client.served import Counted, Served
    from txmux.telemetry.reasons import EndReason
    from txmux.telemetry.record import ConnectionRecord


def _make_ids() -> Iterator[str]:
    # The prefix is not made at import: workers are forked from a process that has imported this.
    prefix = secrets.token_hex(4)
    for number in itertools.count(1):
        yield f"{prefix}-{number:x}"


new_id = _make_ids().__next__


def record_multipath(record: ConnectionRecord, transport: Any) -> None:
    """Note a connection by MPTCP, of the client or to its server."""
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if isinstance(handle, socket.socket) and is_multipath(handle):
        record.facts = {**record.facts, "mptcp": "yes"}


def record_decision(served: Served, bytes_in: int, reason: EndReason) -> None:
    """Record that a client is routed, and the reason if it is to a refusal; only the first call counts."""
    record = served.record
    if record.detect_ms is None:
        record.detect_ms = served.elapsed_ms()
        record.bytes_in = served.decided_after = bytes_in
        served.refusal_reason = reason
        if served.runtime.events.has_listener:
            served.runtime.events.decided(record)
        served.configuration.counts.decided(record)
    if served.permit is not None:
        served.permit.mark_decided()


def count_bytes(served: Counted) -> None:
    """Count what a connection has relayed since it was counted last."""
    if served.counted is not None and served.record.detect_ms is not None:
        relayed = served.relayed()
        more_in, more_out = (
            relayed.bytes_in - served.counted_in,
            relayed.bytes_out - served.counted_out,
        )
        counts = served.configuration.counts
        counts.relayed(served.counted, served.server_counts, more_in, more_out)
        served.counted_in, served.counted_out = relayed.bytes_in, relayed.bytes_out


def record_end(served: Counted, reason: EndReason) -> None:
    """Record how a connection has ended, and count it."""
    record, counted = served.record, served.counted
    record.reason, record.duration_ms, served.counted = reason, served.elapsed_ms(), None
    if counted is not None:
        counts = served.configuration.counts
        more_in, more_out = (
            record.bytes_in - served.counted_in,
            record.bytes_out - served.counted_out,
        )
        counts.relayed(counted, served.server_counts, more_in, more_out)
        counts.connection_ended(counted, record, reason)
        served.runtime.clients.ended(served)
