"""What clients said first in captures: `txmux explain --pcap`."""

from collections.abc import Sequence
from typing import Any, BinaryIO

from txmux.rules.feature import Feature


def _streams(file: BinaryIO, name: str, limit: int) -> Sequence[Any]:
    from txmux.features.captures import reading  # noqa: PLC0415 - few explain one

    packets = list(reading.read_packets(file, name))
    segments = [packet for packet in packets if isinstance(packet, reading.Segment)]
    datagrams = [packet for packet in packets if isinstance(packet, reading.Datagram)]
    return [*reading.client_streams(segments, limit), *reading.client_flows(datagrams)]


FEATURE = Feature("captures", captured=_streams)
