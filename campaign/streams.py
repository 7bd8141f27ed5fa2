"""Live streams through a service, and new clients beside them; the server gives back what it gets."""

from __future__ import annotations

import errno
import socket
import threading
import time
from contextlib import suppress
from functools import partial

import attrs

from campaign.bytes.loops import READ, WRITE, Loop

_BLOCK = 100


@attrs.define(eq=False)
class Stream:
    end: socket.socket
    number: int
    is_visit: bool
    port: int = 0  # the client's
    sent: int = 0  # blocks
    came: int = 0  # blocks that have come back
    came_at: float = 0.0  # when the last one did, as of ``time.monotonic()``
    longest: float = 0.0  # the longest time from one to the next
    problem: str = ""  # how it was lost, if it was
    received: bytes = b""
    began: float = attrs.field(factory=time.monotonic)

    def block(self, number: int) -> bytes:
        return f"E{self.number} {number}\n".encode().ljust(_BLOCK, b".")


class Streams:
    """All of them, and the server, in a thread of their own.

    Attributes:
        period: Seconds from one block of a stream to the next.
        visits_each: Seconds from one new client to the next.
    """

    def __init__(self) -> None:
        self.period, self.visits_each = 0.4, 0.1
        self._loop = Loop()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listening.setblocking(False)  # noqa: FBT003
        self.server: int = self._listening.getsockname()[1]
        self.streams: list[Stream] = []
        self.visits: list[Stream] = []
        self._to_begin: list[Stream] = []
        self._numbers = 0
        self._port = 0
        self._ends: set[socket.socket] = set()
        self._visiting = 0
        self._is_over = False
        self._loop.watch(self._listening.fileno(), READ, self._accept)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def begin(self, port: int, count: int, patience: float = 60.0) -> None:
        until = time.monotonic() + patience
        new = self.arrive(port, count)
        while any(not one.came for one in new):
            if time.monotonic() > until or any(one.problem for one in new):
                raise AssertionError(
                    f"not all streams have begun: { {one.problem for one in new} }"
                )
            time.sleep(0.01)

    def arrive(self, port: int, count: int) -> list[Stream]:
        self._port = port
        new = [self._connect(is_visit=False) for _ in range(count)]
        self.streams += new
        self._to_begin += new
        return new

    def visit(self) -> None:
        self._visiting += 1
        self._loop.later(0, partial(self._visit, self._visiting))

    def pause_visits(self) -> None:
        self._visiting += 1

    def leave(self) -> None:
        for one in self.streams:
            self._loop.later(0, partial(self._lose, one, "it has left"))

    def end(self) -> None:
        self._is_over = True
        self._thread.join()
        for end in (self._listening, *self._ends, *(one.end for one in self.streams + self.visits)):
            end.close()
        self._loop.close()

    def _run(self) -> None:
        while not self._is_over:
            while self._to_begin:
                self._watch(self._to_begin.pop())
            self._loop.turn(0.02)

    def _connect(self, *, is_visit: bool) -> Stream:
        end = socket.socket()
        end.setblocking(False)  # noqa: FBT003
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said = end.connect_ex(("127.0.0.1", self._port))
        self._numbers += 1
        stream = Stream(end, self._numbers, is_visit)
        if said == errno.EINPROGRESS or not said:
            stream.port = end.getsockname()[1]
        else:
            stream.problem = errno.errorcode.get(said, str(said))
        return stream

    def _watch(self, stream: Stream) -> None:
        if not stream.problem:
            self._loop.watch(stream.end.fileno(), READ | WRITE, partial(self._connected, stream))

    def _connected(self, stream: Stream, _: int) -> None:
        self._loop.forget(stream.end.fileno())
        self._loop.watch(stream.end.fileno(), READ, partial(self._read, stream))
        self._say(stream)

    def _visit(self, number: int) -> None:
        if number != self._visiting:
            return
        stream = self._connect(is_visit=True)
        self.visits.append(stream)
        self._watch(stream)
        self._loop.later(self.visits_each, partial(self._visit, number))

    def _say(self, stream: Stream) -> None:
        if not stream.problem:
            try:
                stream.end.send(stream.block(stream.sent))
                stream.sent += 1
            except OSError as problem:
                self._lose(stream, str(problem))

    def _lose(self, stream: Stream, problem: str) -> None:
        if not stream.problem:
            stream.problem = f"{problem} after {stream.came} blocks"
            self._loop.forget(stream.end.fileno())
            stream.end.close()

    def _read(self, stream: Stream, _: int) -> None:
        try:
            data = stream.end.recv(2**16)
        except BlockingIOError:
            return
        except OSError as problem:
            self._lose(stream, str(problem))
            return
        if not data:
            self._lose(stream, "an end")
            return
        stream.received += data
        if not stream.block(stream.came).startswith(stream.received):
            self._lose(stream, f"wrong bytes {stream.received[:20]!r}")
        elif len(stream.received) == _BLOCK:
            stream.received = b""
            stream.came += 1
            before, stream.came_at = stream.came_at, time.monotonic()
            stream.longest = max(stream.longest, stream.came_at - (before or stream.came_at))
            if stream.is_visit:
                self._loop.forget(stream.end.fileno())
                stream.end.close()
            else:
                self._loop.later(self.period, partial(self._say, stream))

    # The server.

    def _accept(self, _: int) -> None:
        with suppress(BlockingIOError):
            while True:
                end, _address = self._listening.accept()
                end.setblocking(False)  # noqa: FBT003
                self._ends.add(end)
                self._loop.watch(end.fileno(), READ, partial(self._serve, end))

    def _serve(self, end: socket.socket, _: int) -> None:
        try:
            data = end.recv(2**16)
            end.sendall(data)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.forget(end.fileno())
            self._ends.discard(end)
            end.close()
