"""One module for each measure, or for some that go together."""

from __future__ import annotations

from benchmarks.bench import Measure
from benchmarks.measures import (
    bulk,
    connection,
    datagrams,
    day,
    detection,
    held,
    large,
    latency,
    memory,
    scaling,
    small,
    start,
    storm,
    tls,
)
from benchmarks.measures.counted import COUNTED

__all__ = ["COUNTED", "MEASURES"]

MEASURES = (
    Measure("bulk", bulk.FIGURES, bulk.measure),
    Measure("bulk-other", bulk.OTHER, bulk.other),
    Measure("stream", bulk.STREAM, bulk.stream),
    Measure("small", small.FIGURES, small.measure),
    Measure("connection", connection.FIGURES, connection.measure),
    Measure("tls", tls.FIGURES, tls.measure),
    Measure("memory", memory.FIGURES, memory.measure, rounds=1),
    Measure("held", held.FIGURES, held.measure, rounds=1),
    Measure("latency", latency.FIGURES, latency.measure),
    Measure("storm", storm.FIGURES, storm.measure),
    Measure("scaling", scaling.FIGURES, scaling.measure),
    Measure("udp-bulk", datagrams.BULK, datagrams.bulk),
    Measure("udp-questions", datagrams.QUESTIONS, datagrams.questions),
    Measure("udp-held", datagrams.HELD, datagrams.held),
    Measure("start", start.FIGURES, start.measure),
    Measure("workers", start.WORKERS, start.workers, rounds=1),
    Measure("day", day.FIGURES, day.measure, by_name=True),
    Measure("large", large.FIGURES, large.measure, ours=True),
    Measure("detection", detection.FIGURES, detection.measure, ours=True),
)
