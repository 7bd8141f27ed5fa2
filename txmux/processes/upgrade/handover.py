"""Hands connections over to another process: the giving side and the adopting side.

Over a channel between the two, a batch at a time::

    old: adopt   the record of each connection, and its two descriptors; for clients that wait for a server it is
                 adopt_waiting, with one descriptor each
    new:         which of them it can take; it does not touch them yet
    old: go_on   which of them are the new one's, and are forgotten here; the others are resumed here

Only the old process decides which process keeps a connection, in one message. The new one touches a socket only after that message. If
it never arrives, since either process has ended, the new one closes its descriptors. So no byte is read or written by both, in any case.

Where a server has a limit, the old process keeps the slot of a connection that has moved, until the new one reports its end: see
`txmux.processes.upgrade.handover`.

While the new process works on one batch, the old one prepares the next; more would only be suspended for longer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from txmux.access.admission import Admission
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import Channel, ChannelError, Liveness
from txmux.net.channel.message import Message
from txmux.processes.workers.received_rules import close, sockets_of
from txmux.tcp.connection import MuxProtocol
from txmux.tcp.lean import Stream
from txmux.tcp.listener import MuxFactory
from txmux.tcp.moving import MovedConnection, SlotRelease, Sockets, Unpacking, packed

_Suspended: TypeAlias = tuple[MuxProtocol, MovedConnection, Sockets]
_Taken: TypeAlias = tuple[set[int], bool]
_Offered: TypeAlias = tuple[MuxFactory, MovedConnection, Sockets]

_BATCH = 25
"""Connections in a batch: more are suspended for longer, fewer cost more messages."""
_UNDER_WAY = 2
"""Batches that are offered and not yet decided."""
_HELD = 2**22
"""Bytes held by connections that complete a batch; a connection may hold as much as two pipes."""
_PATIENCE = 10.0
"""Seconds that the other process may take for a batch."""

_log = Logger()


async def hand_over(connections: Iterable[Stream], channels: Iterable[LeasedSlots]) -> int:
    """Move all connections that can be moved to other processes, which get a share each; return how many were."""
    batches = _batches(list(connections))
    moved = await gatherResults(
        [Deferred.fromCoroutine(_hand_to(channel, batches)) for channel in channels],
        consumeErrors=True,
    )
    return sum(moved)


def _batches(connections: Iterable[Stream]) -> Iterator[list[_Suspended]]:
    """Suspend connections, one batch at a time, when a process is ready to take it; at last those that wait, as they came."""
    every = list(connections)
    for waiting in (False, True):
        batch: list[_Suspended] = []
        held = 0
        for one in sorted(every, key=lambda one: one.accepted_at) if waiting else every:
            if one.record.reason is not None:
                continue  # it has ended meanwhile
            try:
                connection = one.expand()
                if (connection.state == "connecting") is not waiting:
                    continue
                suspended = connection.suspend()
            except Exception as problem:  # noqa: BLE001 - one that cannot move must not keep the others here
                _log.error(
                    "{id} cannot be moved, and stays: {why!r}", id=one.record.id, why=problem
                )
                continue
            if suspended is None:
                continue
            moved, sockets = suspended
            batch.append((connection, moved, sockets))
            held += len(moved.relay.client.held) + len(moved.relay.server.held)
            if len(batch) == _BATCH or held >= _HELD:
                yield batch
                batch, held = [], 0
        if batch:
            yield batch


async def _hand_to(slots: LeasedSlots, batches: Iterator[list[_Suspended]]) -> int:
    channel, count = slots.channel, 0
    admissions: set[Admission] = set()
    offered: deque[tuple[int, list[_Suspended], Deferred[_Taken]]] = deque()
    for number, batch in enumerate(batches if channel.is_open else ()):
        offered.append((number, batch, Deferred.fromCoroutine(_offer(channel, number, batch))))
        if len(offered) == _UNDER_WAY:
            count += await _decide(slots, admissions, *offered.popleft())
        if not channel.is_open:
            break
    while offered:
        count += await _decide(slots, admissions, *offered.popleft())
    if count and not await _received(channel):
        for admission in admissions:
            admission.none_come()
    return count


async def _offer(channel: Channel, number: int, batch: list[_Suspended]) -> _Taken:
    """Offer a batch; return which of it the other process takes, and whether it will report their ends."""
    try:
        answer = await channel.ask(
            messages.ADOPT if batch[0][1].waited is None else messages.ADOPT_WAITING,
            seconds=_PATIENCE,
            descriptors=[end.fileno() for _, _, sockets in batch for end in sockets],
            batch=number,
            connections=packed(moved for _, moved, _ in batch),
        )
        return set(answer["taken"]), bool(answer.get("tells", False))
    except (ChannelError, KeyError, TypeError) as problem:
        _log.warn("connections cannot be handed over, this process keeps them: {why}", why=problem)
        return set(), False


async def _decide(
    slots: LeasedSlots,
    admissions: set[Admission],
    number: int,
    batch: list[_Suspended],
    offer: Deferred[_Taken],
) -> int:
    """Decide which of a batch move to the other process, and return their number; add their slots."""
    channel = slots.channel
    taken, reports_ends = await offer
    if not channel.is_open:  # the other process drops them
        taken = set()
    going = []
    for index, (connection, moved, _) in enumerate(batch):
        if connection.record.reason is not None:
            continue  # it was ended meanwhile
        if index in taken:
            going.append(index)
        else:
            connection.resume(moved)
    # From here on they belong to the other process, in any case.
    leased = [index for index in going if reports_ends and batch[index][0].keeps_slot]
    for index in going:  # before the other one counts them
        admissions.add(batch[index][0].count_elsewhere())
    channel.send(messages.GO_ON, batch=number, which=going, kept=leased)
    for index in going:
        connection, moved, _ = batch[index]
        release_slot = connection.let_go(keeps_slot=index in leased)
        if release_slot is not None:
            slots.keep(moved.record.id, release_slot)
    return len(going)


async def _received(channel: Channel) -> bool:
    """Wait until the other process has received everything, which would be lost if this one ended."""
    try:
        await channel.ask(messages.RECEIVED, seconds=_PATIENCE)
    except ChannelError:
        return False
    return True


class Adopting:
    """Takes connections that another process hands over.

    Args:
        while_moving: Entered while connections arrive.
        decided: Called whenever the other process has decided about a batch.

    Attributes:
        is_closed: Whether no further connections are taken: this process is about to end.
        has_all: Whether all have arrived. The other process may still keep slots of them.
    """

    channel: Channel
    is_closed = has_all = False

    def __init__(
        self,
        factory: Callable[[str], MuxFactory],
        while_moving: AbstractContextManager[object] | None = None,
        decided: Callable[[], object] = lambda: None,
    ) -> None:
        self._factory = factory
        self._while_moving = while_moving or nullcontext()
        self._decided = decided
        self._offered: dict[int, dict[int, _Offered]] = {}
        self._are_moving = False
        self._liveness: Liveness | None = None

    @property
    def handlers(self) -> dict[Message, Callable[..., object]]:
        return {
            messages.ADOPT: self._adopt,
            messages.ADOPT_WAITING: self._adopt,
            messages.GO_ON: self._go_on,
            messages.RECEIVED: self._received,
        }

    @property
    def is_waiting(self) -> bool:
        return any(self._offered.values())

    def channel_lost(self) -> None:
        """Close what was offered: the other process has ended before its decision."""
        lost = sum(map(len, self._offered.values()))
        if lost:
            _log.warn(
                "connections lost: {count}, since the old process ended before it had decided which process keeps them",
                count=lost,
            )
        for batch in [*self._offered]:
            self._go_on(batch, [])
        self._received()

    def _received(self) -> None:
        """Record that all connections were offered; the answer confirms that all have arrived."""
        self.has_all = True
        if self._are_moving:
            self._are_moving = False
            self._while_moving.__exit__(None, None, None)

    def _adopt(
        self, batch: int, connections: dict[str, Any], descriptors: Sequence[int]
    ) -> dict[str, Any]:
        ends, rows = sockets_of(descriptors), connections["rows"]
        each = len(ends) // max(1, len(rows))
        if not self._are_moving:
            self._are_moving = True
            self._while_moving.__enter__()
        offered = self._offered[batch] = {}
        unpacking = Unpacking(connections["names"])
        for index, row in enumerate(rows):
            sockets = tuple(ends[index * each : (index + 1) * each])
            if self.is_closed:
                close(sockets)
                continue
            try:
                moved = unpacking.read(row)
                factory = self._factory(moved.record.listener)
                factory.runtime.check_adopting()
                if moved.waited is not None:
                    factory.upstreams.find(moved.record.backend or "")
            except (MuxError, LookupError, TypeError, ValueError) as problem:
                _log.info("a connection cannot be taken over: {why}", why=repr(problem))
                close(sockets)
                continue
            offered[index] = factory, moved, sockets
        return {"taken": [*offered], "tells": True}

    def _go_on(self, batch: int, which: Sequence[int], kept: Sequence[int] = ()) -> None:
        for index, (factory, moved, sockets) in self._offered.pop(batch, {}).items():
            if index in which:
                release_slot = partial(self._report_end, moved.record.id) if index in kept else None
                _adopt(factory, moved, sockets, release_slot)
            else:
                close(sockets)
        self._decided()

    def _report_end(self, identity: str, free: Callable[[], None]) -> None:
        """Report the end of a connection whose slot the other process keeps; see `SlotRelease`."""
        liveness = self._liveness = self._liveness or Liveness(self.channel)

        def is_free(_: object) -> None:
            liveness.answer_received()
            free()

        liveness.question_sent()
        # No time limit: a client that waited longer in the other process may keep the slot for any time.
        self.channel.ask(messages.ENDED, id=identity).addBoth(is_free)


def _adopt(
    factory: MuxFactory, moved: MovedConnection, sockets: Sockets, release_slot: SlotRelease | None
) -> None:
    """Adopt one connection; its failure must not affect the next one."""
    try:
        factory.adopt(moved, sockets, release_slot)
    except Exception:  # noqa: BLE001 - as above
        _log.failure("{id} cannot be adopted, and is closed", id=moved.record.id)
        factory.configuration.admission.none_come()
        close(sockets)
        if release_slot is not None:  # a second call does nothing
            release_slot(_nothing)


def _nothing() -> None:
    pass


class LeasedSlots:
    """The slots of connections that have moved over one channel.

    Each process counts a server's limit by itself. A connection that has moved still counts in its old process until it
    ends: otherwise a client waiting there would be let in although the server is as busy as before. In its new process,
    the slot is free only if no client that has waited longer in the old one takes it.

    Attributes:
        channel: As above; closed after the last one, once `close_when_done` was called.
    """

    channel: Channel

    def __init__(self) -> None:
        self._leased: dict[str, SlotRelease] = {}
        self._answering = 0
        self._is_closing = False

    @property
    def handlers(self) -> dict[Message, Callable[..., object]]:
        return {messages.ENDED: self._ended, messages.ALIVE: _nothing}

    def keep(self, identity: str, release_slot: SlotRelease) -> None:
        self._leased[identity] = release_slot

    def _ended(self, id: str) -> Deferred[None] | None:  # noqa: A002 - the name in the message
        """Release a slot; answer when no connection here uses it."""
        release_slot = self._leased.pop(id, None)
        if release_slot is None:
            return None
        free: Deferred[None] = Deferred()
        self._answering += 1
        free.addBoth(self._answered)
        release_slot(lambda: free.callback(None))
        return free

    def _answered(self, _: object) -> None:
        self._answering -= 1
        # The answer is sent first.
        self.channel.clock.callLater(0, self._close_if_done)

    def close_when_done(self) -> None:
        """Close the channel as soon as no slot is kept."""
        self._is_closing = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._is_closing and not self._leased and not self._answering:
            self.channel.close()

    def channel_lost(self) -> None:
        """Release all slots: the process that leased them has ended."""
        leased, self._leased = self._leased, {}
        for release_slot in leased.values():
            release_slot(_nothing)
