"""A client's connection or flow of datagrams: what other rooms may use of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from txmux.access.per_source import Permit
    from txmux.net.relay.interface import RelayedBytes
    from txmux.rules.model import Logged
    from txmux.tcp.configuration import Configuration
    from txmux.telemetry.reasons import AbortReason, EndReason
    from txmux.telemetry.record import ConnectionRecord, ConnectionState
    from txmux.wire.proxyprotocol.header import Address


class Served(Protocol):
    """A client's connection or flow."""

    record: ConnectionRecord
    configuration: Configuration
    logged: Logged  # whether it gets a line, or only if there is something to look into
    admitted: bool
    permit: Permit | None  # counts it for its source, if that is limited
    unrecognised: bytes | None  # its first bytes, if no route took it
    decided_after: int  # bytes of the client that had come when it was routed
    refusal_reason: EndReason | None  # the reason that the log gives if it was routed to a refusal

    @property
    def state(self) -> ConnectionState: ...

    @property
    def runtime(self) -> Any: ...

    @property
    def address(self) -> Address | None: ...

    @property
    def received(self) -> bytes: ...

    def elapsed_ms(self) -> float: ...
    def relayed(self) -> RelayedBytes: ...
    def count_bytes(self) -> None: ...
    def end(self, reason: AbortReason, /) -> None: ...


def note_decision(served: Served, bytes_in: int, reason: EndReason) -> None:
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
        served.permit.settle()
