"""One change of a service with live streams, in which one process is struck."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import attrs

from campaign.deaths.moments import (
    ANY,
    HALTED,
    HELPER,
    KILLED,
    MORE,
    RELOAD,
    RESUMED,
    UPGRADE,
    Strike,
)
from campaign.logs import bad_lines
from campaign.processes import parent_of, role_of, send, state_of, streams_in
from campaign.report import Report
from campaign.service import LOG, Service
from tests.interop.children import Child, eventually
from tests.support.folders import make_folder
from tests.support.undone import Undone

_PATHS = (Path(__file__).with_name("hook"), Path(__file__).parents[2])
_REPLACED = {KILLED: 0, HALTED: 25, RESUMED: 25}
"""Seconds until a process is replaced: one that is halted after ten, and moving may wait for it before."""
_MOMENT = 25.0  # seconds until the moment has come, or does not come
_RESUMES = 4.0
"""Seconds that a process is halted for a while."""
_SERVED = {KILLED: 5.0, HALTED: 20.0, RESUMED: 20.0}
"""Seconds in which new clients have to be served again."""
HANGS = 5.0
"""Seconds after which a block is not expected any more; longer than any pause."""
_LASTS = 30.0
"""Seconds after which what has not come is taken to be lost for good."""
_SETTLED = 1.0
_COMMAND = 75.0


@attrs.define
class Outcome:
    strike: Strike
    has_come: bool = False  # its moment
    its: int = 0  # streams in the process that was struck
    lost: int = 0  # of the others
    hung: int = 0  # of the others, those that carried nothing any more
    served: float = 0.0  # after how many seconds a new client was served
    paused: float = 0.0  # the longest that one of the others carried nothing, in seconds
    command: str = ""  # what the command that asked for the change said
    defects: list[str] = attrs.field(factory=list)
    log: str = ""

    def __str__(self) -> str:
        what = f"{self.its} streams were its, {self.lost} others lost, {self.hung} hang, pause {self.paused:.1f} s, served after {self.served:.1f} s"
        return f"{self.strike}: {what if self.has_come else 'that moment did not come'}; {self.command}"


class Trial:
    def __init__(self, strike: Strike, count: int, hangs: float = HANGS) -> None:
        self._strike, self._count, self._hangs = strike, count, hangs
        self._drain = _REPLACED.get(strike.how, 0) + math.ceil(hangs)
        self.outcome = Outcome(strike)
        self._its: set[int] = set()
        self._victim = 0

    def run(self) -> Outcome:
        with Undone() as undone:
            armed = f"{make_folder(undone)}/armed"
            path = os.pathsep.join(
                [*map(str, _PATHS), *filter(None, [os.environ.get("PYTHONPATH")])]
            )
            user = "user = nobody\n" * (self._strike.victim == HELPER)
            self._service = service = Service(
                undone,
                Report(),
                routes=0,
                settings=f"{user}drain_timeout = {self._drain}s\n{LOG}",
                before=(
                    *("env", f"PYTHONPATH={path}"),
                    f"TXMUX_MOMENT={self._strike.moment.environment},{armed}",
                ),
            )
            self._armed = Path(armed)
            self._streams = service.streams
            try:
                service.begin(self._count)
                self._change()
            finally:
                self.outcome.log = service.child.output
            self.outcome.defects += bad_lines(service.child.output)
        return self.outcome

    def _change(self) -> None:
        self._service.family.change_begins()
        self._armed.touch()
        began = time.monotonic()
        command = self._ask()
        struck = self._wait_for_moment(command)
        if struck is None:
            self.outcome.command = f"status {command.wait()}, {command.output.strip()}"
            return
        self.outcome.has_come = True
        self._observe(struck, struck + _RESUMES if self._strike.how == RESUMED else None)
        self._judge(struck)
        self._judge_command(command, began)

    def _ask(self) -> Child:
        verb = "reload"
        if self._strike.change == UPGRADE:
            verb = "upgrade"
        elif self._strike.change == RELOAD:
            self._service.write("\n[route more]\nmatch = ssh\nbackend = close\n")
        else:
            self._service.write(workers=3 if self._strike.change == MORE else 1)
        admin = ("--admin", f"unix:{self._service.folder}/admin.sock")
        return Child(sys.executable, "-m", "txmux", verb, *admin)

    def _wait_for_moment(self, command: Child) -> float | None:
        """Strike when the moment has come, and give the time; ``None`` if it does not come."""
        until = time.monotonic() + _MOMENT
        least = 1 if self._strike.moment is ANY else 3
        while time.monotonic() < until:
            for pid in self._service.family.pids():
                if state_of(pid) == "T":
                    return self._hit(pid)
            if command.process.poll() is not None:
                until = min(until, time.monotonic() + least)
            time.sleep(0.002)
        return None

    def _hit(self, at: int) -> float | None:
        """Strike the victim while the process at the moment is halted."""
        of_role = self._service.family.called(self._strike.victim)
        has = streams_in(of_role, self._service.port)
        victims = [at] if at in of_role else sorted(of_role, key=lambda pid: -len(has[pid]))
        if not victims:
            send(at, signal.SIGCONT)
            return None
        self._victim = victim = victims[0]
        send(victim, signal.SIGSTOP)
        eventually(lambda: state_of(victim) in "TZX", "it halts")
        self._its = streams_in([victim], self._service.port)[victim]
        struck = time.monotonic()
        if self._strike.how == KILLED:
            send(victim, signal.SIGKILL)
        if at != victim:
            send(at, signal.SIGCONT)
        return struck

    def _observe(self, struck: float, resumes: float | None) -> None:
        """Look on until all that is under way has been done, and longer than connections may drain."""
        until = struck + self._drain + self._hangs + 2
        settled = None
        while (now := time.monotonic()) < until:
            if resumes is not None and now > resumes:
                send(self._victim, signal.SIGCONT)
            for pid in self._service.family.pids():
                if state_of(pid) == "T" and pid != self._victim:
                    send(pid, signal.SIGCONT)  # it is at the same moment
            if resumes is None or now > resumes:
                settled = (settled or now) if self._is_settled(struck) else None
                least = struck + self._hangs * (1 if self._strike.how == KILLED else 2)
                if settled and now > max(least, settled + _SETTLED):
                    return
            time.sleep(0.05)

    def _is_settled(self, struck: float) -> bool:
        """Tell whether all streams are in workers of the supervisor that serves."""
        serving = self._service.pid
        pids = [
            pid for pid in self._service.family.pids() if role_of(pid) in {"worker", "supervisor"}
        ]
        if serving not in pids or state_of(serving) == "T":
            return False
        has = streams_in(pids, self._service.port)
        known = {one.port for one in self._streams.streams}
        return all(
            not ports & known or pid == self._victim or serving in _ancestors(pid)
            for pid, ports in has.items()
        ) and any(one.began > struck and one.came for one in self._streams.visits)

    def _judge(self, struck: float) -> None:
        now, outcome = time.monotonic(), self.outcome
        others = [one for one in self._streams.streams if one.port not in self._its]
        outcome.its = len(self._streams.streams) - len(others)
        # What a busy machine delays comes yet: of those that hang, nothing.
        self._await(lambda: all(one.problem or one.came_at > now - self._hangs for one in others))
        lost = [one for one in others if one.problem]
        hung = [one for one in others if not one.problem and one.came_at < now - self._hangs]
        outcome.lost, outcome.hung = len(lost), len(hung)
        outcome.paused = max((one.longest for one in others), default=0.0)
        if lost or hung:
            told = {one.problem for one in lost[:3]}
            outcome.defects.append(
                f"{len(lost)} streams lost {told}, {len(hung)} hang, of {len(others)} others"
            )
        is_last = self._is_last()
        if not is_last and not self._await(lambda: any(self._served_since(now))):
            outcome.defects.append("new clients are not served in the end")
        outcome.served = min(self._served_since(struck), default=float("inf")) - struck
        most = _SERVED[self._strike.how]
        if not is_last and outcome.served > most:
            outcome.defects.append(f"no new client was served within {most:g} s")

    def _served_since(self, began: float) -> list[float]:
        """Give when new clients that came since then have been served."""
        return [one.came_at for one in self._streams.visits if one.began > began and one.came]

    def _await(self, condition: Callable[[], bool]) -> bool:
        with suppress(AssertionError):
            eventually(condition, "", _LASTS)
        return condition()

    def _is_last(self) -> bool:
        """Tell whether no supervisor is left: then new clients wait for one that the service's manager starts."""
        strike = self._strike
        return (strike.victim, strike.how) == (
            "old supervisor",
            KILLED,
        ) and strike.change != UPGRADE

    def _judge_command(self, command: Child, began: float) -> None:
        send(self._victim, signal.SIGCONT)
        with suppress(Exception):
            command.process.wait(max(1, began + _COMMAND - time.monotonic()))
        status = command.process.poll()
        self.outcome.command = f"status {status}, {command.output.strip()}"
        if "Traceback" in command.output:
            self.outcome.defects.append(f"the command says {command.output}")
        command.end()


def _ancestors(pid: int) -> list[int]:
    found = [pid]
    while pid > 1:
        pid = parent_of(pid)
        found.append(pid)
    return found
