"""Two plain sockets that play a schedule through a relay, and what must be so whatever they do."""

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import attrs
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.net.relay.reactors import PrivateReactor
from tests.net.relay.wiring import Held, Sides, Wiring
from tests.support.ports import free_port
from txmux.backends.connect.client import ProxyClientFactory
from txmux.net.relay.interface import RelayResult, Timeouts
from txmux.net.relay.peers import Peer
from txmux.net.relay.relay import Relay
from txmux.net.sockets.plainsocket import reset_on_close
from txmux.net.sockets.poller import Poller
from txmux.net.sockets.transport import SocketTransport

Who = Literal["client", "server"]
Act = Literal["write", "finish", "stall", "resume", "leave", "reset", "wait", "drain", "move"]

"""What a peer does, or whoever runs the relay.

- *write* this many bytes;
- *finish*: send no more after all that is to be written, but read on;
- *stall*: stop reading; *resume*: read again;
- *leave*: close the connection at once, with whatever has not been written or read;
- *reset* it;
- *wait* this many turns of the reactor;
- *drain*: the relay is told to end, whichever peer it is said of;
- *move*: another relay goes on with both sockets, as in another process.
"""

_MOST_STEPS = 14
_MOST_AT_ONCE = 2**20
LONGEST = _MOST_STEPS * _MOST_AT_ONCE  # no side sends more bytes than this
_SIZES = [1, 100, 1460, 16_384, 65_535, 65_536, 65_537, 262_144, 400_000, _MOST_AT_ONCE]
_SMALL_BUFFERS = 2**16


@attrs.frozen
class Step:
    """One act of one peer; `amount` is that of bytes or turns."""

    who: Who
    act: Act
    amount: int = 0


@attrs.frozen
class Schedule:
    steps: tuple[Step, ...]
    before: int = 0  # how many come before the relay starts, while the client's end is paused
    pending: int = 0  # the client's first bytes, which were read before
    finished: bool = False  # they are all that it sends, and it has said so
    buffers: int | None = None  # bytes that sockets keep in either direction; None is the system's


def schedules(*, endings: bool, moves: bool = False) -> SearchStrategy[Schedule]:
    sizes = st.one_of(st.sampled_from(_SIZES), st.integers(1, 200_000))
    who: SearchStrategy[Who] = st.sampled_from(["client", "server"])
    plain: list[Act] = ["finish", "stall", "resume"]
    rude: list[Act] = ["leave", "reset", "leave", "reset", "drain"]
    writing = st.builds(Step, who, st.just("write"), sizes)
    waiting = st.builds(Step, who, st.just("wait"), st.integers(1, 30))
    moving: list[Act] = ["move"] * 3 if moves else []
    acting = st.builds(Step, who, st.sampled_from(plain + rude * endings + moving))
    return st.builds(
        Schedule,
        st.lists(
            st.one_of(writing, writing, waiting, acting), min_size=3, max_size=_MOST_STEPS
        ).map(tuple),
        before=st.sampled_from([0, 0, 1, 3]),
        pending=st.sampled_from([0, 1, 8192, 262_144]),
        finished=st.sampled_from([False, False, False, True]),
        buffers=st.sampled_from([None, _SMALL_BUFFERS]),
    )


_SENT = memoryview(random.Random(4).randbytes(LONGEST + 2**20))  # all that a peer may send
_PER_TURN = 2**18


class PeerSocket:
    def __init__(self, plain: socket.socket, who: Who) -> None:
        self.socket = plain
        self._stream = _SENT[8:] if who == "client" else _SENT
        self._expected = _SENT if who == "client" else _SENT[8:]
        self.to_send = self.sent = self.received = 0  # bytes
        self.stalled = self.wants_to_finish = self.finished = False  # it reads no more; half-close
        self.ended = self.broken = False  # as it has found out
        self.gone = self.said_all = False  # it has closed before the end; it has finished or left

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
                reset_on_close(self.socket)
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


