"""A service under attack, with streams through it, new clients all along, and a look at what it says."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from campaign.logs import bad_lines
from campaign.machines.quota import Quota
from campaign.processes import Family, parent_of, send, state_of, streams_in
from campaign.report import Report
from campaign.streams import Streams
from campaign.trial import Failure
from campaign.watch import Watch
from tests.interop.children import Child
from tests.support.proc import halted, is_gone, name_of
from tests.support.undone import Cleans
from txmux.cli.remote.errors import ServiceRefusedError

PATIENCE = 1800.0
"""Seconds in which anything has to be done, with a twentieth of a core, beside other work of this machine."""
_WHOLE = 300.0
"""Seconds in which a process has to be replaced: the imports alone take one with a twentieth of a core twenty."""
_HANGS = 30.0
"""Seconds after which a stream that carries nothing hangs."""

_RULES = """
[listen public]
endpoint = 127.0.0.1:0

[route all]
match = payload text=E
backend = echo

[backend echo]
server = 127.0.0.1:{server}
hold_limit = 10000
{routes}
"""
_ROUTE = """
[route r{n}]
match = tls sni=h{n}.example.com
backend = 127.0.0.1:{port}
"""
_SETTINGS = """[txmux]
workers = 2
relay = kernel
admin = unix:{folder}/admin.sock
{more}
"""
LOG = "access_log = {folder}/access.log"


def plain_rules(server: int, routes: int) -> str:
    """Return sections that lead streams to their server, and routes that nobody takes."""
    more = (_ROUTE.format(n=n, port=1024 + n % 60_000) for n in range(routes))
    return _RULES.format(server=server, routes="".join(more))


class Service:
    """A service from its start to its end; what breaks is collected.

    Args:
        undone: Cleans up.
        report: Gets what was measured, and what broke.
        percent: Of a core that it has; 0 is no quota.
        routes: How many there are.
        settings: More lines of ``[txmux]``, with ``{folder}``.
        rules: Returns all other sections for the port of the streams' server, and the number of routes.
        before: A command that runs the rest of its arguments as a command, beside the one of the quota.

    Attributes:
        struck: Processes that the trial has killed or halted.
    """

    def __init__(
        self,
        undone: Cleans,
        report: Report,
        percent: int = 0,
        routes: int = 30,
        *,
        settings: str = f"user = nobody\ndrain_timeout = 20s\n{LOG}",
        rules: Callable[[int, int], str] = plain_rules,
        before: tuple[str, ...] = (),
    ) -> None:
        self.defects, self.figures = report.defects, report.figures
        self.struck: set[int] = set()
        self._lost: set[int] = set()
        folder = Path(tempfile.mkdtemp(prefix="txmux-campaign-"))
        undone.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        self.folder = folder
        self.quota = Quota(percent)
        undone.addCleanup(self.quota.end)
        self.streams = Streams()
        undone.addCleanup(self.streams.end)
        self.rules, self._pidfile = folder / "rules.ini", folder / "pid"
        self._sections = rules(self.streams.server, routes)
        self._settings = _SETTINGS.format(folder=folder, more=settings.format(folder=folder))
        self.write()
        command = ("setsid", *before, *self.quota.before, sys.executable, "-m", "txmux", "run")
        began = time.monotonic()
        self.child = Child(*command, "--pidfile", self._pidfile, self.rules)
        self.family = Family(self.child.pid)
        undone.addCleanup(self._kill_all)
        self.watch = Watch(folder / "admin.sock")
        undone.addCleanup(self.watch.end)
        self.wait(lambda: "serving with " in self.child.output, "it serves")
        self.figures["start"] = f"{time.monotonic() - began:.1f} s"
        found = re.findall(r"listening on \S+:(\d+) for \[listen (\S+)\]", self.child.output)
        self.ports = {name: int(port) for port, name in found}
        self.port = self.ports["public"]

    # What it is.

    @property
    def pid(self) -> int:
        """The supervisor that serves."""
        return int(self._pidfile.read_text())

    def workers(self) -> list[int]:
        return self.family.called("worker")

    def called(self, name: str) -> int:
        """Return a process of the present supervisor: ``starter``, ``helper`` or ``worker``."""
        if name == "worker":
            return self.workers()[0]
        [found] = [
            pid
            for pid in self.family.pids()
            if name_of(pid) == f"txmux: {name}" and parent_of(pid) == self.pid
        ]
        return found

    @property
    def supervisors(self) -> list[int]:
        return self.family.called("supervisor")

    def write(self, more: str = "", **settings: object) -> None:
        head = self._settings
        for name, value in settings.items():
            head = re.sub(rf"(?m)^{name} = .*", f"{name} = {value}", head)
        new = self.rules.with_suffix(".new")
        new.write_text(f"{head}{self._sections}{more}")
        new.replace(self.rules)

    # What is done with it.

    def begin(self, streams: int, *, visits: bool = True) -> None:
        """Begin streams, half of them in each worker, and have new clients come from now on, if there are to be `visits`."""
        workers = self.workers()
        for worker in workers:
            with halted({*workers} - {worker}):
                self.streams.begin(self.port, streams // len(workers), PATIENCE)
        if visits:
            self.streams.visit()

    def reload(self, name: str, more: str = "", **settings: object) -> float:
        """Reload with one change, and return the seconds that it took."""
        with self.watch.expecting("rules: .* files have changed", after=1.0):
            self.write(more, **settings)
            try:
                return self._ask(name, "/api/reload")
            except ServiceRefusedError as problem:
                self.defects.append(f"{name}: {problem}")
                return math.inf

    def upgrade(self, name: str = "upgrade") -> float:
        """Upgrade, and return the seconds that it took; `ServiceRefusedError` if it is refused."""
        old = self.pid
        took = self._ask(name, "/api/upgrade")
        self.wait(lambda: self.pid != old, "the new process has the PID file")
        self.wait(lambda: is_gone(old), "the old process has ended")
        return took

    def try_to_upgrade(self, name: str = "upgrade") -> None:
        """Upgrade; that it is refused is a defect, after which the trial goes on."""
        try:
            self.upgrade(name)
        except ServiceRefusedError as problem:
            self.defects.append(f"{name}: {problem}")

    def _ask(self, name: str, path: str) -> float:
        began = time.monotonic()
        answer = self.watch.post(path, {})
        took = time.monotonic() - began
        self.figures[name] = f"{took:.1f} s"
        if not answer.get("ok"):
            self.defects.append(f"{name}: {answer}")
        return took

    def held(self) -> int:
        rows = self.watch.get("/api/backends")
        return sum(row["held"] for row in rows if row["name"] == "echo")

    def wait_for_answer(self) -> None:
        """Wait until nothing is under way: all workers of one supervisor serve, and it says so."""
        self.wait(
            lambda: len(self.supervisors) == 1 and bool(self.watch.get("/api/status")["workers"]),
            "one service answers",
        )

    def forget(self, victim: int) -> set[int]:
        """Expect no more of the streams of a process, and return them."""
        self.struck.add(victim)
        its = streams_in([victim], self.port)[victim]
        self._lost |= its
        return its

    def strike(self, role: str, how: str, seconds: float = 0.0) -> None:
        """Kill a process, or halt it for some seconds; its streams may be lost if it ends."""
        victim = self.called(role)
        its = self.forget(victim)
        if how == "killed":
            os.kill(victim, signal.SIGKILL)
        else:
            os.kill(victim, signal.SIGSTOP)
            time.sleep(seconds)
            send(victim, signal.SIGCONT)
        self.wait(
            lambda: state_of(victim) in "ZX" if how == "killed" else True, f"the {role} is {how}"
        )
        if not is_gone(victim):
            self._lost -= its
        if (role, how) != ("helper", "killed"):  # which is not replaced, as documented
            self.wait(self.is_whole, "all processes are there", _WHOLE)

    def is_whole(self) -> bool:
        """Return whether there is each process that a service has."""
        with suppress(ValueError, OSError):
            return len(self.workers()) >= 2 and bool(
                self.called("starter") and self.called("helper")
            )
        return False

    def settle(self, seconds: float = 3.0) -> None:
        time.sleep(seconds)  # what comes late is seen, too

    # How it is judged.

    def judge(self, most_cut: int = 0) -> None:
        """Find what broke: streams, clients, processes that ran and were killed, false items, bad lines of the log.

        `most_cut` streams and clients were in workers that the kernel has killed.
        """
        now = time.monotonic()
        streams = [one for one in self.streams.streams if one.port not in self._lost]
        cut = [one.problem for one in streams if one.problem]
        hung = [one for one in streams if not one.problem and one.came_at < now - _HANGS]
        visits = [
            one
            for one in self.streams.visits
            if one.began < now - _HANGS or one.came or one.problem
        ]
        failed = [one.problem or "no answer" for one in visits if not one.came]
        waits = [one.came_at - one.began for one in visits if one.came]
        killed = re.findall(r".*it is killed.*", self.child.output)
        self.figures |= {
            "streams, cut, hanging": f"{len(streams)}, {len(cut)}, {len(hung)}",
            "new clients, not served": f"{len(visits)}, {len(failed)}",
            "longest wait of a new client": f"{max(waits, default=0.0):.2f} s",
            "longest pause of a stream": f"{max((one.longest for one in streams), default=0):.2f} s",
            "longest answer of the status": f"{self.watch.longest:.2f} s",
            "status --check": ", ".join(
                f"{code}: {count} times" for code, count in sorted(self.watch.codes.items())
            ),
        }
        if hung or len(cut) > most_cut:
            self.defects.append(f"{len(cut)} streams cut {set(cut[:3])}, {len(hung)} hang")
        if len(failed) > max(0, most_cut - len(cut)):
            self.defects.append(f"{len(failed)} new clients not served: {set(failed[:3])}")
        if len(killed) > len(self.struck):
            self.defects += [f"it was alive: {line.strip()}" for line in killed]
        self.defects += [f"false item {item}" for item in self.watch.false_items()]
        self.defects += bad_lines(self.child.output)

    def wait(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Wait for something; the trial ends if the service does before."""
        until = time.monotonic() + patience
        while not condition():
            if self.child.process.poll() is not None and not self.family.pids():
                raise Failure(f"{what}: the service has ended:\n{self.child.output[-2000:]}")
            if time.monotonic() > until:
                raise Failure(f"{what}: not within {patience:g} s")
            time.sleep(0.02)

    def wait_for_end(self) -> None:
        """Wait until no process of it is left."""
        until = time.monotonic() + _WHOLE
        while (left := self.family.pids()) and time.monotonic() < until:
            time.sleep(0.1)
        if left:
            names = ", ".join(f"{name_of(pid)} ({pid})" for pid in left)
            self.defects.append(f"these never end: {names}")

    def _kill_all(self) -> None:
        self.family.kill()
        self.child.wait()
