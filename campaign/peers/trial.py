"""One source with one hostile peer: a service, its good clients, its memory, and what it says needs attention.

A program that prints its `Outcome` as JSON, since several pairs would disturb each other in one process.
"""

from __future__ import annotations

import json
import multiprocessing
import re
import signal
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs

from campaign.logs import bad_lines
from campaign.processes import role_of
from campaign.report import Report
from campaign.service import Service
from campaign.trial import Failure
from tests.support.folders import make_folder
from tests.support.hostile import Dialect, HostilePeer, spoil
from tests.support.sources import ROWS, Stage, visit
from tests.support.undone import Undone
from txmux.errors import MuxError

SECONDS = 75.0
_PERIOD = 0.02
"""Seconds from one good client to the next."""
_ANSWERS = 10.0
"""Seconds after which a good client counts as not served."""
_LOOKS = 0.25
_MIB = 1 << 20


@attrs.define
class Outcome:
    """What came of it; times are seconds."""

    source: str
    way: str
    growth: tuple[float, float] = (
        0.0,
        0.0,
    )  # MiB of the supervisor, and of the worker that took most
    line: float | None = None  # until the first line in the log
    lines: int = 0
    attention: float | None = None  # until ``attention`` had something more
    down: float | None = None  # until a source was not up
    p99: tuple[float, float] = (0.0, 0.0)  # of good clients, in ms: before, and meanwhile
    failed: int = 0  # good clients
    sent: float = 0.0  # MiB of the peer
    recovered: float | None = None  # until all was well after the peer became good
    defects: list[str] = attrs.field(factory=list)


def attempt_pair(source: str, way: str, seconds: float, recovery: float) -> Outcome:
    trial = _Trial(source, way, seconds)
    try:
        with Undone() as undone:
            trial.run(undone, recovery)
    except (Failure, AssertionError, OSError, MuxError) as problem:
        trial.outcome.defects.append(f"{type(problem).__name__}: {problem}"[-2000:])
    return trial.outcome


def _play(pipe: Connection, dialect: Dialect, way: str, stage: Stage) -> None:
    with HostilePeer(dialect, way, stage.good, context=stage.context) as peer:
        pipe.send(peer.port)
        with suppress(EOFError):
            while True:
                peer.turn(pipe.recv())
                pipe.send(peer.sent)


class _Trial:
    def __init__(self, source: str, way: str, seconds: float) -> None:
        self._row, self._way = ROWS[source], way
        self._seconds = min(seconds, self._row.seconds)
        self.outcome = Outcome(source, way)

    def run(self, undone: Undone, recovery: float) -> None:
        outcome = self.outcome
        stage = self._row.prepare(undone, make_folder(undone))
        port, turn = self._prepare(undone, stage)
        self._service = service = Service(
            undone,
            Report(),
            settings=f"access_log = off\n{stage.settings}".replace("PORT", str(port)),
            rules=lambda server, _: stage.sections_for(port, server),
        )
        service.streams.visits_each = _PERIOD
        service.begin(0)
        if stage.visits is not None:
            visit(undone, service.ports.get("limited", service.port), *stage.visits)
        time.sleep(stage.later)
        before, _ = self._visits(0.0)
        sizes = {pid: _reset_peak(pid) for pid in service.family.pids()}
        known, start = self._texts(), len(service.child.output)
        began = time.monotonic()
        turn(self._way)
        self._look_on(start, known, began)
        meanwhile, outcome.failed = self._visits(began)
        outcome.p99 = (before, meanwhile)
        growth = {pid: (_peak(pid) - size) / _MIB for pid, size in sizes.items()}
        of_role = {
            role: max((size for pid, size in growth.items() if role_of(pid) == role), default=0.0)
            for role in ("supervisor", "worker")
        }
        outcome.growth = (round(of_role["supervisor"], 1), round(of_role["worker"], 1))
        outcome.sent = round((turn("") or 0) / _MIB, 1)
        self._await_recovery(known, recovery)
        outcome.defects += bad_lines(service.child.output)

    def _prepare(self, undone: Undone, stage: Stage) -> tuple[int, Callable[[str], int]]:
        """Start the peer, and return its port, and what turns it and returns how many bytes it has sent."""
        if self._row.dialect is None:
            assert stage.file is not None
            return 0, partial(_turn_file, stage.file, stage.file.read_bytes())
        # A process of its own: endless peers keep a core busy.
        context = multiprocessing.get_context("fork")
        pipe, others = context.Pipe()
        way = "" if stage.later else self._way
        peer = context.Process(
            target=_play, args=(others, self._row.dialect, way, stage), daemon=True
        )
        peer.start()
        undone.addCleanup(peer.join)
        undone.addCleanup(peer.kill)

        def turn(way: str) -> int:
            pipe.send(way)
            return int(pipe.recv())

        return int(pipe.recv()), turn

    def _visits(self, since: float) -> tuple[float, int]:
        """Return the 99th percentile of good clients since then, in ms, and how many were not served."""
        now = time.monotonic()
        found = [one for one in [*self._service.streams.visits] if one.began >= since]
        times = [one.came_at - one.began for one in found if one.came]
        failed = [
            one for one in found if not one.came and (one.problem or one.began < now - _ANSWERS)
        ]
        p99 = statistics.quantiles(times, n=100)[-1] * 1000 if len(times) > 1 else 0.0
        return round(p99, 1), len(failed)

    def _look_on(self, start: int, known: list[str], began: float) -> None:
        outcome, child = self.outcome, self._service.child
        while (now := round(time.monotonic() - began, 1)) < self._seconds:
            if outcome.line is None and len(child.output) > start:
                outcome.line = now
            status = self._status()
            if outcome.attention is None and {*_texts(status)} - {*known}:
                outcome.attention = now
            if outcome.down is None and not _are_up(status):
                outcome.down = now
            time.sleep(_LOOKS)
        outcome.lines = len(child.output[start:].splitlines())

    def _await_recovery(self, known: list[str], seconds: float) -> None:
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            status = self._status()
            if status and _are_up(status) and not {*_texts(status)} - {*known}:
                self.outcome.recovered = round(now, 1)
                return
            time.sleep(_LOOKS)

    def _texts(self) -> list[str]:
        return _texts(self._status())

    def _status(self) -> dict[str, Any]:
        with suppress(MuxError):
            found: dict[str, Any] = self._service.watch.get("/api/status")
            return found
        return {}


def _texts(status: dict[str, Any]) -> list[str]:
    return [f"{one['what']}: {one['text']}" for one in status.get("attention", ())]


def _are_up(status: dict[str, Any]) -> bool:
    return all(one["up"] for one in status.get("sources", ()))


def _turn_file(file: Path, content: bytes, way: str) -> int:
    if way:
        spoil(file, way)
    else:
        if file.is_dir():
            file.rmdir()
        new = file.with_suffix(".again")
        new.write_bytes(content)
        new.rename(file)
    return 0


def _reset_peak(pid: int) -> int:
    with suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5)
    return _peak(pid)


def _peak(pid: int) -> int:
    with suppress(OSError):
        match = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        return int(match[1]) * 1024 if match else 0
    return 0


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _, source, way, seconds, recovery = sys.argv
    outcome = attempt_pair(source, way, float(seconds), float(recovery))
    sys.stdout.write(json.dumps(attrs.asdict(outcome)))


if __name__ == "__main__":
    main()