_STILL = 5.0  # seconds without anything, after which a story is taken to have come to a standstill
_STILL_TURNS = 1000
"""Turns without anything that there must have been by then: on a busy machine, seconds may go by without one."""
_TICK = 0.01
_MOST_UNDER_WAY = 2**21
"""Bytes that a relay and four sockets with small buffers may hold in one direction."""


class _Server(ServerFactory):
    noisy = False
    end: Peer | None = None
    buffers: int | None = None

    def buildProtocol(self, addr: Any) -> "_ClientPeer":
        return _ClientPeer(self)


class _ClientPeer(Held):
    def __init__(self, factory: _Server) -> None:
        self._factory = factory

    def connectionMade(self) -> None:
        self._factory.end = self
        _limit(self.transport.getHandle(), self._factory.buffers)
        super().connectionMade()


class Player:
    """Plays schedules, one after the other, on one reactor.

    With `pauses`, each step ends when all has come. `tidy_up` gives back what relays keep for those that follow; `peers` are those of the last schedule, as they were in the end.
    """

    def __init__(
        self,
        private: PrivateReactor,
        wiring: Wiring,
        make_sides: Callable[[Peer, Peer], Sides],
        tidy_up: Callable[[], None],
        *,
        pauses: bool = False,
    ) -> None:
        self._pauses = pauses
        self._tidy_up = tidy_up
        self._private = private
        self._wiring = wiring
        self._make_sides = make_sides
        self._accepting = _Server()
        self._port, self._address = wiring.listen(self._accepting)
        self._server_socket = socket.socket(wiring.family)
        server_address: Any = ("127.0.0.1", free_port("127.0.0.1"))
        if wiring.family == socket.AF_UNIX:
            server_address = f"{self._address}-server"
        self._server_socket.bind(server_address)
        self._server_socket.listen()
        self._server_socket.setblocking(False)  # noqa: FBT003 - the socket module's signature
        self._left: dict[str, int] | None = None

    def close(self) -> None:
        self._port.stopListening()
        self._server_socket.close()
        self._private.turn()

    def play(self, schedule: Schedule) -> RelayResult:
        self._results: list[RelayResult] = []
        self._clock = Clock()
        self._bounded = schedule.buffers is not None
        self.drained = False
        self._accepting.end, self._accepting.buffers = None, schedule.buffers
        self.peers: dict[Who, PeerSocket] = {"client": self._client(schedule.buffers)}
        try:
            while self._accepting.end is None:
                self._private.turn()
            self._start(schedule)
            for step in schedule.steps[schedule.before :]:
                self._do(step)
            for peer in self.peers.values():
                peer.stalled, peer.wants_to_finish = False, True
            self._until(lambda: bool(self._results) and all(map(_is_over, self.peers.values())))
        except BaseException:
            self._left = None  # who knows what is
            raise
        finally:
            for peer in self.peers.values():
                peer.socket.close()
        self._check_nothing_is_left()
        (result,) = self._results
        return result

    def _client(self, buffers: int | None) -> PeerSocket:
        plain = socket.socket(self._wiring.family)
        _limit(plain, buffers)
        plain.connect(self._address)
        plain.setblocking(False)  # noqa: FBT003
        return PeerSocket(plain, "client")

    def _start(self, schedule: Schedule) -> None:
        plain_client = self.peers["client"]
        pending = plain_client.first(schedule.pending)
        plain_client.wants_to_finish = schedule.finished
        plain_client.move()
        for step in schedule.steps[: schedule.before]:
            if step.who == "client":
                self._do(step)
        client = self._accepting.end
        assert client is not None

        started: list[Peer] = []

        def connected(server: Peer) -> None:
            started.append(server)
            _limit(server.transport.getHandle(), schedule.buffers)
            self._ends = [client, server]
            self._relay = self._make_relay()
            self._relay.start(pending, client_finished=schedule.finished)

        factory = ProxyClientFactory(connected, Failure.raiseException)
        self._wiring.connect(self._server_socket.getsockname(), factory)
        while not started:
            self._private.turn()
        plain, _ = self._server_socket.accept()
        _limit(plain, schedule.buffers)
        plain.setblocking(False)  # noqa: FBT003
        self.peers["server"] = PeerSocket(plain, "server")

    def _make_relay(self) -> Relay:
        timeouts = Timeouts(idle=1e6, half_close=1e6)
        client, server = self._ends
        client.receiver, server.receiver = sides = self._make_sides(client, server)
        return Relay(self._clock, timeouts, self._results.append, sides)

    def _do(self, step: Step) -> None:
        if step.act == "wait":
            for _ in range(step.amount):
                self._turn()
        elif step.act == "move":
            if len(self.peers) > 1 and not self._results:
                self._move(really=step.who == "client")
        elif step.act == "drain":
            if len(self.peers) > 1 and not self._results:
                self.drained = True
                self._relay.abort("drained")
        else:
            self.peers[step.who].act(step)
            self._turn()
        if self._pauses:
            client, server = self.peers["client"], self.peers["server"]
            self._until(
                lambda: (client.received, server.received) == (server.to_send, client.to_send)
            )

    def _move(self, *, really: bool) -> None:
        """Let another relay go on with other descriptors of the same sockets, or the same one after all."""
        relay = self._relay
        if not relay.is_movable:
            return
        state = relay.suspend()
        if not really:
            relay.resume(state)
            return
        self._ends = [self._moved(end) for end in self._ends]
        relay.detach()
        self._relay = self._make_relay()
        self._relay.adopt(state)

    def _moved(self, end: Peer) -> Peer:
        handle: Any = end.transport.getHandle()
        copy = handle.dup()
        copy.setblocking(False)  # noqa: FBT003 - the socket module's signature
        transport: Any = end.transport
        poller = getattr(transport, "_poller", None) or Poller.for_reactor(self._private.reactor)
        moved = Peer()
        SocketTransport(poller, copy, int(handle.family), handle.getsockname()).set_protocol(moved)
        return moved

    def _turn(self) -> None:
        for peer in self.peers.values():
            peer.move()
        self._private.turn()
        self._clock.advance(_TICK)
        if self._bounded and len(self.peers) > 1:
            client, server = self.peers["client"], self.peers["server"]
            for sender, reader in ((client, server), (server, client)):
                if not reader.gone and sender.sent - reader.received > _MOST_UNDER_WAY:
                    raise AssertionError(f"{sender.sent - reader.received} bytes are held")

    def _until(self, condition: Callable[[], bool]) -> None:
        before: Any = None
        since, turns = 0.0, 0
        while not condition():
            self._turn()
            now = [peer.state() for peer in self.peers.values()]
            turns += 1
            if now != before:
                before, since, turns = now, time.monotonic(), 0
            elif turns > _STILL_TURNS and time.monotonic() - since > _STILL:
                raise AssertionError(f"standstill; {self.peers}, {self._results}")

    def _check_nothing_is_left(self) -> None:
        for _ in range(3):
            self._private.turn()
        self._tidy_up()
        if timers := self._clock.getDelayedCalls():
            raise AssertionError(f"timers are left: {timers}")
        reactor = self._private.reactor
        left = {
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "timers": len(reactor.getDelayedCalls()),
            "readers": len(reactor.getReaders()),
            "writers": len(reactor.getWriters()),
        }
        # What a first relay opens may serve all that follow; what earlier tests left may go meanwhile.
        before = self._left or left
        if any(left[name] > before[name] for name in left):
            raise AssertionError(f"before there were {before}, and left are {left}")
        self._left = left


def _is_over(peer: PeerSocket) -> bool:
    return peer.gone or peer.ended


def _limit(plain: Any, buffers: int | None) -> None:
    if buffers is not None:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            plain.setsockopt(socket.SOL_SOCKET, option, buffers)
