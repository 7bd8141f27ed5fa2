"""What tests of the limits for each source share."""

from __future__ import annotations

from txmux.access.per_source import SourceTable

SECOND = 10**9


def memory(columns: int = 1) -> bytearray:
    """Make the memory of a table."""
    return bytearray(SourceTable.size(columns))
