"""What a reload of one line and an upgrade cost where there is time enough: for a good client, for each process, and in memory."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from campaign.report import Report
from campaign.slow.changes import MORE
from campaign.slow.service import Service
from campaign.slow.trial import Trial
from campaign.slow.turns import TurnClock
from tests.support.undone import Undone

_TICKS = os.sysconf("SC_CLK_TCK")
_RELOADS = 3
_QUIET = 5.0
"""Seconds in which nothing is changed, to know what this machine is like."""
_MOST_WAIT, _MOST_WORKERS_CPU, _MOST_MEMORY = 0.050, 0.050, 1.3
_MOST_TURN = {"supervisor": 0.050, "worker": 0.010}
_MOST_CPU = {5000: 0.3, 20_000: 0.8}
"""Seconds of the supervisor's CPU time, by the number of routes."""


class _Memory:
    """The memory of all processes of a service, looked at all along; a page that several have counts in parts."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.most = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(0.1):
            self.most = max(self.most, memory_of(self._service.pids()))

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()


def memory_of(pids: list[int]) -> int:
    """Give the bytes that processes have together."""
    found = 0
    for pid in pids:
        with suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found += 1024 * sum(map(int, re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)))
    return found


def _cpu(pids: list[int]) -> float:
    found = 0.0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            found += (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def reload_costs(routes: int, report: Report, undone: Undone) -> None:
    """Reload one line, and measure; of several reloads the best counts, since other programs may have run."""
    folder = Path(tempfile.mkdtemp(prefix="txmux-turns-"))
    undone.addCleanup(shutil.rmtree, folder)
    clock = TurnClock(folder)
    undone.addCleanup(clock.end)
    service = Service(undone, report, 0, routes, before=clock.before, visits=0.02)
    service.begin(20)
    quiet = _waits(service, _QUIET)
    service.reload("the first reload, which has all to learn", MORE)
    service.settle(10.0)
    before = memory_of(service.pids())
    memory = _Memory(service)
    costs = []
    for number in range(_RELOADS):
        workers, clock_began = service.workers(), time.monotonic()
        cpu = _cpu([service.pid]), _cpu(workers)
        clock.begin()
        with service.watch.paused():
            service.reload("reload of one line", MORE * (number % 2))
            wait = _waits(service, 2.0, clock_began)
            turns, lasted = clock.longest(), time.monotonic() - clock_began
            middle = _cpu([service.pid]), _cpu(workers)
            time.sleep(lasted)  # as long without a reload, since clients come all along
            end = _cpu([service.pid]), _cpu(workers)
        own, workers_own = (2 * b - a - c for a, b, c in zip(cpu, middle, end, strict=True))
        costs.append((wait, own, workers_own / len(workers), turns))
    memory.end()
    service.settle(10.0)
    after = memory_of(service.pids())
    mib = 2**20
    supervisor = min(cost[1] for cost in costs)
    worker = min(cost[2] for cost in costs)
    wait = min(cost[0] for cost in costs)
    service.figures |= {
        "longest wait of a good client": f"{wait * 1000:.0f} ms, without a reload {quiet * 1000:.0f} ms",
        "CPU time of the supervisor": f"{supervisor:.2f} s",
        "CPU time of each worker": f"{worker * 1000:.0f} ms",
        "memory before, during, after": f"{before / mib:.0f}, {memory.most / mib:.0f}, {after / mib:.0f} MiB",
    }
    for name, most in _MOST_TURN.items():
        longest = [
            max(
                (turn for turn in cost[3].values() if turn.name == name),
                key=lambda turn: turn.cpu,
            )
            for cost in costs
        ]
        best = min(longest, key=lambda turn: turn.cpu)
        service.figures[f"longest turn of a {name}"] = str(best)
        if best.cpu > most:
            service.defects.append(f"a turn of the {name} takes {best}, not {most * 1000:.0f} ms")
    bars = (
        ("wait of a good client", wait - quiet, _MOST_WAIT),
        ("CPU time of the supervisor", supervisor, _MOST_CPU[routes]),
        ("CPU time of each worker", worker, _MOST_WORKERS_CPU),
        ("memory during a reload, to that before", memory.most / before, _MOST_MEMORY),
        ("memory after reloads, to that before", after / before, 1.05),
    )
    service.defects += [
        f"{name}: {found:.2f}, not {most:g}" for name, found, most in bars if found > most
    ]
    service.judge()


def upgrade_costs(routes: int, report: Report, undone: Undone) -> None:
    """Upgrade, and measure the longest wait of a good client meanwhile; of several upgrades the best counts."""
    service = Service(undone, report, 0, routes, visits=0.02)
    service.begin(20)
    quiet, waits = _waits(service, _QUIET), []
    for _ in range(_RELOADS):
        began = time.monotonic()
        service.upgrade()
        waits.append(_waits(service, 2.0, began))
    found = f"{', '.join(f'{wait * 1000:.0f}' for wait in waits)} ms, else {quiet * 1000:.0f} ms"
    service.figures["longest waits of a good client"] = found
    if min(waits) - quiet > _MOST_WAIT:
        service.defects.append(f"a good client waits: {found}")
    service.judge()


def _waits(service: Service, seconds: float, since: float | None = None) -> float:
    """Look on for some seconds, and give the longest that a client has waited that came meanwhile, or since then."""
    began = time.monotonic() if since is None else since
    time.sleep(seconds)
    now = time.monotonic()
    visits = [one for one in service.streams.visits if began < one.began < now - 0.5]
    return max(((one.came_at or now) - one.began for one in visits), default=0.0)


TRIALS = (
    *(
        Trial(f"reload of one line, {routes:,} routes", partial(reload_costs, routes))
        for routes in _MOST_CPU
    ),
    Trial("upgrade, 5,000 routes", partial(upgrade_costs, 5000)),
)
