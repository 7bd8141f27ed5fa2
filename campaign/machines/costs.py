"""What a reload of one line and an upgrade cost where there is time enough: for a good client, for each process, and in memory."""

from __future__ import annotations

import threading
import time
from functools import partial

from benchmarks.children import cpu_time, proportional
from campaign.machines.changes import MORE
from campaign.report import Report
from campaign.service import Service
from campaign.trial import Trial
from tests.support.undone import Undone

_RELOADS = 3
_QUIET = 5.0
"""Seconds in which nothing is changed, to know what this machine is like."""
_MOST_WAIT, _MOST_WORKERS_CPU, _MOST_MEMORY = 0.050, 0.050, 1.3
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
            self.most = max(self.most, memory_of(self._service.family.pids()))

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()


def memory_of(pids: list[int]) -> int:
    return sum(map(proportional, pids))


def _cpu(pids: list[int]) -> float:
    return sum(map(cpu_time, pids))


def reload_costs(routes: int, report: Report, undone: Undone) -> None:
    """Reload one line, and measure; of several reloads the best counts, since other programs may have run."""
    service = Service(undone, report, 0, routes)
    service.streams.visits_each = 0.02
    service.begin(20)
    quiet = _waits(service, _QUIET)
    service.reload("the first reload, which has all to learn", MORE)
    service.settle(10.0)
    before = memory_of(service.family.pids())
    memory = _Memory(service)
    costs = []
    for number in range(_RELOADS):
        groups = [service.pid], service.workers()
        began, cpu = time.monotonic(), [*map(_cpu, groups)]
        with service.watch.paused():
            service.reload("reload of one line", MORE * (number % 2))
            wait = _waits(service, 2.0, began)
            middle, lasted = [*map(_cpu, groups)], time.monotonic() - began
            time.sleep(lasted)  # as long without a reload, since clients come all along
            own, workers = (
                2 * b - a - c for a, b, c in zip(cpu, middle, map(_cpu, groups), strict=True)
            )
        costs.append((wait, own, workers / len(groups[1])))
    memory.end()
    service.settle(10.0)
    after = memory_of(service.family.pids())
    wait, supervisor, worker = map(min, zip(*costs, strict=True))
    service.figures |= {
        "longest wait of a good client": f"{wait * 1000:.0f} ms, without a reload {quiet * 1000:.0f} ms",
        "CPU time of the supervisor": f"{supervisor:.2f} s",
        "CPU time of each worker": f"{worker * 1000:.0f} ms",
        "memory before, during, after": ", ".join(
            f"{one / 2**20:.0f} MiB" for one in (before, memory.most, after)
        ),
    }
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
    service = Service(undone, report, 0, routes)
    service.streams.visits_each = 0.02
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
    """Look on for some seconds, and return the longest that a client has waited that came meanwhile, or since then."""
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
