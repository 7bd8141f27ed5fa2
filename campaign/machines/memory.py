"""What is done to a service in a memory group that is hardly large enough: a worker may be killed, and nothing else may be lost."""

from __future__ import annotations

import re
import time
from functools import partial
from unittest import SkipTest

from campaign.machines.changes import MORE
from campaign.report import Report
from campaign.service import PATIENCE, Service
from campaign.trial import Failure, Trial
from tests.support.limits import allow_descriptors
from tests.support.memory_group import MemoryLimit
from tests.support.undone import Undone
from txmux.cli.remote.errors import ServiceRefusedError

_CONNECTIONS = 2000
_AT_ONCE = 100
_PAUSE = 0.2
_NOT_UPGRADED = ("there is no room for a new process", "the new process was killed by the kernel")
_KILLED = (
    "the kernel has killed", "worker", "upgrade: the last upgrade failed",
)  # fmt: skip


def change(megabytes: int, workers: int, connections: int, report: Report, undone: Undone) -> None:
    """Start, have very many connections, reload, upgrade or be refused to, and take more memory than there is."""
    allow_descriptors(undone, 4 * connections + 500)
    try:
        group = MemoryLimit(megabytes)
    except SkipTest as why:
        raise Failure(str(why)) from why
    undone.addCleanup(group.end)
    service = Service(undone, report, before=group.before)
    service.streams.period = 5.0
    first = service.child.pid
    with service.watch.expecting(*_KILLED):
        service.reload(f"reload to {workers} workers", workers=workers)
        service.streams.begin(service.port, 1)
        service.streams.visit()
        for _ in range(connections // _AT_ONCE):
            service.streams.arrive(service.port, _AT_ONCE)
            time.sleep(_PAUSE)
        service.wait(
            lambda: all(one.came or one.problem for one in service.streams.streams),
            "all connections are served, or were in a worker that was killed",
            PATIENCE,
        )
        report.figures["used by all, MiB"] = str(group.used())
        service.reload("reload of one line", MORE, workers=workers)
        service.reload("reload of one line back", workers=workers)
        upgraded = _upgrade(service)
        service.settle(8.0)
        service.reload("reload at the end", MORE, workers=workers)
    report.figures |= {"upgrade": upgraded, "killed by the kernel": str(group.kills())}
    if upgraded != "done" and service.pid != first:
        report.defects.append("the supervisor has ended")
    # The supervisor counts in memory what each worker had.
    lost = re.findall(r"connections that ended with worker \d+: (\d+)", service.child.output)
    service.judge(most_cut=sum(map(int, lost)) if group.kills() else 0)


def _upgrade(service: Service) -> str:
    try:
        service.upgrade()
    except ServiceRefusedError as why:
        found = next((one for one in _NOT_UPGRADED if one in str(why)), "")
        if not found:
            service.defects.append(f"upgrade: {why}")
        return found or "failed"
    return "done"


TRIALS = tuple(
    Trial(
        f"{megabytes} MiB, {workers} workers, 2,000 connections",
        partial(change, megabytes, workers, _CONNECTIONS),
    )
    for megabytes in (96, 128, 256)
    for workers in (1, 2)
)
