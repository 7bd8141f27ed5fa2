"""What befalls the processes of a service meanwhile: each is killed, halted for a moment, or halted until the service replaces it."""

from __future__ import annotations

import random
import signal
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import attrs

from campaign.bytes.headers import MOST_TRIALS, trial_at
from campaign.bytes.plans import ORDERLY, Plan
from campaign.bytes.talks import Seen
from campaign.processes import send, state_of
from tests.interop.children import eventually
from tests.support.proc import is_gone, name_of, named, open_files, pids_of, workers_of

_TIME_WAIT = "06"  # as /proc/net/tcp has it
_SLACK = 3.0  # seconds in which an end may be late to begin, or to hear
_UNNOTICED = 30.0
"""Seconds in which it is noticed that a client has left, whatever befalls the workers."""
_MOMENT = 3.0  # seconds for which a process is halted, at most
_LONG = 17.0
"""The same, for a new supervisor for once: longer than an old one waits for it to accept."""
_TAKING_OVER = 1.5  # seconds in which most upgrades are done
_READ = 0.05  # seconds in which what a process has said is read
_KILLED_HELPERS = 0.1
"""How likely it is that the helper is killed, as there is none from then on, whenever it is its turn."""


@attrs.define
class Losses:
    """The connections that may be cut: those of workers that were killed.

    Attributes:
        trials: Those whose clients were connected to such a worker by TCP, by their addresses.
        ended: Those that both ends had ended lately; the system does not tell whether the worker still had the socket, with bytes to send.
        times: When workers were killed, or halted until that.
    """

    trials: set[int] = attrs.field(factory=set)
    ended: set[int] = attrs.field(factory=set)
    times: list[float] = attrs.field(factory=list)

    def add(self, pid: int) -> None:
        self.times.append(time.monotonic())
        self.trials |= _trials_at(pid)
        rows = [row for row in _tcp_sockets() if row[3] == _TIME_WAIT]
        self.ended |= _trials_in(row[column] for row in rows for column in (1, 2))

    def may_cut(self, its: Plan, client: Seen, server: Seen | None) -> bool:
        """Tell whether a connection may have been cut.

        A client at a UNIX socket has no address, and the system knows nothing more of a connection that its client has reset: only the time
        tells of these.
        """
        trial = client.trial % MOST_TRIALS
        is_unknown = its.entry.startswith("unix") or its.client.ending not in ORDERLY
        return trial in self.trials or (
            self._is_in_time(its, client, server) and (is_unknown or trial in self.ended)
        )

    def may_miss_line(self, its: Plan, client: Seen, server: Seen | None) -> bool:
        """Tell whether nobody may have written a line of one that was whole."""
        trial = client.trial % MOST_TRIALS
        return trial in self.trials or self._is_in_time(its, client, server)

    def _is_in_time(self, its: Plan, client: Seen, server: Seen | None) -> bool:
        """Tell whether it was there when a worker was killed, or may have been: its client may have left before or after that."""
        late = _SLACK if its.client.ending in ORDERLY else _UNNOTICED
        over = client.over if server is None else max(client.over, server.over)
        return any(client.began - _SLACK < one < over + late for one in self.times)


def _trials_at(pid: int) -> set[int]:
    """Give the trials whose clients a process is connected to by TCP."""
    inodes = {name[8:-1] for name in open_files(pid) if name.startswith("socket:[")}
    return _trials_in(row[2] for row in _tcp_sockets() if row[9] in inodes)


def _tcp_sockets() -> list[list[str]]:
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]


def _trials_in(places: Iterable[str]) -> set[int]:
    numbers = (int(place.partition(":")[0], 16) for place in places)
    trials = {trial_at(socket.inet_ntoa(struct.pack("=I", number))) for number in numbers}
    return {trial for trial in trials if trial >= 0}


