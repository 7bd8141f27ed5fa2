"""When a relay gives up, and how it went."""

from __future__ import annotations

from typing import Literal

import attrs

__all__ = ["AbortReason", "Reason", "RelayResult", "Timeouts"]

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
