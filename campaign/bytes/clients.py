"""A process that plays clients, many at a time."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from multiprocessing.connection import Connection

import attrs

from campaign.bytes import headers
from campaign.bytes.again import ENTRIES, Again
from campaign.bytes.loops import WRITE, Loop
from campaign.bytes.places import DOMAIN, NAME, OUTSIDE, Places
from campaign.bytes.plans import PASSED, Mix, Plan, plan
from campaign.bytes.talks import CLIENT, Seen, Talk
from campaign.bytes.wires import Nested, Plain, Secure, Wire, break_off

Entry = tuple[str, int] | str
"""An address, or the path of a UNIX socket."""


@attrs.frozen
class Job:
    """What a process of clients is to do."""

    mix: Mix
    trials: range
    entries: dict[str, Entry]
    until: float  # no one begins after that, as of ``time.monotonic()``
    together: int  # at a time


class Clients:
    """Does one job after another."""

    def __init__(self, control: Connection, seed: int) -> None:
        self.loop = Loop()
        self._control = control
        self._seed = seed
        self._contexts = [Places.client_context(older=older) for older in (False, False, True)]
        self._live: set[Talk] = set()
        self._opening = 0
        self._seen: list[Seen] = []
        self._again: dict[int, str] = {}
        self._began: dict[int, float] = {}  # by trials, of which none is done twice
        self._job: Job | None = None
        self._left: Iterator[int] = iter(())

    def run(self) -> None:
        """Do as told, until told otherwise."""
        with contextlib.suppress(EOFError):
            while True:
                job = self._control.recv()
                if job is None:
                    return
                self._control.send(self._do(job))

    def _do(self, job: Job) -> list[Seen]:
        self._job, self._left, self._seen, self._again = job, iter(job.trials), [], {}
        self._fill()
        while self._live or self._opening:
            self.loop.turn()
            late = self.loop.now - job.mix.patience
            for talk in [talk for talk in self._live if talk.began < late]:
                talk.hang()
            self._fill()
        return [
            one._replace(again=self._again.get(one.trial, ""), began=self._began[one.trial])
            for one in self._seen
        ]

    def _fill(self) -> None:
        job = self._job
        assert job is not None
        if self.loop.now > job.until:
            return
        while len(self._live) + self._opening < job.together:
            trial = next(self._left, None)
            if trial is None:
                return
            self._open(plan(self._seed, trial, job.mix), job)

    def _open(self, its: Plan, job: Job) -> None:
        to = job.entries[its.entry]
        self._began[its.trial] = self.loop.now
        connected = socket.socket(socket.AF_UNIX if isinstance(to, str) else socket.AF_INET)
        connected.setblocking(False)  # noqa: FBT003
        _, _, version = its.entry.rpartition("-")
        tells = version in {"v1", "v2"}
        try:
            if connected.family == socket.AF_INET:
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connected.bind((headers.address_of(its.trial), 0))
            said = connected.connect_ex(to)
        except OSError as problem:
            said = problem.errno or errno.EIO
        if said not in {0, errno.EINPROGRESS}:
            connected.close()
            self._note(its, f"it cannot connect: {errno.errorcode.get(said, said)}")
            return
        self._opening += 1
        opening = headers.encode(its.trial, version) if tells else b""
        if said:
            fd = connected.fileno()
            self.loop.watch(fd, WRITE, lambda _: self._connected(its, connected, opening))
        else:
            self._introduce(its, connected, opening)

    def _note(self, its: Plan, problem: str, heard: str = "broken") -> None:
        seen = Seen(its.trial, heard, 0, 0, finished=False, problem=problem, where=its.entry)
        self._seen.append(seen._replace(over=self.loop.now))

    def _connected(self, its: Plan, connected: socket.socket, opening: bytes) -> None:
        self.loop.forget(connected.fileno())
        self._introduce(its, connected, opening)

    def _introduce(self, its: Plan, connected: socket.socket, opening: bytes) -> None:
        try:
            if opening:
                opening = opening[connected.send(opening[: its.cut]) :]
                if opening and its.trial % 50 == 0:
                    self._opening -= 1
                    break_off(connected)  # a proxy that gives up in the middle of it
                    self._note(its, "", "gave up")
                    return
        except OSError as problem:
            self._opening -= 1
            connected.close()
            self._note(its, f"broken off within the PROXY header: {problem}")
            return
        if opening:
            self.loop.later(0, lambda: self._introduce(its, connected, opening))
            return
        self._opening -= 1
        is_secure = its.entry.startswith("tls") or its.entry in PASSED
        name = ("through." if its.entry == "through" else "") + NAME
        if its.entry == "named":
            name = f"t{its.trial}.{DOMAIN}"
        context = self._contexts[its.trial % 3]
        wire: Wire
        if its.entry == "tls-nested":
            outside = Secure(connected, self._contexts[its.trial // 3 % 3], OUTSIDE.encode())
            wire = Nested(outside, context, name.encode())
        else:
            wire = Secure(connected, context, name.encode()) if is_secure else Plain(connected)
        talk = Talk(self.loop, wire, self._seed, its, CLIENT, self._over_with)
        self._live.add(talk)
        if its.entry == "hush":  # before it is led on for its silence, or after that
            self.loop.later(its.trial % 20 / 100, talk.begin)
        else:
            talk.begin()
        if its.entry in ENTRIES:
            self._come_again(its, talk)

    def _come_again(self, its: Plan, first: Talk) -> None:
        assert self._job is not None
        to = self._job.entries[its.entry]
        assert not isinstance(to, str)
        self._opening += 1

        def over(what: str) -> None:
            self._opening -= 1
            self._again[its.trial] = what

        addresses = (headers.address_of(its.trial), 0), to
        patience = self._job.mix.patience / 2
        lasts = its.entry == "rated"
        Again(self.loop, addresses, first, over, lasts=lasts, patience=patience).look()

    def _over_with(self, talk: Talk, seen: Seen) -> None:
        self._live.discard(talk)
        self._seen.append(seen)


def come(control: Connection, seed: int) -> None:
    Clients(control, seed).run()
