"""What is done to a service with a share of a core: it must not be taken for dead, and nobody be cut off."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from functools import partial

from campaign.report import Report
from campaign.service import PATIENCE, Service
from campaign.trial import Trial
from tests.support.limits import allow_descriptors
from tests.support.undone import Undone

MORE = "\n[route more]\nmatch = ssh\nbackend = close\n"
_STREAMS = 60
_HELD = 2000
_AT_ONCE = 50
"""Clients that come at once: less than a queue of waiting clients holds."""
_PAUSE = 0.25


def change(percent: int, routes: int, report: Report, undone: Undone) -> None:
    """Start, reload one line and take it back, upgrade, and have one more worker for a while."""
    service = Service(undone, report, percent, routes)
    service.begin(_STREAMS)
    service.reload("reload of one line", MORE)
    service.reload("reload of one line back")
    service.try_to_upgrade()
    service.reload("2 to 3 workers", workers=3)
    service.reload("3 to 2 workers")
    service.settle()
    service.judge()


def strike(
    percent: int, role: str, how: str, seconds: float, report: Report, undone: Undone
) -> None:
    """Kill a process, or halt it for some seconds; then reload, since there may be something that no longer can."""
    service = Service(undone, report, percent)
    service.begin(_STREAMS)
    with service.watch.expecting(role, "no worker" if role == "worker" else role):
        service.strike(role, how, seconds)
        service.settle(5.0)
    if (role, how) != ("helper", "killed"):  # there is no reload without it
        service.reload("reload afterwards", MORE)
    service.judge()


def lose_supervisor(percent: int, report: Report, undone: Undone) -> None:
    """Kill the supervisor: streams go on in workers that accept nobody any more, and end after their last stream."""
    service = Service(undone, report, percent)
    service.begin(_STREAMS, visits=False)
    workers = service.workers()
    os.kill(service.pid, signal.SIGKILL)
    service.wait(lambda: not service.supervisors, "the supervisor has ended")
    service.settle(10.0)
    if service.workers() != workers:
        service.defects.append(
            f"of the workers {workers} with streams {service.workers()} are left"
        )
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", service.port)):
        service.defects.append("workers without a supervisor still accept clients")
    service.judge()
    service.streams.leave()
    service.wait_for_end()


def hold(percent: int, report: Report, undone: Undone) -> None:
    """Very many clients wait for a backend that an operator holds, through an upgrade; each is served after it is released."""
    allow_descriptors(undone, 4 * _HELD)
    service = Service(undone, report, percent)
    service.streams.visits_each = 1.0
    service.begin(_STREAMS)
    with service.watch.expecting(
        "hold: backend echo: held by an operator", "hold: backend echo: .* wait"
    ):
        service.watch.post("/api/backends/echo/hold", {})
        clients = []
        for _ in range(_HELD // _AT_ONCE):
            clients += service.streams.arrive(service.port, _AT_ONCE)
            time.sleep(_PAUSE)
        service.wait(lambda: service.held() >= _HELD, "all wait")
        service.upgrade("upgrade with held clients")
        service.wait(lambda: service.held() >= _HELD, "all wait after the upgrade")
        began = time.monotonic()
        service.watch.post("/api/backends/echo/release", {})
        service.wait(lambda: all(one.came or one.problem for one in clients), "all are served")
    service.figures["all held clients served after"] = f"{time.monotonic() - began:.1f} s"
    service.settle()
    service.judge()


def many_changes(report: Report, undone: Undone) -> None:
    """Thousands of connections come while rules are reloaded 58 times and the service is upgraded four times."""
    service = Service(undone, report)
    service.streams.visits_each = 0.01
    service.begin(4 * _STREAMS)
    for number in range(58):
        service.reload("one of 58 reloads", MORE * (number % 2))
        if number % 15 == 7:
            service.upgrade("one of 4 upgrades")
    service.settle()
    service.judge()


def idle_streams(report: Report, undone: Undone) -> None:
    """Three thousand streams that seldom carry something, through two upgrades."""
    allow_descriptors(undone, 10_000)
    service = Service(undone, report)
    service.streams.period = 10.0
    for _ in range(10):
        service.streams.begin(service.port, 300, PATIENCE)
    service.streams.visit()
    for number in (1, 2):
        service.upgrade(f"upgrade {number} with 3,000 streams")
    service.settle(12.0)
    service.judge()


def at_once(report: Report, undone: Undone) -> None:
    """Two upgrades are asked for at once, and then very many reloads."""
    service = Service(undone, report)
    service.begin(_STREAMS)
    old = service.pid
    for _ in range(2):
        os.kill(old, signal.SIGUSR2)
    service.wait(lambda: service.pid != old, "another process serves")
    service.wait_for_answer()
    for _ in range(300):
        os.kill(service.pid, signal.SIGHUP)
        time.sleep(0.005)
    service.wait_for_answer()
    service.reload("reload after 300 HUPs", MORE)
    service.settle(5.0)
    service.judge()


_QUOTAS = (20, 10, 4)
_ROUTES = (30, 3000, 20_000)
_ROLES = ("worker", "starter", "helper")
_HOW = {"killed": ("killed", 0.0), "halted for 4 s": ("halted", 4.0)}
"""What befalls a process, and for how long; a worker that is halted for half a minute is replaced."""

TRIALS = (
    *(
        Trial(f"{percent} % of a core, {routes:,} routes", partial(change, percent, routes))
        for routes in _ROUTES
        for percent in _QUOTAS
    ),
    *(
        Trial(f"{percent} % of a core, {role} {name}", partial(strike, percent, role, *how))
        for percent in _QUOTAS
        for role in _ROLES
        for name, how in _HOW.items()
    ),
    *(
        Trial(f"{percent} % of a core, worker halted for 30 s", partial(strike, percent, "worker", "halted", 30.0))
        for percent in _QUOTAS
    ),
    *(
        Trial(f"{percent} % of a core, supervisor killed", partial(lose_supervisor, percent))
        for percent in _QUOTAS
    ),
    *(Trial(f"{percent} % of a core, 2,000 held clients", partial(hold, percent)) for percent in _QUOTAS),
    Trial("58 reloads and 4 upgrades", many_changes),
    Trial("3,000 idle streams", idle_streams),
    Trial("two upgrades at once, and 300 HUPs", at_once),
)  # fmt: skip
