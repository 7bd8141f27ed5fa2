"""A process that plays all servers: it learns from the first bytes of each client what it is to do with it."""

from __future__ import annotations

import contextlib
import functools
import random
import socket
from multiprocessing.connection import Connection

from OpenSSL import SSL

from campaign.bytes import headers
from campaign.bytes.loops import READ, Loop
from campaign.bytes.places import WAYS, Places, Way
from campaign.bytes.plans import Mix, plan
from campaign.bytes.streams import HEADER_SIZE, Header
from campaign.bytes.talks import SERVER, Seen, Talk
from campaign.bytes.wires import Plain, Secure, Wire, break_off

_GOING = 0.25  # seconds from one change of the pool to the next
_LOOKING_UP = 0.6  # seconds that an answer to a question for a name takes, at most


class Servers:
    """Serves at all places."""

    def __init__(self, places: Places, members: list[int], control: Connection, seed: int) -> None:
        self.loop = Loop()
        self.seed = seed
        self.mix: Mix | None = None
        self.seen: list[Seen] = []
        self.live: set[Talk | _Arrival] = set()
        self._control = control
        self._context = places.server_context()
        self._ways = {way.letter: way for way in WAYS}
        self._by = random.Random(seed)
        self._members: dict[int, socket.socket | None] = {}
        self._changing = False
        for letter, listening in places.listening.items():
            self._listen(listening, self._ways[letter])
        # It is one process's.
        self._held = places.held if places.members[0] in members else 0
        for port in filter(None, (*members, self._held)):
            self._come(port)
        self._names = places.names
        self.loop.watch(places.names.fileno(), READ, self._asked)
        self.loop.watch(control.fileno(), READ, self._told)
        self._over = False

    def run(self) -> None:
        """Serve until told otherwise."""
        while not self._over:
            self.loop.turn()
            if self.live and self.mix is not None:
                late = self.loop.now - self.mix.patience
                for one in [one for one in self.live if one.began < late]:
                    one.hang()

    def _told(self, _: int) -> None:
        try:
            what, value = self._control.recv()
        except EOFError:
            what, value = "over", None
        if what == "round":
            self.mix, self._changing = value
            if self._changing:
                self.loop.later(_GOING, self._change)
        elif what == "seen":
            self._changing = False
            self._tell()
        else:
            self._over = True

    def _tell(self) -> None:
        """Tell what was seen as soon as nobody is there any more."""
        if self.live:
            self.loop.later(0.05, self._tell)
            return
        self._control.send(self.seen)
        self.seen = []

    # Servers that come and go.

    def _change(self) -> None:
        if self._changing:
            pool = [port for port in self._members if port != self._held]
            up = [port for port in pool if self._members[port]]
            down = [port for port in pool if port not in up]
            if down:
                self._come(down[0])
            elif up[1:]:  # the first one stays, so that whoever tries all finds one
                self._go(self._by.choice(up[1:]))
            if self._held:
                (self._go if self._members[self._held] else self._come)(self._held)
            self.loop.later(_GOING * 2 * self._by.random(), self._change)
        else:
            for port, listening in self._members.items():
                if listening is None:
                    self._come(port)

    def _come(self, port: int) -> None:
        self._members[port] = None
        with contextlib.suppress(OSError):  # or at the next change
            listening = socket.create_server(("127.0.0.1", port), backlog=4096)
            listening.setblocking(False)  # noqa: FBT003
            self._members[port] = listening
            self._listen(listening, self._ways["O" if port == self._held else "P"])

    def _go(self, port: int) -> None:
        listening, self._members[port] = self._members[port], None
        if listening is not None:
            self._accept(
                listening, self._ways["O" if port == self._held else "P"], 0
            )  # whoever waits there is served yet
            self.loop.forget(listening.fileno())
            listening.close()

    # Names.

    def _asked(self, _: int) -> None:
        """Answer a question for a name (RFC 1035), after a while."""
        with contextlib.suppress(BlockingIOError):
            while True:
                question, source = self._names.recvfrom(2**12)
                answer = functools.partial(self._answer, _answer_to(question), source)
                self.loop.later(_LOOKING_UP * self._by.random(), answer)

    def _answer(self, answer: bytes, source: tuple[str, int]) -> None:
        self._names.sendto(answer, source)

    # Clients.

    def _listen(self, listening: socket.socket, way: Way) -> None:
        accept = functools.partial(self._accept, listening, way)
        self.loop.watch(listening.fileno(), READ, accept)

    def _accept(self, listening: socket.socket, way: Way, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    accepted, _address = listening.accept()
                except ConnectionAbortedError:
                    continue
                if way.letter == "R":
                    break_off(accepted)
                    continue
                accepted.setblocking(False)  # noqa: FBT003
                if way.letter == "H":
                    taking = functools.partial(self._take, accepted, way)
                    self.loop.watch(accepted.fileno(), READ, taking)
                    continue
                arrival = _Arrival(self, accepted, way, self._context)
                self.live.add(arrival)
                arrival.begin()

    def _take(self, giver: socket.socket, way: Way, _: int) -> None:
        self.loop.forget(giver.fileno())
        descriptors: list[int] = []
        with giver, contextlib.suppress(OSError):
            _told, descriptors, _flags, _address = socket.recv_fds(giver, 2**16, 1)
            giver.send(b"taken")
        for descriptor in descriptors:
            arrival = _Arrival(self, socket.socket(fileno=descriptor), way, self._context)
            self.live.add(arrival)
            arrival.begin()

    def begin(
        self, arrival: _Arrival, wire: Wire, trial: int, letter: str, received: bytes
    ) -> None:
        self.live.discard(arrival)
        if self.mix is None:
            raise AssertionError("somebody came before the round")
        its = plan(self.seed, trial, self.mix)
        if its.way != letter:
            self.note(arrival, trial, "left", f"is at {letter} instead of {its.way}", letter)
            wire.socket.close()
            return
        talk = Talk(self.loop, wire, self.seed, its, SERVER, self._over_with, received)
        self.live.add(talk)
        talk.begin()

    def note(
        self, arrival: _Arrival, trial: int, heard: str, problem: str, letter: str, count: int = 0
    ) -> None:
        """Keep what was seen of one that did not get so far as to talk."""
        self.live.discard(arrival)
        self.seen.append(Seen(trial, heard, 0, count, False, problem, letter))  # noqa: FBT003

    def _over_with(self, talk: Talk, seen: Seen) -> None:
        self.live.discard(talk)
        self.seen.append(seen)


def _answer_to(question: bytes) -> bytes:
    end = question.index(0, 12) + 5  # of the name, the type and the class
    asked = question[12:end]
    is_address = asked[-4:] == b"\0\1\0\1"
    head = question[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_address else b"\0\0") + b"\0" * 4
    record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\x7f\0\0\1"  # for a second
    return head + asked + record * is_address


class _Arrival:
    """A client that has not told yet which one it is."""

    def __init__(
        self, servers: Servers, accepted: socket.socket, way: Way, context: SSL.Context
    ) -> None:
        self._servers, self._accepted, self._way = servers, accepted, way
        self._context = context
        self._trial = -1
        self._raw = b""
        self._said = b""
        self._wire: Wire | None = None
        self.began = servers.loop.now

    def begin(self) -> None:
        self._servers.loop.watch(self._accepted.fileno(), READ, self._ready)
        self._ready(0)

    def _ready(self, _: int) -> None:
        try:
            if self._way.proxy and self._trial < 0 and not self._read_proxy():
                return
            self._greet()
        except OSError:
            self._end("broken", "")
        except ValueError as problem:
            self._end("left", str(problem))

    def _read_proxy(self) -> bool:
        while True:
            try:
                data = self._accepted.recv(2**12)
            except BlockingIOError:
                return False
            if not data:
                self._end("end", "an orderly end within the PROXY header" if self._raw else "")
                return False
            self._raw += data
            found = headers.decode(self._raw)
            if found is not None:
                self._trial, size = found
                self._raw = self._raw[size:]
                return True

    def _greet(self) -> None:
        if self._wire is None:
            self._wire = (
                Secure(self._accepted, self._context, left=self._raw)
                if self._way.tls
                else Plain(self._accepted, self._raw)
            )
        if self._way.letter == "F":  # which speaks first
            self._begin(self._trial, b"")
            return
        while len(self._said) < HEADER_SIZE:
            data = self._wire.recv(HEADER_SIZE - len(self._said))
            if data is None:
                self._wire.flush()
                return
            if not data:
                self._end("end", "an orderly end within the header" if self._said else "")
                return
            self._said += data
        header = Header.decode(self._said)
        if header is None or header.seed != self._servers.seed:
            raise ValueError(f"not the header of one of these clients: {self._said!r}")
        if self._trial not in {-1, header.trial % headers.MOST_TRIALS}:
            raise ValueError(f"it is trial {header.trial}, and its address is of {self._trial}")
        if header.way != self._way.letter:
            raise ValueError(f"trial {header.trial} is at {self._way.letter}, not {header.way}")
        self._begin(header.trial, self._said)

    def _begin(self, trial: int, received: bytes) -> None:
        assert self._wire is not None
        self._servers.loop.forget(self._accepted.fileno())
        self._servers.begin(self, self._wire, trial, self._way.letter, received)

    def _end(self, heard: str, problem: str) -> None:
        self._servers.loop.forget(self._accepted.fileno())
        self._accepted.close()
        self._servers.note(self, self._trial, heard, problem, self._way.letter, len(self._said))

    def hang(self) -> None:
        self._end("hung", "it never says all of the header")


def serve(control: Connection, places: Places, members: list[int], seed: int) -> None:
    Servers(places, members, control, seed).run()
