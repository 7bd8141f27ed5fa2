"""When a relay gives up, and how it went."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from txmux.observe.reasons import RelayReason

__all__ = ["RelayResult", "Timeouts"]


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

    reason: RelayReason
    bytes_in: int
    bytes_out: int
