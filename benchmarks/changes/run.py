"""One service through one kind of change, so often, under load."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import time
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import attrs

from benchmarks.changes.load import PATIENCE, Load
from benchmarks.changes.services import Instance
from benchmarks.children import BenchmarkError, Child, eventually, free_ports, is_listening

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.changes.services import Service

_NOT_ITS_OWN = {"timeout", "sh", "sleep", "taskset"}


@attrs.frozen
class Kind:
    """A kind of change.

    Attributes:
        key: How it is called in results.
        title: How it is called in reports.
        times: How often.
        pause: Seconds between one and the next.
        upgrade: Whether the program is replaced, and not just its rules.
        limit: Seconds that connections have in old processes; 0 if these may go on for ever.
        settling: Seconds for old processes to end that have nothing to wait for, at most.
        patience: Seconds that a short connection may take.
        at_once: Short connections that there are at a time, at most.
    """

    key: str
    title: str
    times: int
    pause: float
    upgrade: bool = False
    limit: int = 0
    settling: float = 5.0
    patience: float = PATIENCE
    at_once: float = math.inf


@attrs.frozen
class Outcome:
    """What clients and the machine noticed of it.

    Attributes:
        done: How often it was done.
        repeated: How often it had to be asked again, since nothing had happened for five seconds.
        seconds: What one took, on average, until the service had done it.
        served: Short connections.
        refused: Short connections; and so on.
        slowest: Milliseconds of the slowest short connection that was served.
        lived: Long streams that went on to the end.
        cut: Those that did not.
        lingering: Processes that there were at the end beyond those at the beginning.
        memory_before: MiB of all its processes together, with the first stream; what they share counts once.
        memory_after: The same, at the end with all streams.
    """

    done: int
    repeated: int
    seconds: float
    served: int
    refused: int
    reset: int
    timed_out: int
    wrong: int
    slowest: float
    lived: int
    cut: int
    lingering: int
    memory_before: float
    memory_after: float

    def is_unnoticed(self) -> bool:
        """Tell whether no client could notice anything."""
        return not (self.refused or self.reset or self.timed_out or self.wrong or self.cut)


def measure(service: Service, kind: Kind, folder: Path) -> Outcome:
    """Run a fresh service, change it so often, and see what the clients notice.

    A long stream begins before the first change and before each further one, as such connections come all the time; all of them should
    live to the end.

    Raises:
        BenchmarkError: The service does not start, or does not change.
    """
    load = Load(kind.patience, kind.at_once)
    try:
        with _running(service, kind, folder, load.server) as (instance, child):
            load.start(instance.values["PORT"])  # type: ignore[arg-type]
            load.stream()
            processes, before = _processes(child.pid), _memory(child.pid)
            spent, done = 0.0, 0
            for number in range(1, kind.times + 1):
                instance.write(number)
                began = time.monotonic()
                done += service.upgrade(instance) if kind.upgrade else instance.reload()
                spent += time.monotonic() - began
                time.sleep(kind.pause)
                if number < kind.times:
                    load.stream()
            with contextlib.suppress(BenchmarkError):
                eventually(
                    lambda: len(_processes(child.pid)) <= len(processes),
                    "all settle",
                    kind.settling,
                )
            after = _memory(child.pid)
            lingering = len(_processes(child.pid)) - len(processes)
            load.finish()
    finally:
        load.finish()
    return Outcome(
        done,
        instance.repeated,
        spent / done,
        load.short["served"],
        load.short["refused"],
        load.short["reset"],
        load.short["timed out"],
        load.short["wrong bytes"] + load.long["wrong bytes"],
        load.slowest * 1e3,
        load.long["lived"],
        load.long["cut"],
        lingering,
        before,
        after,
    )


@contextlib.contextmanager
def _running(
    service: Service, kind: Kind, folder: Path, server: int
) -> Iterator[tuple[Instance, Child]]:
    program = service.proxy().path()
    if program is None:
        raise BenchmarkError(f"{service.family} is not installed")
    with free_ports(1) as (port,):
        limit = service.limit if kind.limit else service.unlimited
        values: dict[str, object] = {
            "DIR": folder,
            "PORT": port,
            "SERVER": server,
            "WORKERS": service.workers,
            "LIMIT": Template(limit).substitute(SECONDS=kind.limit),
        }
        instance = Instance(service, folder, values)
        instance.write(0)
        arguments = [Template(word).substitute(values) for word in service.arguments]
        # `sleep` is still there when the first main process has given way to another, so that all of it can be ended.
        # nginx takes no upgrade while the parent lives that has started it, which is its way to tell an old process.
        command = ["sh", "-c", '("$@" & sleep 0.5); exec sleep 3600', "sh", program, *arguments]
        with Child(command, folder / "output", sorted(os.sched_getaffinity(0)), 3600) as child:
            try:
                eventually(
                    lambda: is_listening(port) and bool(instance.pid()), f"{service.title} serves"
                )
                eventually(lambda: not instance.has_parent(), "its parent has ended")
                eventually(lambda: instance.has_said(service.started), "all of it serves")
                yield instance, child
            except BenchmarkError as error:
                raise BenchmarkError(f"{error}; it said last: {child.last_words()}") from None
            finally:
                for pid in _processes(child.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def _processes(group: int) -> set[int]:
    """Give the processes of a process group that are the service's own (proc(5))."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            state, _, its_group = rest.split()[:3]
            if int(its_group) == group and state != "Z" and name not in _NOT_ITS_OWN:
                found.add(int(path.parent.name))
    return found


def _memory(group: int) -> float:
    """Give MiB; pages that several processes share count once, as a share for each (PSS)."""
    total = 0
    for pid in _processes(group):
        with contextlib.suppress(OSError):
            match = re.search(
                r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE
            )
            total += int(match[1]) if match else 0
    return total / 1024
