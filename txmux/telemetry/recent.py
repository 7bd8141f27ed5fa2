"""The last connections that did not end as they should, for whoever wants to know why."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import attrs

from txmux.telemetry.access_log import fields_of

if TYPE_CHECKING:
    from txmux.telemetry.record import ConnectionRecord

__all__ = ["CAPTURED", "KEPT", "Recent"]

KEPT = 200
"""Connections that are kept."""

CAPTURED = 64
"""Bytes that are kept of what a client said first that no route took."""


@attrs.define
class Recent:
    """The last that have ended in one process."""

    _kept: deque[tuple[ConnectionRecord, bytes | None]] = attrs.field(
        factory=lambda: deque(maxlen=KEPT), init=False
    )

    def add(self, record: ConnectionRecord, first: bytes | None) -> None:
        """Keep one.

        Args:
            record: As the access log has it.
            first: What the client said first, if no route took it; empty if that is not to be kept.
        """
        self._kept.append((record, first))

    def as_json(self) -> list[dict[str, Any]]:
        """Return them as values of JSON, the last one first, with the time of the end in seconds since 1970."""
        return [
            {
                **fields_of(record),
                "ended": record.time + (record.duration_ms or 0.0) / 1000,
                **({} if first is None else {"first": first.hex()}),
            }
            for record, first in reversed(self._kept)
        ]
