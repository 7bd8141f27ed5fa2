"""Connections move between processes, whatever is late or lost on the way, and whoever ends in between."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import change_constants
from tests.support.examples import scaled
from txmux.net.channel.channel import Channel
from txmux.net.relay.interface import RelayState, SideState, Timeouts
from txmux.processes.worker import handover
from txmux.processes.worker.handover import Adopting, Round, Taker, opened
from txmux.tcp.moving import MovedConnection, SlotRelease, Sockets
from txmux.telemetry.record import ConnectionRecord

_BATCH = 3


class _End:
    """One end of a channel: what it is given arrives when the test wants it to."""

    backlog = 0

    def __init__(self) -> None:
        self.sent: deque[tuple[bytes, list[int]]] = deque()
        self.is_closing = False

    def write(self, data: bytes) -> None:
        self.send(data)

    def send(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        self.sent.append((data, [*map(os.dup, descriptors)]))

    def loseConnection(self) -> None:
        self.is_closing = True

    def abortConnection(self) -> None:
        self.drop()
        self.is_closing = True

    def read_rest(self) -> None: ...  # nothing has come that the channel was not given

    def drop(self) -> None:
        for _, descriptors in self.sent:
            for descriptor in descriptors:
                os.close(descriptor)
        self.sent.clear()


class _Wire:
    """A channel from an old process to a new one.

    Attributes:
        is_cut: Whether one of them has ended, or is done.
    """

    def __init__(self, here: Channel, there: Channel) -> None:
        self.channels = here, there
        self.is_cut = False
        for one in self.channels:
            one.transport = _End()

    def deliver(self, side: int) -> bool:
        """Let a message of one of them arrive; tell whether there was one."""
        end, other = self.channels[side].transport, self.channels[1 - side]
        if not end.sent:
            if end.is_closing:
                self.cut()
            return False
        data, descriptors = end.sent.popleft()
        if descriptors:
            other.descriptors_received(descriptors)
        other.dataReceived(data)
        return True

    def cut(self) -> None:
        """Let nothing arrive any more."""
        if not self.is_cut:
            self.is_cut = True
            for one in self.channels:
                one.is_open = False
            for one in self.channels:
                one.transport.drop()
                one.connectionLost()


@attrs.define(eq=False)
class _Connection:
    """One that may move.

    Attributes:
        keeps_slot: Whether it counts for a limit in the old process, too.
        sockets: Of both ends.
        is_anybody_there: Tells whether there is a new process.
        is_here: Whether the old process carries its bytes.
        counts_elsewhere: Whether the old process has left it to a new one to count it for limits.
        let_gone: Whether the old process has forgotten it.
        there: The sockets by which a new process carries its bytes.
        place: How its place in the old process is given back, for the new one.
        given_back: How often that was done.
    """

    record: ConnectionRecord
    keeps_slot: bool
    sockets: Sockets
    is_anybody_there: Callable[[], bool]
    is_here: bool = True
    state: str = "relaying"
    accepted_at: float = 0.0
    cannot_move_because: str | None = None
    counts_elsewhere: bool = False
    let_gone: bool = False
    there: Sockets | None = None
    place: SlotRelease | None = None
    given_back: int = 0

    def suspend(self) -> tuple[MovedConnection, Sockets]:
        assert self.is_here
        self.is_here = False
        side = SideState(0, b"")
        state = RelayState(side, side, 0.0, None)
        return MovedConnection(
            self.record, 0.0, logged=True, timeouts=Timeouts(1.0, 1.0), relay=state
        ), self.sockets

    def attach_stage(self) -> None:
        """It has its stage already."""

    def resume(self, _: MovedConnection) -> None:
        assert not self.is_here
        assert not self.let_gone
        self.is_here = True

    def count_elsewhere(self) -> None:
        assert self.there is None
        assert not self.is_here
        assert not self.counts_elsewhere
        self.counts_elsewhere = True

    has_slot_elsewhere = False  # it comes from no process before

    def detach(self, *, keeps_slot: bool) -> SlotRelease | None:
        assert not self.is_here
        assert not self.let_gone
        assert self.counts_elsewhere
        assert self.is_anybody_there(), "it is given up though nobody takes it"
        self.let_gone = True
        return self.release_slot if keeps_slot else None

    def release_slot(self, free: Callable[[], None]) -> None:
        self.given_back += 1
        free()


class _Model:
    """One old process and two new ones.

    Attributes:
        has_ended: Whether one of them has, before all was over.
        was_late: Whether one of them may have been too late with an answer.
    """

    has_ended = was_late = False

    def __init__(self, places: Sequence[bool]) -> None:
        self.clock = Clock()
        self.known = {f"c{number}": self._made(number, kept) for number, kept in enumerate(places)}
        factory: Any = SimpleNamespace(adopt=self._adopted)
        self.wires = []
        self.new = []
        takers = []
        for _ in range(2):
            adopting = Adopting(lambda _: factory)
            taker = Taker()
            clock: Any = self.clock
            here = taker.channel = Channel(taker.handlers, taker.channel_lost, clock)
            there = adopting.channel = Channel(adopting.handlers, adopting.channel_lost, clock)
            self.wires.append(_Wire(here, there))
            self.new.append(adopting)
            adopting.open()
            takers.append(taker)
        connections: Any = self.known.values()
        self.done: list[int] = []
        self.failed: list[Any] = []

        async def move() -> None:
            moving = Round(connections, await opened(takers, clock))
            await moving.run()
            self.done.append(moving.moved)
            self.stays = moving.stays
            for taker in takers:
                taker.close_when_done()

        Deferred.fromCoroutine(move()).addErrback(self.failed.append)

    def _made(self, number: int, keeps_slot: bool) -> _Connection:  # noqa: FBT001 - drawn
        record = ConnectionRecord(0.0, f"c{number}", "public", "192.0.2.1:1")
        return _Connection(record, keeps_slot, socket.socketpair(), self.is_anybody_there)

    def is_anybody_there(self) -> bool:
        return not all(wire.is_cut for wire in self.wires)

    def _adopted(
        self, moved: MovedConnection, sockets: Sockets, place: SlotRelease | None = None
    ) -> None:
        connection = self.known[moved.record.id]
        assert connection.there is None
        assert connection.counts_elsewhere
        connection.there, connection.place = sockets, place

    def end(self, connection: _Connection) -> None:
        if connection.there is not None:
            for one in connection.there:
                one.close()
            place, connection.place = connection.place, None
            if place is not None:
                place(lambda: None)

    def step(self, what: int, which: int) -> None:
        wire = self.wires[which % 2]
        if what < 2:
            wire.deliver(what)
        elif what == 2:
            self.was_late = True
            self.clock.advance(6)
        elif what == 3:
            self.end([*self.known.values()][which % len(self.known)])
        elif which < 2:
            self.has_ended = True
            wire.cut()
        self.check()

    def check(self) -> None:
        for one in self.known.values():
            assert not (one.is_here and (one.there is not None or one.let_gone)), one
            assert one.given_back <= 1
            assert one.given_back <= one.let_gone

    def finish(self) -> None:
        for _ in range(100):
            while sum(wire.deliver(side) for wire in self.wires for side in (0, 1)):
                self.check()
            self.clock.advance(6)

    def close(self) -> None:
        for one in self.known.values():
            for end in (*one.sockets, *(one.there or ())):
                end.close()


class SchedulesTest(SynchronousTestCase):
    """Messages arrive, late or not at all, and one of the processes may end at any time."""

    def setUp(self) -> None:
        """Close what earlier tests have left to the garbage collector, so that no descriptor of theirs goes while these are counted."""
        super().setUp()
        gc.collect()

    @settings(deadline=None, max_examples=scaled(300))
    @given(
        places=st.lists(st.booleans(), min_size=1, max_size=14),
        steps=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 13)), max_size=60),
    )
    def test_schedules(self, places: list[bool], steps: list[tuple[int, int]]) -> None:
        """A connection is in one process at a time, is given up only with a process, and a place is given back once; no descriptor is left."""
        change_constants(self, handover, _BATCH=_BATCH)
        before = _open_files()
        model = _Model(places)
        try:
            for what, which in steps:
                model.step(what, which)
            model.finish()
            self.assertEqual(model.failed, [])
            gone = [one for one in model.known.values() if not one.is_here and one.there is None]
            moved = [one for one in model.known.values() if one.let_gone]
            self.assertEqual(model.done, [len(moved)])
            self.assertEqual([one for one in gone if not one.let_gone], [], "nobody serves these")
            if not model.has_ended:
                self.assertEqual(gone, [])
            for one in model.known.values():
                model.end(one)
            model.finish()
            kept = [one for one in moved if one.keeps_slot]
            self.assertEqual({one.given_back for one in kept}, {1} if kept else set())
            self.assertEqual([adopting.undecided for adopting in model.new], [0, 0])
            left = sum(one.is_here for one in model.known.values())
            self.assertEqual(sum(model.stays.values()), left)
            if model.is_anybody_there() and not model.was_late:
                self.assertEqual(left, 0, "another process would have taken it")
        finally:
            for wire in model.wires:
                wire.cut()
            model.close()
        # Others may have closed some of theirs.
        self.assertEqual(_open_files() - before, set())


def _open_files() -> set[tuple[str, str]]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that the list is read with
            found.add((link.name, str(link.readlink())))
    return found