class Troubles:
    """Kills and halts processes of a service."""

    def __init__(self, pid: int, running: Callable[[], list[int]]) -> None:
        self._running = running
        self._helpers = named(pid, "helper")
        self.has_helper = bool(self._helpers)
        self.counts: Counter[str] = Counter()
        self.losses = Losses()
        self._halted: set[int] = set()
        self._halting = threading.Lock()

    @property
    def can_recover(self) -> bool:
        """Whether what is killed is replaced, and rules are read: not without the helper that the service began with."""
        return self.has_helper or not self._helpers

    def befall(self, by: random.Random) -> None:
        """Have something happen at once to a worker, to the process of which workers are forked, or to the helper."""
        if not self.can_recover:
            return
        kinds = [self._kill_worker, self._halt_worker, self._kill_starter, self._halt_starter]
        if self.has_helper:
            kinds += [self._halt_helper, self._kill_helper]
        by.choice(kinds)(by)

    def hang(self, by: random.Random) -> None:
        """Halt a worker, or the process of which workers are forked, until the service ends it, which takes 10 s or 30 s."""
        if not self.can_recover:
            return
        if by.random() < 0.8:
            self._hang_worker(by)
        else:
            self._hang_starter()

    def _worker(self, by: random.Random) -> int:
        """Choose a worker, of the supervisor that serves or of one that drains; 0 if it has none at the moment."""
        with suppress(FileNotFoundError, ProcessLookupError):
            alive = [pid for pid in workers_of(by.choice(self._running())) if not is_gone(pid)]
            return by.choice(alive) if alive else 0
        return 0

    def _kill_worker(self, by: random.Random) -> None:
        pid = self._worker(by)
        if self._halt(pid):
            self.losses.add(pid)
            send(pid, signal.SIGKILL)
            self._go_on(pid)
            self.counts["killed workers"] += 1

    def _halt_worker(self, by: random.Random) -> None:
        self._halt_for(self._worker(by), _MOMENT * by.random(), "workers")

    def _hang_worker(self, by: random.Random) -> None:
        pid = self._worker(by)
        if self._halt(pid):
            self.losses.add(pid)
            self._be_replaced(pid, "workers")

    def _starter(self) -> int:
        with suppress(FileNotFoundError, ProcessLookupError):
            return next(iter(named(self._running()[-1], "starter")), 0)
        return 0

    def _kill_starter(self, _: random.Random) -> None:
        pid = self._starter()
        if pid:
            send(pid, signal.SIGKILL)
            self.counts["killed starters"] += 1

    def _halt_starter(self, by: random.Random) -> None:
        self._halt_for(self._starter(), _MOMENT * by.random(), "starters")

    def _hang_starter(self) -> None:
        pid = self._starter()
        if self._halt(pid):
            self._be_replaced(pid, "starters")

    def _halt_helper(self, by: random.Random) -> None:
        self._halt_for(self._helpers[0], _MOMENT * by.random(), "helpers")

    def _kill_helper(self, by: random.Random) -> None:
        if by.random() < _KILLED_HELPERS and not self._halted:
            self.has_helper = False
            send(self._helpers[0], signal.SIGKILL)
            self.counts["killed helpers"] += 1

    def strike_successor(self, old: int, is_over: Callable[[], bool], by: random.Random) -> None:
        """Kill or halt the new supervisor that is about to take the place of an old one."""
        found: list[int] = []

        def is_there() -> bool:
            with suppress(FileNotFoundError, ProcessLookupError):
                found[:] = [pid for pid in pids_of(old) if not _is_other(pid)]
            return is_over() or any(not is_gone(pid) for pid in found)

        eventually(is_there, "there is a new process, or the upgrade has failed")
        time.sleep(_TAKING_OVER * by.random())
        alive = [pid for pid in found if not is_gone(pid)]
        if alive and by.random() < 0.5:
            self._kill_successor(old, alive[0], is_over)
        elif alive:
            seconds = _LONG if by.random() < 0.1 else _MOMENT * by.random()
            self._halt_for(alive[0], seconds, "new supervisors")

    def _kill_successor(self, old: int, new: int, is_over: Callable[[], bool]) -> None:
        """Kill it, unless the old one has ended, or is about to: then nobody would be left."""
        if self._halt(old):
            time.sleep(_READ)
            if not is_over():
                send(new, signal.SIGKILL)
                self.counts["killed new supervisors"] += 1
            self._go_on(old)

    def _halt_for(self, pid: int, seconds: float, what: str) -> None:
        if self._halt(pid):
            self.counts[f"halted {what}"] += 1
            time.sleep(seconds)
            self._go_on(pid)

    def _be_replaced(self, pid: int, what: str) -> None:
        try:
            eventually(
                lambda: is_gone(pid), f"one of the {what}, {pid}, that does nothing is ended"
            )
            self.counts[f"{what} halted for good"] += 1
        finally:
            self._go_on(pid)

    def _halt(self, pid: int) -> bool:
        """Halt a process, and tell whether it does nothing any more, and has not ended; never one that is halted already."""
        with self._halting:
            if not pid or pid in self._halted:
                return False
            self._halted.add(pid)
        send(pid, signal.SIGSTOP)
        eventually(lambda: state_of(pid) in "TZX", f"process {pid} does nothing")
        if state_of(pid) == "T":
            return True
        self._halted.discard(pid)
        return False

    def _go_on(self, pid: int) -> None:
        send(pid, signal.SIGCONT)
        self._halted.discard(pid)


def _is_other(pid: int) -> bool:
    """Return whether a child of a supervisor is another process than its successor, by its command or its name."""
    with suppress(FileNotFoundError, ProcessLookupError):
        command = Path(f"/proc/{pid}/cmdline").read_text()
        return any(one in command + name_of(pid) for one in ("starter", "helper", "worker"))
    return True
