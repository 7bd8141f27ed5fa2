"""A client's connection or flow of datagrams, as other packages see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from txmux.access.per_source import Permit
    from txmux.client.configuration import Configuration, RuleLayer
    from txmux.client.io_runtime import IORuntime
    from txmux.client.tls.terminator import AgreedTLS
    from txmux.net.relay.interface import RelayedBytes
    from txmux.rules.model import Logged
    from txmux.telemetry.counting.counter_groups import RouteCounts, ServerCounts
    from txmux.telemetry.reasons import AbortReason, EndReason
    from txmux.telemetry.record import ConnectionRecord, ConnectionState
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
