"""Datagrams through a service that changes: each one is numbered, and may get lost, but not altered, doubled or led astray."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import attrs

from campaign.bytes.headers import address_of, trial_at
from campaign.bytes.loops import READ, Loop
from campaign.bytes.streams import Stream

FLOWS = 24
"""Clients at a time."""
MOST = 300
"""Datagrams of one client, at most."""

_WINDOW = 8  # unanswered datagrams of a client
_LATE = 0.2  # seconds after which an answer counts as lost
_HEAD = struct.Struct(">4sIIIBH")
_MAGIC = b"BYTE"
_AT_ONCE = 2**16

CLIENT, SERVER = 0, 1


def encode(seed: int, flow: int, number: int, direction: int, size: int) -> bytes:
    """Make a datagram with so many bytes after its head."""
    head = _HEAD.pack(_MAGIC, seed, flow, number, direction, size)
    return head + Stream(seed, flow << 16 | number, direction).take(size)


def decode(seed: int, data: bytes) -> tuple[int, int, int] | None:
    """Give the flow, the number and the direction of a datagram, if it is whole and from this campaign."""
    if len(data) < _HEAD.size:
        return None
    magic, its_seed, flow, number, direction, size = _HEAD.unpack_from(data)
    whole = (magic, its_seed) == (_MAGIC, seed) and direction in {CLIENT, SERVER}
    if not whole or encode(seed, flow, number, direction, size) != data:
        return None
    return flow, number, direction


@attrs.define
class Counts:
    """What came of it."""

    flows: int = 0
    sent: int = 0
    asked: int = 0
    answered: int = 0
    moved: int = 0  # flows that the server saw from more than one port
    defects: list[str] = attrs.field(factory=list)

    def add(self, other: Counts) -> None:
        for name in ("flows", "sent", "asked", "answered", "moved"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.defects += other.defects


@attrs.define
class _Flow:
    """One client."""

    number: int
    end: socket.socket
    by: random.Random
    most: int
    sent: int = 0
    asked: set[int] = attrs.field(factory=set)
    answered: set[int] = attrs.field(factory=set)
    ports: set[Any] = attrs.field(factory=set)
    waiting: dict[int, float] = attrs.field(factory=dict)
    over: bool = False


class Datagrams:
    """Clients and their server."""

    def __init__(self, seed: int, first: int) -> None:
        self.counts = Counts()
        self.flows: dict[int, _Flow] = {}
        self._loop = Loop()
        self._seed, self._next = seed, first
        self._server = self._socket("127.0.0.1")
        self.port: int = self._server.getsockname()[1]
        self._loop.watch(self._server.fileno(), READ, self._serve)

    @staticmethod
    def _socket(address: str) -> socket.socket:
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        made.bind((address, 0))
        made.setblocking(False)  # noqa: FBT003
        return made

    def run(self, port: int, until: float, tick: Callable[[], bool]) -> None:
        """Let clients speak to this port until then; and longer, while the tick says so."""
        self._port = port
        while tick() or time.monotonic() < until:
            live = [flow for flow in self.flows.values() if not flow.over]
            live += [self._begin() for _ in range(FLOWS - len(live))]
            for flow in live:
                self._speak(flow)
            self._loop.turn(0.01)
        quiet = time.monotonic() + 2.0  # for what is on its way
        while time.monotonic() < quiet:
            self._loop.turn(0.1)
        for flow in self.flows.values():
            flow.end.close()
        self._server.close()
        self._loop.close()

    def _begin(self) -> _Flow:
        number, self._next = self._next, self._next + 1
        by = random.Random(self._seed << 32 | number)
        end = self._socket(address_of(number))
        flow = _Flow(number, end, by, int(MOST ** by.random()))
        self.flows[number] = flow
        self.counts.flows += 1
        self._loop.watch(end.fileno(), READ, lambda _: self._hear(flow))
        return flow

    def _speak(self, flow: _Flow) -> None:
        now = time.monotonic()
        for number, when in list(flow.waiting.items()):
            if now - when > _LATE:
                del flow.waiting[number]
        while flow.sent < flow.most and len(flow.waiting) < _WINDOW:
            size = int(2 ** (flow.by.random() * (13 if flow.by.random() < 0.98 else 15.9))) - 1
            data = encode(self._seed, flow.number, flow.sent, CLIENT, size)
            with contextlib.suppress(BlockingIOError):
                flow.end.sendto(data, ("127.0.0.1", self._port))
            flow.waiting[flow.sent] = now
            flow.sent += 1
            self.counts.sent += 1
        flow.over = flow.sent == flow.most and not flow.waiting

    def _complain(self, what: str) -> None:
        if len(self.counts.defects) < 30:
            self.counts.defects.append(what)

    def _serve(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, source = self._server.recvfrom(_AT_ONCE)
                found = decode(self._seed, data)
                flow = self.flows.get(found[0]) if found else None
                if found is None or flow is None or found[2] != CLIENT:
                    self._complain(f"the server got what nobody sent: {data[:40]!r}")
                    continue
                number = found[1]
                if number in flow.asked:
                    self._complain(f"datagram {number} of flow {flow.number} came twice")
                flow.asked.add(number)
                flow.ports.add(source)
                self.counts.asked += 1
                size = int(2 ** (flow.by.random() * 13)) - 1
                answer = encode(self._seed, flow.number, number, SERVER, size)
                with contextlib.suppress(BlockingIOError):
                    self._server.sendto(answer, source)

    def _hear(self, flow: _Flow) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                data, source = flow.end.recvfrom(_AT_ONCE)
                found = decode(self._seed, data)
                if found is None or (found[0], found[2]) != (flow.number, SERVER):
                    self._complain(f"flow {flow.number} got what was not for it: {data[:40]!r}")
                    continue
                number = found[1]
                if number in flow.answered:
                    self._complain(f"answer {number} of flow {flow.number} came twice")
                if number >= flow.sent or source[1] != self._port:
                    self._complain(f"answer {number} of flow {flow.number} is from {source}")
                flow.answered.add(number)
                flow.waiting.pop(number, None)
                self.counts.answered += 1

    def compare(self, log: list[dict[str, Any]]) -> None:
        lines: dict[int, list[dict[str, Any]]] = {}
        for line in log:
            lines.setdefault(trial_at(line["client"].rpartition(":")[0]), []).append(line)
        for flow in self.flows.values():
            self.counts.moved += len(flow.ports) > 1
            its = lines.pop(flow.number, [])
            if not its and not flow.asked:
                continue  # all of it may have been lost
            if len(its) != 1 and len(flow.ports) <= 1:
                self._complain(f"flow {flow.number} has {len(its)} lines in the access log")
            came, went = (sum(line[f"datagrams_{way}"] for line in its) for way in ("in", "out"))
            if not len(flow.asked) <= came <= flow.sent:
                told = f"{flow.sent} sent, {len(flow.asked)} at the server, {came} in the log"
                self._complain(f"flow {flow.number}: {told}")
            if not len(flow.answered) <= went <= len(flow.asked):
                told = f"{len(flow.asked)} answered, {len(flow.answered)} came, {went} in the log"
                self._complain(f"flow {flow.number}: {told}")
        for number in lines:
            self._complain(f"flow {number} is logged, and nobody knows it")
