"""What clients said first in captures: `txmux explain --pcap`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from txmux.rules.feature import Feature


def _streams(path: str, limit: int) -> Sequence[Any]:
    from txmux.features.captures.reading import (  # noqa: PLC0415 - few explain one
        Datagram,
        Segment,
        client_flows,
        client_streams,
        read_packets,
    )

    with Path(path).open("rb") as file:
        packets = list(read_packets(file, path))
    segments = [packet for packet in packets if isinstance(packet, Segment)]
    datagrams = [packet for packet in packets if isinstance(packet, Datagram)]
    return [*client_streams(segments, limit), *client_flows(datagrams)]


FEATURE = Feature("captures", captured=_streams)
