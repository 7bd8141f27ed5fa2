"""Hands connections over to other processes: both sides.

Over a channel to each process that takes some, a batch at a time::

    new: takes     that it can take connections now, how many it has, and whether it reads the datagrams of all
    old: adopt     the record of each connection, and its two descriptors; for clients that wait for a server it is
                   adopt_waiting, with one descriptor each
    new:           which of them it takes, and how many connections it has then; it does not touch them yet
    old: go_on     which of them are the new one's, and are forgotten here; the others are resumed here

Only the old process decides which process keeps a connection, in one message. The new one touches a socket only after that message. If
it never arrives, since either process has ended, the new one closes its descriptors. So no byte is read or written by both.
No third process is needed once the channels are there.

Each batch goes to the process with the fewest connections. If that has ended, or does not answer, the batch is offered to another one.
A connection that cannot move stays, and the reason is counted.

Where a server has a limit, the old process keeps the slot of a connection that has moved, until the new one reports its end: see `Taker`.

While the new processes work on some batches, the old one prepares the next; more would only be suspended for longer.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, KeysView, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred, DeferredList, TimeoutError, gatherResults  # noqa: A004 - this is what it raises
from twisted.logger import Logger

from txmux.access.admission import Tally
from txmux.classes import define
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError, PeerGoneError
from txmux.net.channel.message import Message
from txmux.net.sockets.descriptors import Descriptors
from txmux.processes.worker.received_rules import close, sockets_of
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.listener import MuxFactory
from txmux.tcp.moving import (
    DESCRIPTORS_EACH,
    MovedConnection,
    SlotRelease,
    Sockets,
    StayReason,
    Unpacking,
    packed,
)

_Suspended: TypeAlias = tuple[MuxProtocol, MovedConnection, Sockets]
_Offered: TypeAlias = tuple[MuxFactory, MovedConnection, Sockets, object]

_BATCH = 25
"""Connections in a batch: more are suspended for longer, fewer cost more messages."""
_SHARES = 4
"""Batches for each process, at least, so that each gets about the same number of connections."""
_UNDER_WAY = 2
"""Batches that are offered and not decided yet."""
_HELD = 2**22
"""Buffered bytes that complete a batch; one connection may buffer as much as two pipes."""
_PATIENCE = 2.0
"""Seconds that another process may take for a batch, or to open after the first one has."""

_log = Logger()


async def opened(takers: Sequence[Taker], clock: Any) -> list[Taker]:
    """Wait until one process can take connections, then a moment for the others, and return all that can."""
    opening = [taker.opened for taker in takers]
    if not opening:
        return []
    await DeferredList(opening, fireOnOneCallback=True, consumeErrors=True)
    with suppress(TimeoutError):
        await DeferredList(opening, consumeErrors=True).addTimeout(_PATIENCE, clock)
    return [taker for taker in takers if taker.is_able]


class Round:
    """Moves all connections that can be moved.

    Attributes:
        moved: How many were.
        stays: How many were not, by the reason.
    """

    def __init__(self, connections: Iterable[MuxProtocol], takers: Sequence[Taker]) -> None:
        # Several old processes should not begin with the same one.
        self._takers = random.sample(takers, k=len(takers))  # nosec B311
        in_order: list[Any] = sorted(connections, key=lambda connection: connection.accepted_at)
        self._left = deque(in_order)
        self._waiting: deque[Any] = deque()  # for a server: they move last, as they came
        self._size = min(_BATCH, 1 + len(in_order) // (_SHARES * max(1, len(self._takers))))
        self._numbers = itertools.count()
        self.moved = 0
        self.stays: Counter[StayReason] = Counter()

    async def run(self) -> None:
        await gatherResults(
            [Deferred.fromCoroutine(self._offer_batches()) for _ in range(_UNDER_WAY)]
        )
        await gatherResults([Deferred.fromCoroutine(taker.finish()) for taker in self._takers])
        for connection in (*self._left, *self._waiting):
            if connection.record.reason is None:
                self.stays[connection.cannot_move_because or "not taken"] += 1

    async def _offer_batches(self) -> None:
        while (taker := self._next_taker()) is not None and (batch := self._next_batch()):
            number = next(self._numbers)
            self._decide(taker, number, batch, await taker.offer(number, batch))

    def _next_taker(self) -> Taker | None:
        able = [taker for taker in self._takers if taker.is_able]
        return min(able, key=lambda taker: taker.has + taker.offered, default=None)

    def _next_batch(self) -> list[_Suspended]:
        """Suspend connections for a process that can take them now; in a batch, either all or none wait for a server."""
        batch: list[_Suspended] = []
        held = 0
        while len(batch) < self._size and held < _HELD and (self._left or self._waiting):
            queue = self._left or self._waiting
            connection: MuxProtocol = queue.popleft()
            if connection.record.reason is not None:
                continue  # it has ended meanwhile
            try:
                connection.attach_stage()
                is_waiting = connection.state == "connecting"
                if is_waiting and queue is self._left:
                    self._waiting.append(connection)
                    continue
                if batch and (batch[0][1].waited is not None) != is_waiting:
                    queue.appendleft(connection)
                    break
                if (why := connection.cannot_move_because) is not None:
                    self.stays[why] += 1
                    continue
                moved, sockets = connection.suspend()
            except Exception as problem:  # noqa: BLE001 - one that cannot move must not keep the others here
                _log.error(
                    "{id} cannot be moved, and stays: {why!r}", id=connection.record.id, why=problem
                )
                self.stays["error"] += 1
                continue
            batch.append((connection, moved, sockets))
            held += len(moved.relay.client.held) + len(moved.relay.server.held)
        return batch

    def _decide(
        self, taker: Taker, number: int, batch: list[_Suspended], taken: set[int] | None
    ) -> None:
        """Decide which connections of a batch move; without an answer, they are offered to another process."""
        if not taker.channel.is_open:  # the process drops them
            taken = None
        going, again = [], []
        for index, (connection, moved, _) in enumerate(batch):
            if connection.record.reason is not None:
                continue  # it was ended meanwhile
            if taken is not None and index in taken:
                going.append(index)
                continue
            _resume(connection, moved)
            if taken is None:
                again.append(connection)
            else:
                self.stays["refused"] += 1
        queue = self._left if batch[0][1].waited is None else self._waiting
        queue.extendleft(reversed(again))
        self.moved += len(going)
        taker.give(number, {index: batch[index][0] for index in going})


def _resume(connection: MuxProtocol, moved: MovedConnection) -> None:
    try:
        connection.resume(moved)
    except Exception as problem:  # noqa: BLE001 - its failure must not affect the next one
        _log.error("{id} cannot go on, and is ended: {why!r}", id=moved.record.id, why=problem)
        connection.transport.abortConnection()
        connection.finish("error")


class Taker:
    """A process that takes connections, as the one that hands them over sees it.

    Each process counts a server's limit by itself. A connection that has moved still counts in its old process until it
    ends: otherwise a client waiting there would be admitted although the server is as busy as before. In its new process,
    the slot is free only if no client that has waited longer in the old one takes it.

    Attributes:
        channel: Closed after the last slot, once `close_when_done` was called.
        opened: Fires when the process can take connections, or fails when it ends before.
        is_able: Whether it has opened, and has answered since.
        reads_datagrams: Whether UDP flows move to it.
        passes_on: Whether it reports ends here of connections that have come from another process, which still has their slots.
        has: How many connections it has, by its last answer.
        offered: How many connections are offered to it, and not answered yet.
    """

    channel: Channel
    is_able = reads_datagrams = False

    def __init__(self) -> None:
        self.opened: Deferred[None] = Deferred()
        self.has = self.offered = 0
        self._has_taken = False
        self._leased: dict[str, SlotRelease] = {}
        self._passed_on: set[str] = set()
        self._answering: set[Deferred[None]] = set()
        self._is_closing = self._shares_slots = False

    @property
    def handlers(self) -> dict[Message, Callable[..., object]]:
        return {messages.TAKES: self._opens, messages.ENDED: self._ended}

    def _opens(self, connections: int, *, reads: bool = False) -> None:
        if not self.opened.called:
            self.is_able, self.reads_datagrams, self.has = True, reads, connections
            self.opened.callback(None)

    async def offer(self, number: int, batch: list[_Suspended]) -> set[int] | None:
        """Offer a batch; return the indexes of what the process takes, or ``None`` if it fails to answer, and is not asked again."""
        self.offered += len(batch)
        try:
            answer = await self.channel.ask(
                messages.ADOPT if batch[0][1].waited is None else messages.ADOPT_WAITING,
                seconds=_PATIENCE,
                descriptors=[end.fileno() for _, _, sockets in batch for end in sockets],
                batch=number,
                connections=packed(moved for _, moved, _ in batch),
            )
        except Exception as problem:  # noqa: BLE001 - the batch must not stay suspended
            _log.info("a process takes no connections: {why}", why=problem)
            self.is_able = False
            return None
        else:
            self.has = answer["connections"]
            return {*answer["taken"]}
        finally:
            self.offered -= len(batch)

    def give(self, number: int, connections: dict[int, MuxProtocol]) -> None:
        """Leave connections of a batch, by their indexes in it, to the process: from here on they are its own, whatever fails."""
        leased = {index for index, connection in connections.items() if connection.keeps_slot}
        for connection in connections.values():  # before the other process counts them
            connection.count_elsewhere()
            self._has_taken = True
        self.channel.send(messages.GO_ON, batch=number, which=[*connections], kept=[*leased])
        for index, connection in connections.items():
            if connection.has_slot_elsewhere:
                self._passed_on.add(connection.record.id)
            try:
                release_slot = connection.detach(keeps_slot=index in leased)
            except Exception as problem:  # noqa: BLE001 - as above
                _log.error("{id} has moved: {why!r}", id=connection.record.id, why=problem)
                continue
            if release_slot is not None:
                self._leased[connection.record.id] = release_slot

    async def finish(self) -> None:
        """Wait until the process has received everything; this one may end then."""
        if self._has_taken:
            with suppress(ChannelError):
                await self.channel.ask(messages.RECEIVED, seconds=_PATIENCE)

    def _ended(self, id: str) -> Deferred[None] | None:  # noqa: A002 - the name in the message
        release_slot = self._leased.pop(id, None)
        if release_slot is None:
            return None
        free: Deferred[None] = Deferred()
        self._answering.add(free)
        free.addBoth(partial(self._answered, id, free))
        release_slot(partial(_fire, free))
        if self._shares_slots:
            _fire(free)
        return free

    def share_slots(self, *, on: bool) -> None:
        """Whether a slot is free in the other process at once, though a client that waits here takes the one here."""
        self._shares_slots = on
        for free in [*self._answering] if on else ():
            _fire(free)

    def _answered(self, id: str, free: Deferred[None], _: object) -> None:  # noqa: A002 - as above
        self._passed_on.discard(id)
        self._answering.discard(free)
        # The answer is sent first.
        self.channel.clock.callLater(0, self._close_if_done)

    def offer_again(self, connections: int) -> None:
        self.channel.send(messages.OFFERED_AGAIN, descriptors_left=DESCRIPTORS_EACH * connections)

    def close_when_done(self) -> None:
        self._is_closing = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._is_closing and not self._leased and not self._answering:
            self.channel.close()

    @property
    def passes_on(self) -> bool:
        return bool(self._passed_on)

    def channel_lost(self) -> None:
        self.is_able = False
        if not self.opened.called:
            self.opened.errback(PeerGoneError())
        self._passed_on.clear()
        leased, self._leased = self._leased, {}
        for release_slot in leased.values():
            release_slot(_nothing)


@define(eq=False, slots=False)
class Adopting:
    """Takes connections that another process hands over.

    Args:
        while_moving: Entered while connections arrive.
        decided: Called whenever the other process has decided about a batch.
        descriptors: Those of this process, in which room is kept for what is offered.
        awaited: Shows other processes while batches are offered.
        count: Returns how many connections this process has, with those that it is offered.

    Attributes:
        is_closed: Whether further connections are refused, since this process is about to end.
        has_all: Whether all connections have arrived. The other process may still keep slots of them.
    """

    channel: Channel = attrs.field(init=False, repr=False)
    _factory: Callable[[str], MuxFactory]
    _while_moving: AbstractContextManager[object] = attrs.field(factory=nullcontext)
    _decided: Callable[[], object] = lambda: None
    _count: Callable[[], int] = lambda: 0
    _descriptors: Descriptors = attrs.field(factory=Descriptors)
    _awaited: Tally = attrs.field(factory=Tally)
    _room: int = attrs.field(default=0, init=False)  # descriptors for which room is kept
    _offered: dict[int, dict[int, _Offered]] = attrs.field(factory=dict, init=False)

    is_closed = has_all = _are_moving = False

    @property
    def handlers(self) -> dict[Message, Callable[..., object]]:
        return {
            messages.ADOPT: self._adopt,
            messages.ADOPT_WAITING: self._adopt,
            messages.GO_ON: self._go_on,
            messages.RECEIVED: self._received,
            messages.OFFERED_AGAIN: self.keep_room,
        }

    @property
    def undecided(self) -> int:
        return sum(map(len, self._offered.values()))

    @property
    def batches(self) -> KeysView[int]:
        return self._offered.keys()

    def open(self, *, reads: bool = False) -> None:
        """Report that this process can take connections now; `reads` if it reads the datagrams of all."""
        self.channel.send(messages.TAKES, connections=self._count(), reads=reads)

    def keep_room(self, descriptors_left: int) -> None:
        """Keep room for so many descriptors of connections that have not come yet, and no longer for others."""
        if descriptors_left != self._room:
            self._descriptors.offer(descriptors_left - self._room)
            self._room = descriptors_left

    def channel_lost(self) -> None:
        self.keep_room(0)
        if lost := self.undecided:
            _log.warn(
                "connections lost: {count}, since the old process ended before it had decided which process keeps them",
                count=lost,
            )
        for batch in [*self._offered]:
            self._go_on(batch, [])
        self._received()

    def _received(self) -> None:
        # The answer says that all connections offered before have arrived.
        self.has_all = True
        if self._are_moving:
            self._are_moving = False
            self._while_moving.__exit__(None, None, None)

    def _adopt(
        self, batch: int, connections: dict[str, Any], descriptors: Sequence[int]
    ) -> dict[str, Any]:
        ends, rows = sockets_of(descriptors), connections["rows"]
        if self.is_closed:
            close(ends)
            raise ChannelError("the process is about to end")
        self.keep_room(max(0, self._room - len(ends)))
        each = len(ends) // max(1, len(rows))
        if not self._are_moving:
            self._are_moving = True
            self._while_moving.__enter__()
        self._awaited.add()
        offered = self._offered[batch] = {}
        unpacking = Unpacking(connections["names"])
        for index, row in enumerate(rows):
            sockets = tuple(ends[index * each : (index + 1) * each])
            try:
                moved = unpacking.read(row)
                factory = self._factory(moved.record.listener)
                waits_in = None
                # Kept, since a reload may remove it before the client comes.
                if moved.waited is not None:
                    waits_in = factory.upstreams.find(moved.record.backend or "")
            except (MuxError, LookupError, TypeError, ValueError) as problem:
                _log.info("a connection cannot be taken over: {why}", why=repr(problem))
                close(sockets)
                continue
            offered[index] = factory, moved, sockets, waits_in
        return {"taken": [*offered], "connections": self._count()}

    def _go_on(self, batch: int, which: Sequence[int], kept: Sequence[int] = ()) -> None:
        if (offered := self._offered.pop(batch, None)) is None:
            return
        try:
            for index, (factory, moved, sockets, _) in offered.items():
                if index in which:
                    release = partial(self._report_end, moved.record.id) if index in kept else None
                    _adopt(factory, moved, sockets, release)
                else:
                    close(sockets)
        finally:
            self._awaited.give_back()
            self._decided()

    def _report_end(self, identity: str, free: Callable[[], None]) -> None:
        # No time limit: a client that waited longer in the other process may keep the slot for any time. A process that hangs is
        # ended by its supervisor, and its channel with it.
        self.channel.ask(messages.ENDED, id=identity).addBoth(lambda _: free())


def _adopt(
    factory: MuxFactory, moved: MovedConnection, sockets: Sockets, release_slot: SlotRelease | None
) -> None:
    try:
        factory.adopt(moved, sockets, release_slot)
    except Exception:  # noqa: BLE001 - its failure must not affect the next one
        _log.failure("{id} cannot be adopted, and is closed", id=moved.record.id)
        close(sockets)
        if release_slot is not None:  # a second call does nothing
            release_slot(_nothing)


def _nothing() -> None:
    pass


def _fire(free: Deferred[None]) -> None:
    if not free.called:
        free.callback(None)
