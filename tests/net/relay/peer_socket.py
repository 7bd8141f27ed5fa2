"""A plain socket that plays one peer's part of a schedule."""

from __future__ import annotations

import random
import socket
import struct
from typing import TYPE_CHECKING, Any

from tests.net.relay.schedules import LONGEST

if TYPE_CHECKING:
    from tests.net.relay.schedules import Step, Who

_SENT = memoryview(random.Random(4).randbytes(LONGEST + 2**20))  # all that a peer may send
_BREAK_OFF = struct.pack("ii", 1, 0)  # SO_LINGER of socket(7): close sends a reset
_PER_TURN = 2**18


class PeerSocket:
    """One peer.

    Attributes:
        to_send: The bytes that it has to send, sent or not.
        sent: The bytes that the system has taken.
        received: The bytes that it has read; each was what the other had sent.
        stalled: It does not read at present.
        finished: It has half-closed.
        ended: It has received the end of the other, clean or not.
        broken: The connection is broken, as it has found out.
        gone: It has closed the connection itself, before the end.
        said_all: It has finished, or has left, which looks like it.
    """

    def __init__(self, plain: socket.socket, who: Who) -> None:
        self.socket = plain
        self._stream = _SENT[8:] if who == "client" else _SENT
        self._expected = _SENT if who == "client" else _SENT[8:]
        self.to_send = self.sent = self.received = 0
        self.stalled = self.wants_to_finish = self.finished = False
        self.ended = self.broken = self.gone = self.said_all = False

    def state(self) -> tuple[Any, ...]:
        return (self.sent, self.received, self.finished, self.ended, self.broken, self.gone)

    def __repr__(self) -> str:
        names = ("to_send", "sent", "received", "stalled", "finished", "ended", "broken", "gone")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    def first(self, count: int) -> bytes:
        self.to_send = self.sent = count
        return bytes(self._stream[:count])

    def act(self, step: Step) -> None:
        if self.gone:
            return
        if step.act == "write" and not self.wants_to_finish:
            self.to_send += step.amount
        elif step.act == "finish":
            self.wants_to_finish = True
        elif step.act in {"stall", "resume"}:
            self.stalled = step.act == "stall"
        elif step.act in {"leave", "reset"}:
            self.gone = True
            if step.act == "leave":
                self.said_all = True
            else:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BREAK_OFF)
            self.socket.close()

    def move(self) -> None:
        if not self.gone:
            self._write()
            self._read()

    def _write(self) -> None:
        try:
            while self.sent < self.to_send and not self.broken:
                self.sent += self.socket.send(self._stream[self.sent : self.to_send])
            if self.wants_to_finish and not self.finished and not self.broken:
                self.socket.shutdown(socket.SHUT_WR)
                self.finished = self.said_all = True
        except BlockingIOError:
            pass
        except OSError:
            self.broken = True

    def _read(self) -> None:
        most = self.received + _PER_TURN
        while not (self.stalled or self.ended) and self.received < most:
            try:
                data = self.socket.recv(_PER_TURN)
            except BlockingIOError:
                return
            except OSError:
                self.broken = self.ended = True
                return
            if not data:
                self.ended = True
                return
            if data != self._expected[self.received : self.received + len(data)]:
                raise AssertionError(f"what came after {self.received} bytes was never sent")
            self.received += len(data)
