"""Makes a worker hand over its connections, in rounds until none is left that can move.

Each round makes new channels to the workers that take connections, which may have been replaced since the last one.
"""

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError, PeerGoneError
from txmux.processes.supervisor.worker import Worker
from txmux.tcp.moving import COULD_MOVE, DESCRIPTORS_EACH, MAY_MOVE_LATER, STAY_LONGER

_PAUSES = 1.0, 1.0, 2.0, 4.0, 8.0
"""Seconds from one round to the next; the last one repeats."""

LONGEST_WAIT = 3600
"""Seconds after `drain_timeout` for which the old process of an upgrade keeps clients that wait for a server, and what may yet move."""

_log = Logger()


class Takers(Protocol):
    """The workers that take connections: of this process, or of another one."""

    @property
    def takers(self) -> int: ...

    def pass_ends(self, ends: Sequence[socket.socket], offered: int) -> object:
        """Pass an end of a channel to each of them; the caller closes the ends.

        All connections that are `offered` have so many descriptors.
        """


class WorkerHandover:
    """The hand-over of one worker's connections.

    Args:
        is_needed: Asked before each further round.

    Attributes:
        process: The ID of its process.
        done: Fires after the round in which all have moved that can; those without a server move later.
        rounds: The number of rounds so far.
        moved: The number of connections that have moved.
        stays: The number of those that have not, by the reason, after the last round.
        ended: A sentence for the report, if connections have ended with the worker before the last round.
    """

    def __init__(self, worker: Worker, takers: Takers, is_needed: Callable[[], bool]) -> None:
        self._worker = worker
        self.process = worker.pid
        self._takers = takers
        self._is_needed = is_needed
        self.rounds = self.moved = 0
        self.ended = ""
        self.stays: Counter[str] = +Counter({"not taken": worker.connections})
        self.done: Deferred[None] = Deferred()
        Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        await self._round()
        while not MAY_MOVE_LATER.isdisjoint(self.stays):
            if "not taken" not in self.stays:
                self._all_moved()
            pause = _PAUSES[min(self.rounds, len(_PAUSES)) - 1]
            try:
                await self._worker.pause(pause)
            except PeerGoneError:
                self._has_ended()
                break
            if not self._is_needed():
                break
            await self._round()
        self._all_moved()

    def _all_moved(self) -> None:
        if not self.done.called:
            self.done.callback(None)

    def _has_ended(self) -> None:
        worker = self._worker
        if worker.connections or worker.lost:  # others have moved by an earlier hand-over, or ended
            self.ended = f"worker {worker.number} ended before all its connections had moved"
        self.stays.clear()

    async def _round(self) -> None:
        try:
            answer = await self._hand_over()
            self.moved += answer["moved"]
            self.stays = Counter(answer["stays"])
        except PeerGoneError:
            self._has_ended()
        except (ChannelError, OSError) as problem:
            self.stays = Counter({"not taken": await self._count()})
            if not self.rounds:
                _log.warn(
                    "worker {number} cannot hand over its connections yet: {why}",
                    number=self._worker.number,
                    why=problem,
                )
        self.rounds += 1

    async def _count(self) -> int:
        try:
            status = await self._worker.ask(messages.STATUS, seconds=1.0)
        except ChannelError:
            return 0
        return int(status["active"])

    def _hand_over(self) -> Deferred[Any]:
        ends: list[socket.socket] = []
        try:
            for _ in range(self._takers.takers):
                ends += socket.socketpair()
            self._takers.pass_ends(ends[1::2], DESCRIPTORS_EACH * self.stays["not taken"])
            # No time limit: the takers may begin later, and a worker that hangs is killed.
            descriptors = [end.fileno() for end in ends[::2]]
            return self._worker.ask(messages.HAND_OVER, seconds=None, descriptors=descriptors)
        finally:
            for end in ends:
                end.close()


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sum(map(Counter, counts), Counter[str]()).most_common())


def staying(stays: Iterable[tuple[Mapping[str, int], float]]) -> tuple[str, float | None]:
    """Return a part of a report on an upgrade that is done now: which connections stay, why, and until when.

    Of each worker, `stays` has the reasons, and the seconds that are left to its connections. The time of the last end is also returned
    in seconds since 1970; ``None`` if none stays.
    """
    now, by_end = time.time(), dict[int, Counter[str]]()
    for reasons, left in stays:
        for why, count in reasons.items():
            until = round(now + left + LONGEST_WAIT * (why in STAY_LONGER))
            by_end.setdefault(until, Counter())[why] += count
    parts = ""
    for until, counts in sorted(by_end.items()):
        clock = time.strftime("%H:%M:%S UTC", time.gmtime(until))
        texts = ", ".join(f"{count} {why}" for why, count in counts.most_common())
        parts += f"; staying in old workers until {clock}: {texts}"
    return parts, float(max(by_end)) if by_end else None


def could_move(reasons: Iterable[str]) -> bool:
    return not COULD_MOVE.isdisjoint(reasons)
