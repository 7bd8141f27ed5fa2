"""Records what becomes of a client: its ID, the decision, the bytes, and the end."""

from __future__ import annotations

import itertools
import secrets
import socket
from collections.abc import Iterator
from typing import Any

from txmux.client.session import ClientSession, CountedSession
from txmux.net.sockets.plainsocket import is_multipath
from txmux.telemetry.reasons import EndReason
from txmux.telemetry.record import ConnectionRecord


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
        record.facts = {**record.facts, "mptcp": "yes"}


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
