"""How it is found out that a quiet peer is gone."""

from __future__ import annotations

import attrs

__all__ = ["Keepalive"]


@attrs.frozen
class Keepalive:
    """TCP keepalive.

    Attributes:
        idle: Seconds without a byte before the peer is asked.
        interval: Seconds from one question to the next.
        count: Questions without an answer after which it is gone.
    """

    idle: int = 60
    interval: int = 15
    count: int = 4
