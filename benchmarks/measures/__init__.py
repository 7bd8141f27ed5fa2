"""One module for each measure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.measures import bulk, connection, held, latency, memory, scaling, small

if TYPE_CHECKING:
    from benchmarks.bench import Measure

__all__ = ["MEASURES"]

MEASURES: tuple[Measure, ...] = (bulk, small, connection, memory, held, latency, scaling)
