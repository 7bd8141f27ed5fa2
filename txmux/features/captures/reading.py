"""The first bytes of clients, read from captures: pcap and pcapng files, by `dpkt`, which is optional."""

import struct
from collections.abc import Iterable, Iterator
from importlib import import_module
from ipaddress import ip_address
from typing import Any, BinaryIO

import attrs

from txmux.classes import define, frozen
from txmux.errors import MuxError, how_to_install
from txmux.interfaces import MOST_DATAGRAMS
from txmux.wire.proxyprotocol.header import Address

_SEQUENCE_NUMBERS = 1 << 32
_UDP_HEADER = 8


@frozen
class Segment:
    """A TCP segment (RFC 9293, section 3.1)."""

    source: Address
    destination: Address
    sequence: int
    acknowledged: int
    syn: bool
    ack: bool
    payload: bytes


@frozen
class Datagram:
    """A datagram (RFC 768); `whole` says whether all of it was captured."""

    source: Address
    destination: Address
    payload: bytes
    whole: bool = True


@frozen
class CapturedStream:
    """The first bytes that a client sent on one connection, or the first datagrams of one flow.

    Attributes:
        gap: The capture lacks what comes after these, though it has later ones.
        server_first: Whether the server has sent bytes before these.
        is_late: The capture began after the connection, so there may have been earlier ones.
    """

    client: Address
    server: Address
    data: bytes
    gap: bool
    server_first: bool
    datagrams: tuple[bytes, ...] | None = None
    is_late: bool = False


def read_packets(file: BinaryIO, name: str) -> Iterator[Segment | Datagram]:
    """Read the TCP segments and the datagrams of a pcap or pcapng file; everything else in it is skipped."""
    try:
        dpkt = import_module("dpkt")
    except ModuleNotFoundError:
        message = f"captures need the package dpkt; install it: {how_to_install('pcap')}"
        raise MuxError(message) from None
    damaged = (dpkt.dpkt.Error, struct.error, ValueError)
    try:
        reader = dpkt.pcap.UniversalReader(file)
    except damaged:
        message = f"{name} is not a capture; write one in pcap or pcapng form, with 'tcpdump -w FILE' for example"
        raise MuxError(message) from None
    read_packet = _layers(dpkt).get(reader.datalink())
    if read_packet is None:
        raise MuxError(
            f"{name} is from a kind of network that is not known here (link type {reader.datalink()}); "
            "capture on an Ethernet or loopback interface, or on 'any'"
        )
    packets = iter(reader)
    while True:
        try:
            _, packet = next(packets)
        except (StopIteration, *damaged):  # damaged: it was cut off while it was written
            return
        try:
            content = _content(dpkt, read_packet(packet))
        except (*damaged, LookupError, TypeError, AttributeError):  # all seen of dpkt with garbage
            continue
        if content is not None:
            yield content


def _layers(dpkt: Any) -> dict[int, Any]:
    """Return what reads a packet, by link type (the registry of tcpdump.org)."""

    def ip(packet: bytes) -> Any:
        return dpkt.ip6.IP6(packet) if packet[0] >> 4 == 6 else dpkt.ip.IP(packet)

    return {
        0: dpkt.loopback.Loopback,
        1: dpkt.ethernet.Ethernet,
        12: ip,  # raw IP, by its names on several systems
        14: ip,
        101: ip,
        108: dpkt.loopback.Loopback,
        113: dpkt.sll.SLL,
        228: dpkt.ip.IP,
        229: dpkt.ip6.IP6,
        276: dpkt.sll2.SLL2,
    }


def _content(dpkt: Any, packet: Any) -> Segment | Datagram | None:
    carriers = (dpkt.tcp.TCP, dpkt.udp.UDP)
    while isinstance(packet, dpkt.dpkt.Packet) and not isinstance(packet, carriers):
        if isinstance(packet, (dpkt.ip.IP, dpkt.ip6.IP6)):
            source, destination = ip_address(packet.src), ip_address(packet.dst)
        packet = packet.data
    if isinstance(packet, dpkt.udp.UDP):
        size = packet.ulen - _UDP_HEADER
        payload = bytes(packet.data)[: max(size, 0)]
        ends = Address(source, packet.sport), Address(destination, packet.dport)
        return Datagram(*ends, payload, len(payload) == size)
    if not isinstance(packet, dpkt.tcp.TCP):
        return None
    return Segment(
        Address(source, packet.sport),
        Address(destination, packet.dport),
        packet.seq,
        packet.ack,
        bool(packet.flags & dpkt.tcp.TH_SYN),
        bool(packet.flags & dpkt.tcp.TH_ACK),
        bytes(packet.data),
    )


