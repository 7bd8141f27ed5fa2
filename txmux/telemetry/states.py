"""What a live connection is at, in the words of the API; its reference explains each."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["STATES", "ConnectionState"]

ConnectionState = Literal[
    "introduction",
    "peeking",
    "handshaking",
    "awaiting-hello",
    "connecting",
    "relaying",
    "serving",
    "handing-over",
    "rejecting",
    "closing",
    "over",
]
"""The stages of a connection, in the order in which one may go through them."""

STATES: tuple[ConnectionState, ...] = get_args(ConnectionState)[:-1]
"""Those of connections that are there."""
