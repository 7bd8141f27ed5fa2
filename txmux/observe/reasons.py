"""Why a connection ended, in the words of the access log; its reference explains each."""

from __future__ import annotations

from typing import Literal

__all__ = ["AbortReason", "ConnectFailure", "EndReason", "RelayReason"]

AbortReason = Literal["drained", "killed"]
"""Why a connection is ended from outside."""

RelayReason = Literal[
    AbortReason,
    "done",
    "client-reset",
    "server-reset",
    "idle-timeout",
    "half-close-timeout",
    "max-duration",
    "error",
]
"""Why a relay ended."""

ConnectFailure = Literal[
    "connect-refused", "connect-timeout", "tls-failed", "no-server", "limit", "error"
]
"""Why no server could be reached."""

EndReason = Literal[
    RelayReason, ConnectFailure, "client-gone", "no-route", "silent", "denied", "proxy-header"
]
"""Why a connection ended."""
