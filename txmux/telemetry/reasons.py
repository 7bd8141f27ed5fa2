"""Why a connection ended, in the words of the access log; its reference explains each."""

from typing import Literal, get_args

AbortReason = Literal["drained", "killed", "denied", "limit", "server-down"]
"""Why a connection is ended from outside."""

RelayReason = Literal[
    AbortReason, "done", "client-reset", "server-reset", "idle-timeout", "half-close-timeout", "max-duration", "error",
]  # fmt: skip
"""Why a relay ended."""

ConnectFailure = Literal[
    "connect-refused", "connect-timeout", "tls-failed", "no-server", "no-name", "name-denied", "address-denied", "limit", "error",
]  # fmt: skip
"""Why no server could be reached."""

ServerFailure = Literal[ConnectFailure, "reset"]
"""How a server fails: it cannot be reached, or it resets a connection before its first byte."""

FAILURE_TEXTS: dict[ServerFailure, str] = {
    "connect-refused": "connection refused",
    "connect-timeout": "no connection in time",
    "tls-failed": "TLS failed",
    "no-server": "no server is up",
    "no-name": "its name has no address",
    "name-denied": "its name is not allowed",
    "address-denied": "its address is not allowed",
    "limit": "a limit is reached",
    "error": "cannot be connected",
    "reset": "reset before its first byte",
}

CLIENT_FAULTS: frozenset[ConnectFailure] = frozenset({"no-name", "name-denied", "address-denied"})
"""Causes in what a client asks for, which say nothing about servers."""

EndReason = Literal[
    RelayReason, ConnectFailure, "client-gone", "no-route", "silent", "proxy-header", "unanswered", "handed-over", "not-taken",
]  # fmt: skip
"""Why a connection ended."""

_ALL: dict[object, EndReason] = {reason: reason for reason in get_args(EndReason)}

CountedReason = Literal[EndReason, "crashed"]
"""Why a connection ended, for counters: those of a process that was killed or crashed have no line in the access log."""

LimitName = Literal[
    "max_connections", "max_connections_per_source", "max_undecided_per_source", "handshakes", "connection_rate_per_source",
    "txmux.max_connections", "max_flows", "max_flows_per_source", "descriptors",
]  # fmt: skip
"""The limits at which clients are refused, by their keys: one is that of ``[txmux]``, most others are a listener's; ``descriptors`` is for flows."""


def understood(reason: object) -> EndReason:
    # Another version may send one that this version does not know.
    return _ALL.get(reason, "error") if isinstance(reason, str) else "error"
