"""One end of one connection: it does its part of the plan, and looks at every byte that comes."""

from __future__ import annotations

import random
import select
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from campaign.bytes.loops import READ, WRITE, Loop
from campaign.bytes.plans import ORDERLY, UNFINISHED, Ending, Part, Plan
from campaign.bytes.streams import HEADER_SIZE, Header, Stream
from campaign.bytes.wires import Wire, break_off

CLIENT, SERVER = 0, 1
_TROUBLE = select.EPOLLERR | select.EPOLLHUP
_TURN = 2**20  # bytes until the others have their turn
_PAUSES = 20  # of each kind, so that long streams end


class Seen(NamedTuple):
    """What one end has to tell of a connection.

    Attributes:
        trial: Its number; -1 if it was never told.
        heard: ``end``, ``broken``, ``left`` if this end has gone before it heard of either, ``gave up`` if it has gone before it
            began with its part, or ``hung``.
        sent: Bytes that its kernel took.
        received: Bytes that came.
        finished: Whether it has said that its bytes are all there are.
        problem: What promise is broken by that, if one is.
        where: The letter of the server, or the way in.
        again: What became of a second connection from the same address, as `Again` says.
        began: When this end began with its part, or the client to connect, as of ``time.monotonic()``.
        over: When it was over.
    """

    trial: int
    heard: str
    sent: int
    received: int
    finished: bool
    problem: str = ""
    where: str = ""
    again: str = ""
    began: float = 0.0
    over: float = 0.0


