"""What clients said first in captures: `txmux explain --pcap`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from txmux.rules.feature import Feature


def _streams(path: str, limit: int) -> Sequence[Any]:
    from txmux.features.captures import reading  # noqa: PLC0415 - few explain one

    with Path(path).open("rb") as file:
        packets = list(reading.read_packets(file, path))
    segments = [packet for packet in packets if isinstance(packet, reading.Segment)]
    datagrams = [packet for packet in packets if isinstance(packet, reading.Datagram)]
    return [*reading.client_streams(segments, limit), *reading.client_flows(datagrams)]


FEATURE = Feature("captures", captured=_streams)
