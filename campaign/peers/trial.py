"""One source with one hostile peer: ``python -m campaign.peers.trial SOURCE WAY`` runs a service for it and prints what came of it as JSON."""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import re
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import attrs

from benchmarks.children import descendants, name_of
from campaign.logs import bad_lines
from campaign.peers.rows import ROWS, Stage, visit
from tests.interop.children import Child
from tests.support.hostile import Dialect, HostilePeer, spoil
from tests.support.undone import Undone

SECONDS = 75.0
_PERIOD = 0.02
"""Seconds from one good client to the next."""
_LOOKS = 0.25
_MIB = 1 << 20


@attrs.define
class Outcome:
    """What came of it.

    Attributes:
        growth: MiB that the supervisor took at most, and the worker that took most.
        line: Seconds until the first line in the log, if there was one.
        lines: How many there were.
        attention: Seconds until ``attention`` had something more.
        down: Seconds until a source was not up.
        p99: Of good clients, in ms: before, and meanwhile.
        failed: Good clients that were not served.
        sent: MiB that the peer has sent.
        recovered: Seconds until all was well after the peer became good.
        texts: The first lines, and what ``attention`` said.
        defects: Critical lines and tracebacks.
    """

    source: str
    way: str
    growth: tuple[float, float] = (0.0, 0.0)
    line: float | None = None
    lines: int = 0
    attention: float | None = None
    down: float | None = None
    p99: tuple[float, float] = (0.0, 0.0)
    failed: int = 0
    sent: float = 0.0
    recovered: float | None = None
    texts: list[str] = attrs.field(factory=list)
    defects: list[str] = attrs.field(factory=list)