class Talk:
    """Does one end's part."""

    def __init__(
        self,
        loop: Loop,
        wire: Wire,
        seed: int,
        plan: Plan,
        role: int,
        on_over: Callable[[Talk, Seen], None],
        received: bytes = b"",
    ) -> None:
        self._loop, self._wire, self._seed, self._plan = loop, wire, seed, plan
        self._role, self._on_over = role, on_over
        self._fd = wire.socket.fileno()
        head = Header(plan.way, seed, plan.trial).encode()
        ways = Stream(seed, plan.trial, 0, head), Stream(seed, plan.trial, 1)
        self._outward, self._inward = ways[role], ways[1 - role]
        self._part: Part = plan.part(role)
        self._other: Part = plan.part(1 - role)
        self._limit = self._part.at if self._part.ending is Ending.RESET else self._part.size
        self._by: random.Random | None = None
        self._held = b""
        self.received = len(received)
        self._inward.is_next(received)
        self._all_sent = self._finished = self._ended = self._deaf = self._blocked = False
        self._is_resting = self._is_stalling = self._has_slept = self.is_over = False
        self._pauses = _PAUSES
        self.began = loop.now
        self._events = 0

    def begin(self) -> None:
        """Send what can be sent, and wait for the rest; nothing, if it was given up meanwhile."""
        if self.is_over:
            return
        self._events = READ
        self._loop.watch(self._fd, READ, self.ready)
        self.ready(select.EPOLLIN if self._wire.can_read() else 0)

    def ready(self, events: int) -> None:
        """Go on; with what the loop has told."""
        try:
            if events & _TROUBLE and self._ended:
                self._deaf = True
            if (events & ~WRITE or self._wire.can_read()) and not self._ended:
                self._receive()
            if not self.is_over:
                self._send()
            if not self.is_over:
                self._look()
            if not self.is_over:
                self._update()
        except OSError:
            self._over("broken")

    def _chance(self) -> float:
        if self._by is None:
            self._by = random.Random(self._seed << 41 | self._plan.trial << 1 | self._role)
        return self._by.random()

    # What comes.

    def _receive(self) -> None:
        most, room = self._part.gulp, _TURN
        while room > 0 and not self._is_resting:
            data = self._wire.recv(most)
            if data is None:
                return
            if not data:
                if self._deaf:  # who has learnt of a reset by sending is not told of it once more
                    self._over("broken")
                self._ended = True
                return
            self.received += len(data)
            room -= len(data)
            if not self._inward.is_next(data):
                self._over("left", f"a wrong byte before {self.received:,}")
                return
            if self.received > self._other.size:
                self._over("left", f"{self.received:,} bytes of {self._other.size:,}")
                return
            if self._part.sleep and not self._has_slept:
                self._has_slept = True
                self._rest(self._part.sleep)
            elif self._part.rest and self._pauses and self._chance() < self._part.rest:
                self._rest(self._part.pause * self._chance())
        if not self._is_resting and self._wire.can_read():  # of which the socket will not tell
            self._loop.later(0, self._go_on)

    def _rest(self, seconds: float) -> None:
        self._pauses -= 1
        self._is_resting = True
        self._loop.forget(self._fd)
        self._loop.later(seconds, self._rested)

    def _rested(self) -> None:
        if not self.is_over:
            self._is_resting = False
            self._loop.watch(self._fd, self._events, self.ready)
            self.ready(select.EPOLLIN)

    # What goes.

    def _send(self) -> None:
        if self._deaf or self._all_sent or (self._part.waits and not self._ended):
            return
        try:
            self._send_pieces()
        except OSError:
            self._deaf, self._held = True, b""

    def _send_pieces(self) -> None:
        self._blocked = False
        while not self._is_stalling:
            if not self._held:
                left = self._limit - self._outward.position
                if not left:
                    self._sent_all()
                    return
                self._held = self._outward.take(self._size_of_next(left))
            sent = self._wire.send(self._held)
            self._held = self._held[sent:]
            if self._held:
                self._blocked = True
                return
            if self._part.stall and self._pauses and self._chance() < self._part.stall:
                self._pauses -= 1
                self._is_stalling = True
                self._loop.later(self._part.pause * self._chance(), self._stalled)

    def _size_of_next(self, left: int) -> int:
        if not self._role and self._outward.position < HEADER_SIZE and self._plan.cut < HEADER_SIZE:
            return min(left, self._plan.cut)
        piece = self._part.piece
        return left if left <= piece else min(left, 1 + int(piece * self._chance()))

    def _stalled(self) -> None:
        self._is_stalling = False
        self._go_on()

    def _go_on(self) -> None:
        if not self.is_over:
            self.ready(0)

    def _sent_all(self) -> None:
        self._all_sent = True
        if self._part.ending in {Ending.FINISH, Ending.REGRET}:
            self._finished = True
            self._wire.finish()
        elif self._part.ending is Ending.TRUNCATE:
            if not self._wire.flush():
                self._all_sent, self._blocked = False, True
            else:
                self._wire.socket.shutdown(socket.SHUT_WR)
        elif self._part.ending is Ending.RUDE:
            self._finished = True
            self._wire.conclude()

    # How it ends.

    def _look(self) -> None:
        ending, heard = self._part.ending, "end" if self._ended else "left"
        if self._all_sent and ending in {Ending.RESET, Ending.HEAR, Ending.REGRET}:
            if ending is Ending.RESET or self._ended or self.received >= self._part.at:
                self._loop.forget(self._fd)
                break_off(self._wire.socket)
                self._over(heard)
        elif self._all_sent and ending is Ending.RUDE:
            if self._wire.flush():
                self._over(heard)
        elif self._ended and (self._all_sent or self._deaf):
            if ending is Ending.CLOSE and not self._deaf and not self._finished:
                self._finished = True
                self._wire.conclude()
            if self._deaf or self._wire.flush():
                self._over(heard)

    def hang(self) -> None:
        self._over("hung")

    def _over(self, heard: str, problem: str = "") -> None:
        if self.is_over:
            return
        self.is_over = True
        self._loop.forget(self._fd)
        self._wire.socket.close()
        sent = self._outward.position - len(self._held)
        problem = problem or self._problem(heard)
        where = self._plan.way if self._role else self._plan.entry
        seen = Seen(self._plan.trial, heard, sent, self.received, self._finished, problem, where)
        self._on_over(self, seen._replace(began=self.began, over=time.monotonic()))

    def _problem(self, heard: str) -> str:
        came = f"after {self.received:,} of {self._other.size:,} bytes"
        if heard == "end" and self._cannot_tell():
            return ""
        if heard == "end" and self._other.ending in UNFINISHED:
            return f"a stream that was broken off looks complete {came}"
        if heard == "end" and self.received != self._other.size:
            return f"an orderly end {came}"
        if heard == "broken" and self._plan.is_orderly:
            return f"broken off {came}"
        return f"it hangs {came}" if heard == "hung" else ""

    def _cannot_tell(self) -> bool:
        """Tell whether an end says nothing of what came before it."""
        if self._plan.way == "R":  # right, if the log says that no server could be connected
            return not self.received
        if self._plan.way == "S" and self._role == SERVER:  # a UNIX socket has no reset
            return self._plan.client.ending not in ORDERLY
        if self._plan.entry.startswith("unix") and self._role == CLIENT:
            return self._plan.server.ending not in ORDERLY
        # many just close after the other end's close-notify, which is taken for theirs
        truncated = self._other.ending is Ending.TRUNCATE and self._finished
        return truncated and self.received == self._other.size

    def _update(self) -> None:
        if self._is_resting:
            return
        events = 0 if self._ended else READ
        if not self._wire.flush() or (self._blocked and not self._wire.is_opening):
            events |= WRITE
        if events != self._events:
            self._events = events
            self._loop.change(self._fd, events)
