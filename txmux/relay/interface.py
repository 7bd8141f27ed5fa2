"""What every relay offers, whatever carries the bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import attrs

if TYPE_CHECKING:
    from txmux.relay.ends import End

__all__ = ["AbortReason", "Reason", "Relay", "RelayResult", "Timeouts"]

AbortReason = Literal["drained", "killed"]
"""Why a connection is ended from outside."""

Reason = Literal[
    AbortReason,
    "done",
    "client-reset",
    "server-reset",
    "idle-timeout",
    "half-close-timeout",
    "max-duration",
    "error",
]
"""Why a relay ended, in the words of the access log."""


@attrs.frozen
class Timeouts:
    """How long a relay goes on, in seconds.

    Attributes:
        idle: Without a byte either way.
        half_close: Without a byte either way, after one side has finished sending.
        max_duration: In all; ``None`` for as long as it likes.
    """

    idle: float = 3600.0
    half_close: float = 60.0
    max_duration: float | None = None


@attrs.frozen
class RelayResult:
    """How a relay went.

    Attributes:
        reason: Why it ended.
        bytes_in: Bytes that came from the client while it was relayed.
        bytes_out: Bytes that came from the server.
    """

    reason: Reason
    bytes_in: int
    bytes_out: int


class Relay(Protocol):
    """Carries bytes between two ends until both are gone, then tells its `RelayResult` once.

    What it was told to do when over is given to its constructor. It must

    - send `pending` first, then every byte that comes, each exactly once and in order;
    - hold no more than a bounded number of bytes for a side that does not read;
    - pass a half-close on, and a reset as a reset, once the other peer has taken the bytes that came before it;
    - leave no timer and no open descriptor behind.
    """

    def start(self, client: End, server: End, pending: bytes, *, client_finished: bool) -> None:
        """Take both ends over.

        Args:
            client: The client's end; it may be paused.
            server: The server's end.
            pending: Bytes from the client that the server has not been sent.
            client_finished: Whether the client has already finished sending.
        """
        ...

    def abort(self, reason: AbortReason) -> None:
        """End both connections at once; bytes still under way are lost."""
        ...
