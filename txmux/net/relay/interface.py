"""Values of relays: time-outs, results, and the state of one that moves to another process."""

from typing import Literal

from txmux.classes import frozen
from txmux.telemetry.reasons import RelayReason

MARGIN = 2.0
"""Seconds by which a connection without timers may notice a deadline late, so that it has one for a shorter time limit."""

DRAIN_POLL = 0.05
"""Seconds between the first checks whether a peer has acknowledged everything, which no event reports; doubled each time."""
LONGEST_DRAIN_POLL = 1.0


@frozen
class Timeouts:
    """How long a relay lasts, in seconds.

    Attributes:
        idle: Without a byte either way.
        half_close: Without a byte either way, after one side has finished sending.
        max_duration: In all; ``None`` means no limit.
    """

    idle: float = 3600.0
    half_close: float = 60.0
    max_duration: float | None = None


@frozen
class RelayedBytes:
    """How much has been relayed so far.

    Attributes:
        bytes_in: Bytes that came from the client.
        bytes_out: Bytes that came from the server.
        last_at: When something was last relayed, by the relay's clock; 0 is never.
        datagrams: Of a flow, the datagrams from the client and from the server.
    """

    bytes_in: int
    bytes_out: int
    last_at: float
    datagrams: tuple[int, int] | None = None


@frozen
class RelayResult:
    """The outcome of a relay.

    Attributes:
        reason: Why it ended.
        bytes_in: Bytes that came from the client while it was relayed.
        bytes_out: Bytes that came from the server.
        reset: ``late`` if a peer reset its connection when both had said all, ``unseen`` if a connection was broken off whose
            socket has no reset.
    """

    reason: RelayReason
    bytes_in: int
    bytes_out: int
    reset: Literal["", "late", "unseen"] = ""


@frozen
class SideState:
    """One side of a relay that is suspended.

    Attributes:
        received: Bytes that came from its peer and were passed on.
        held: Bytes for its peer that it has not been sent.
        has_finished: Whether its peer has finished sending.
        is_reading: Whether what its peer still sends is read.
        is_half_closing: Whether a half-close follows what is held.
        is_unwritable: Whether its peer has stopped accepting bytes.
        quiet: Seconds since its peer's last byte; ``None`` if that is not known.
        after_end: Bytes that came from its peer after the other side's peer had finished sending.
        rate: The most bytes per second that its peer may be sent; ``None`` means no limit.
    """

    received: int
    held: bytes
    has_finished: bool = False
    is_reading: bool = True
    is_half_closing: bool = False
    is_unwritable: bool = False
    quiet: float | None = None
    after_end: int = 0
    rate: int | None = None


@frozen
class RelayState:
    """All that another relay needs to continue a suspended one, besides the two sockets.

    Attributes:
        client: The client's side.
        server: The server's side.
        quiet: Seconds since the last byte.
        left: Seconds until ``max_duration``; ``None`` if there is none.
    """

    client: SideState
    server: SideState
    quiet: float
    left: float | None