class GoodClients:
    """Connect one after another, and each gets back what it sends: in threads."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.server: int = self._listening.getsockname()[1]
        self.port = 0
        self._times: list[float] = []
        self.failed = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._serve), threading.Thread(target=self._visit)]

    def begin(self, port: int) -> None:
        self.port = port
        for thread in self._threads:
            thread.start()

    def take(self) -> float:
        """Return the 99th percentile since the last time, in ms."""
        times, self._times = self._times, []
        return statistics.quantiles(times, n=100)[-1] * 1000 if len(times) > 1 else 0.0

    def end(self) -> None:
        self._over.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            with suppress(OSError):
                end, _ = self._listening.accept()
                with end:
                    end.settimeout(10)
                    end.sendall(end.recv(100))
                    end.recv(1)

    def _visit(self) -> None:
        while not self._over.wait(_PERIOD):
            began = time.monotonic()
            try:
                with socket.create_connection(("127.0.0.1", self.port), 10) as client:
                    client.sendall(b"GOOD")
                    is_served = client.recv(100) == b"GOOD"
            except OSError:
                is_served = False
            self._times.append(time.monotonic() - began)
            self.failed += not is_served


def _play(pipe: Connection, dialect: Dialect, way: str, stage: Stage) -> None:
    with HostilePeer(dialect, way, stage.good, context=stage.context) as peer:
        pipe.send(peer.port)
        with suppress(EOFError):
            while True:
                peer.turn(pipe.recv())
                pipe.send(peer.sent)


class Trial:
    def __init__(self, source: str, way: str, program: list[str], seconds: float) -> None:
        self._row, self._way, self._program = ROWS[source], way, program
        self._seconds = min(seconds, self._row.seconds)
        self.outcome = Outcome(source, way)

    def run(self, recovery: float) -> Outcome:
        with Undone() as undone, tempfile.TemporaryDirectory(prefix="txmux-peers-") as made:
            self._folder = folder = Path(made)
            stage = self._row.prepare(undone, folder)
            turn = self._prepare(undone, stage)
            clients = GoodClients()
            undone.addCleanup(clients.end)
            file = folder / "rules.ini"
            settings = f"admin = unix:{folder}/admin.sock\naccess_log = off\nworkers = 2\n"
            file.write_text(stage.rules(self._port, clients.server, settings))
            child = Child(*self._program, "run", file)
            undone.addCleanup(child.end)
            child.wait_for("serving with ")
            found = re.findall(r"listening on \S+:(\d+) for \[listen (\S+)\]", child.output)
            ports = {name: int(port) for port, name in found}
            clients.begin(ports["public"])
            if stage.visits is not None:
                visit(undone, ports.get("limited", clients.port), *stage.visits)
            time.sleep(stage.later)
            before = clients.take()
            clients.failed = 0
            pids = {pid: name_of(pid) for pid in descendants(child.pid) | {child.pid}}
            sizes = {pid: _reset_peak(pid) for pid in pids}
            known, start = self._attention(), len(child.output)
            began = time.monotonic()
            turn(self._way)
            self._look_on(child, start, known, began)
            self.outcome.p99 = (round(before, 1), round(clients.take(), 1))
            self.outcome.failed = clients.failed
            growth = {pid: (_peak(pid) - size) / _MIB for pid, size in sizes.items()}
            workers = [size for pid, size in growth.items() if "worker" in pids[pid]]
            self.outcome.growth = (
                round(growth[child.pid], 1),
                round(max(workers, default=0.0), 1),
            )
            self.outcome.sent = round((turn("") or 0) / _MIB, 1)
            self._await_recovery(known, recovery)
            self.outcome.defects += bad_lines(child.output)
        return self.outcome

    def _prepare(self, undone: Undone, stage: Stage) -> Callable[[str], int]:
        """Start the peer, and return what turns it and tells how many bytes it has sent."""
        self._port = 0
        if self._row.dialect is None:
            assert stage.file is not None
            return partial(_turn_file, stage.file, stage.file.read_bytes())
        context = multiprocessing.get_context("fork")
        pipe, others = context.Pipe()
        way = "" if stage.later else self._way
        peer = context.Process(
            target=_play, args=(others, self._row.dialect, way, stage), daemon=True
        )
        peer.start()
        undone.addCleanup(peer.join)
        undone.addCleanup(peer.kill)
        self._port = pipe.recv()

        def turn(way: str) -> int:
            pipe.send(way)
            return int(pipe.recv())

        return turn

    def _look_on(self, child: Child, start: int, known: list[str], began: float) -> None:
        outcome = self.outcome
        while (now := time.monotonic() - began) < self._seconds:
            if outcome.line is None and len(child.output) > start:
                outcome.line = round(now, 1)
            status = self._status()
            more = [text for text in _texts(status) if text not in known]
            if outcome.attention is None and more:
                outcome.attention = round(now, 1)
                outcome.texts += [f"attention: {text}" for text in more]
            downs = [one for one in status.get("sources", ()) if not one["up"]]
            if outcome.down is None and downs:
                outcome.down = round(now, 1)
            time.sleep(_LOOKS)
        lines = child.output[start:].splitlines()
        outcome.lines = len(lines)
        outcome.texts += lines[:4]

    def _await_recovery(self, known: list[str], seconds: float) -> None:
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            status = self._status()
            is_up = all(one["up"] for one in status.get("sources", ()))
            if status and is_up and not set(_texts(status)) - set(known):
                self.outcome.recovered = round(now, 1)
                return
            time.sleep(_LOOKS)

    def _attention(self) -> list[str]:
        return _texts(self._status())

    def _status(self) -> dict[str, Any]:
        with suppress(OSError, ValueError, http.client.HTTPException):
            connection = http.client.HTTPConnection("localhost", timeout=5)
            with socket.socket(socket.AF_UNIX) as end:
                end.settimeout(5)
                end.connect(str(self._folder / "admin.sock"))
                connection.sock = end
                connection.request("GET", "/api/status")
                found: dict[str, Any] = json.load(connection.getresponse())
                return found
        return {}


def _texts(status: dict[str, Any]) -> list[str]:
    return [f"{one['what']}: {one['text']}" for one in status.get("attention", ())]


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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m campaign.peers.trial")
    parser.add_argument("source", choices=[*ROWS])
    parser.add_argument("way")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--recovery", type=float, default=0.0, help="seconds to wait for it")
    parser.add_argument("--program", default=f"{sys.executable} -m txmux")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    trial = Trial(options.source, options.way, options.program.split(), options.seconds)
    try:
        outcome = trial.run(options.recovery)
    except (AssertionError, OSError) as problem:
        outcome = trial.outcome
        outcome.defects.append(f"{type(problem).__name__}: {problem}"[-2000:])
    sys.stdout.write(json.dumps(attrs.asdict(outcome)))
    return int(bool(outcome.defects))


if __name__ == "__main__":
    sys.exit(main())