def client_streams(segments: Iterable[Segment], limit: int) -> list[CapturedStream]:
    """Assemble the first bytes of each client: the sender of SYN, or, when the capture began later, of the first byte.

    The segments are of any number of connections, repeated or out of order.
    """
    streams: list[_CapturedConnection] = []
    current: dict[frozenset[Address], _CapturedConnection] = {}
    for segment in segments:
        ends = frozenset((segment.source, segment.destination))
        stream = current.get(ends)
        if stream is None or stream.is_followed_by(segment):
            if not (segment.syn or segment.payload):
                continue
            stream = current[ends] = _CapturedConnection(segment, limit)
            streams.append(stream)
        stream.add(segment)
    return [stream.gathered() for stream in streams]


class _CapturedConnection:
    """A connection while its segments are read."""

    def __init__(self, first: Segment, limit: int) -> None:
        answer = first.syn and first.ack
        self._client = first.destination if answer else first.source
        self._server = first.source if answer else first.destination
        self._limit = limit
        self._pieces: dict[int, bytes] = {}
        self._server_spoke = False
        self._server_first = False
        self._known_start = first.syn
        self._start = first.sequence
        if first.syn:
            self._start = first.acknowledged if answer else _plus(first.sequence, 1)

    def is_followed_by(self, segment: Segment) -> bool:
        """Return whether a segment opens another connection between the same ends."""
        if not segment.syn or segment.ack:
            return False
        return not self._known_start or (
            segment.source != self._client or _plus(segment.sequence, 1) != self._start
        )

    def add(self, segment: Segment) -> None:
        if segment.payload and segment.source != self._client:
            self._server_spoke = True
        elif segment.payload:
            if not self._pieces:
                self._server_first = self._server_spoke
            offset = _distance(self._start, _plus(segment.sequence, int(segment.syn)))
            piece = segment.payload[: max(self._limit - offset, 0)]
            if len(piece) > len(self._pieces.get(offset, b"")):
                self._pieces[offset] = piece

    def gathered(self) -> CapturedStream:
        data = b""
        gap = False
        offsets = sorted(self._pieces)
        start = 0 if self._known_start else min(offsets, default=0)
        for offset in offsets:
            if offset - start > len(data):
                gap = True
                break
            data += self._pieces[offset][len(data) - (offset - start) :]
        ends, is_late = (self._client, self._server), not self._known_start
        return CapturedStream(*ends, data[: self._limit], gap, self._server_first, is_late=is_late)


def _plus(sequence: int, count: int) -> int:
    return (sequence + count) % _SEQUENCE_NUMBERS


def _distance(start: int, sequence: int) -> int:
    """Count the bytes from one sequence number to another, which may come before it."""
    half = _SEQUENCE_NUMBERS // 2
    return (sequence - start + half) % _SEQUENCE_NUMBERS - half


@define
class _CapturedFlow:
    client: Address
    server: Address
    datagrams: list[bytes] = attrs.field(factory=list)
    gap: bool = False


def client_flows(datagrams: Iterable[Datagram]) -> list[CapturedStream]:
    """Collect the first datagrams of each client, as many as predicates see.

    The sender of the first datagram is the client. A capture does not show when a flow ends, so each pair of addresses is one flow.
    """
    flows: dict[frozenset[Address], _CapturedFlow] = {}
    for datagram in datagrams:
        ends = frozenset((datagram.source, datagram.destination))
        flow = flows.get(ends)
        if flow is None:
            flow = flows[ends] = _CapturedFlow(datagram.source, datagram.destination)
        if datagram.source == flow.client and len(flow.datagrams) < MOST_DATAGRAMS:
            flow.datagrams.append(datagram.payload)
            flow.gap = flow.gap or not datagram.whole
    return [
        CapturedStream(
            flow.client,
            flow.server,
            flow.datagrams[0],
            flow.gap,
            server_first=False,
            datagrams=tuple(flow.datagrams),
        )
        for flow in flows.values()
    ]
