"""What counting costs a short connection: one service, which counts by turns, and does not.

    python -m benchmarks.counting

A connection is accepted, recognised, led to a server, relayed and closed, with its line in the access log. What is compared is the CPU time
of its worker, as the scheduler has it, in nanoseconds. Rounds are short and come in pairs, one that counts and one that does not, now the one
first and now the other, so that both have the same share of whatever else the machine does. It is one process, since two of the
same program differ by more than counting costs. Where it does not count, it still calls what does nothing.

Then all that is counted for one connection is counted many times in a row, which tells the same without the noise of everything else.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

from benchmarks.children import (
    BenchmarkError,
    Child,
    cpu_time,
    eventually,
    free_ports,
    is_listening,
    name_of,
    process,
)
from txmux.telemetry.counting.counter_groups import (
    BackendCounts,
    ListenerCounts,
    RouteCounts,
    ServerCounts,
)
from txmux.telemetry.counting.process_counters import ProcessCounters
from txmux.telemetry.record import ConnectionRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RULES = """
[txmux]
admin = off
access_log = {folder}/access.log

[listen public]
endpoint = 127.0.0.1:{port}

[route web]
match   = http
backend = 127.0.0.1:{backend}
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
_MOST_SHARE = 0.02
_AT_ONCE = 8
"""Clients, so that the service is busy: one that sleeps before each of them begins with cold caches."""
_CLASSES = (ListenerCounts, RouteCounts, BackendCounts, ServerCounts)


def serve(listening: socket.socket) -> None:
    """Answer each client, and let it close."""
    while True:
        client, _ = listening.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(client.recv(4096))
            client.recv(1)


def run(rules: str) -> None:
    """Be the service, which begins or ends to count at each SIGRTMIN."""
    from twisted.application.twist._twist import Twist  # noqa: PLC0415 - the parent has no need of it

    # The code is changed and not the classes: what Python knows of a class it has to find out anew when that changes.
    methods: list[tuple[Any, CodeType, CodeType]] = [
        (method, code := method.__code__, _nothing.__code__.replace(co_freevars=code.co_freevars))
        for kind in _CLASSES
        for method in vars(kind).values()
        if isinstance(method, FunctionType) and method.__name__ != "__init__"
    ]
    turns = itertools.cycle((False, True))

    def turn(*_: object) -> None:
        counts_now = next(turns)
        for method, counting, nothing in methods:
            method.__code__ = counting if counts_now else nothing

    signal.signal(signal.SIGRTMIN, turn)  # which workers inherit, and hear
    Twist.main(["twist", "--log-format=text", "txmux", "--rules", rules])


def _nothing(*_: object, **__: object) -> None:
    """Stand for what counts."""


class Service:
    """The service; it counts at first.

    Args:
        folder: For its files.
        port: Where it listens.
        backend: The server's port.
        limit: Seconds after which it is ended, whatever happens.
    """

    def __init__(self, folder: Path, port: int, backend: int, limit: float) -> None:
        self.port = port
        rules = folder / "rules.ini"
        rules.write_text(RULES.format(folder=folder, port=self.port, backend=backend))
        command = [sys.executable, "-m", "benchmarks.counting", "--serve", str(rules)]
        self._log = folder / "output.log"
        self._child = Child(command, self._log, sorted(os.sched_getaffinity(0)), limit)
        eventually(partial(is_listening, self.port), "txmux listens")
        eventually(lambda: bool(self._workers()), "its worker has begun")
        (self._pid,) = self._workers()
        self._counts = True
        self._clients = ThreadPoolExecutor(_AT_ONCE)

    def _workers(self) -> list[int]:
        return [pid for pid in self._child.started() if name_of(pid) == "txmux: worker 1"]

    def count(self, *, on: bool) -> None:
        """Begin to count, or end it."""
        if on is not self._counts:
            os.kill(self._pid, signal.SIGRTMIN)
            self._counts = on

    def connect(self, connections: int) -> None:
        """Make connections, some at a time."""
        list(self._clients.map(self._connect, range(connections)))

    def _connect(self, _: int) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as client:
            client.sendall(REQUEST)
            if client.recv(4096) != REQUEST:
                raise BenchmarkError("a client was not served")

    def cost(self, connections: int) -> float:
        """Make connections, and give the CPU time that each took, in microseconds."""
        self.connect(2 * _AT_ONCE)  # the turn is taken with the first of them
        before = cpu_time(self._pid)
        self.connect(connections)
        return (cpu_time(self._pid) - before) * 1e6 / connections

    def end(self) -> None:
        """End it; all must have gone well with it."""
        self._clients.shutdown()
        self._child.end()
        if "Traceback" in (said := self._log.read_text()):
            raise BenchmarkError(f"the service has said:\n{said}")


def measure(pairs: int, connections: int) -> Iterator[tuple[float, float]]:
    """Give the cost of a connection without counting and with it, in rounds that follow each other."""
    with (
        tempfile.TemporaryDirectory(prefix="txmux-counting-") as name,
        free_ports(1) as (port,),
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listening,
        process(partial(serve, listening)),
    ):
        limit = 60 + 0.05 * pairs * connections
        service = Service(Path(name), port, listening.getsockname()[1], limit)
        try:
            for on in (False, True):
                service.count(on=on)
                service.connect(5 * connections)  # warms up
            for number in range(pairs):
                costs: dict[bool, float] = {}
                for on in (True, False) if number % 2 else (False, True):
                    service.count(on=on)
                    costs[on] = service.cost(connections)
                yield costs[False], costs[True]
        finally:
            service.end()


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Give where the median is with 95 % certainty, whatever the distribution: the binomial one of how many are below it."""
    ordered, half = sorted(values), 0.98 * math.sqrt(len(values))
    first = max(0, math.floor(len(values) / 2 - half))
    last = min(len(values) - 1, math.ceil(len(values) / 2 + half) - 1)
    return ordered[first], ordered[max(first, last)]


def counted(times: int) -> float:
    """Count all of one connection, again and again, and give the time that each took, in microseconds."""
    column = ProcessCounters()
    listener, route = column.listener("public"), column.route("public", "web")
    backend, server = column.backend("b"), column.server("b", "127.0.0.1:80")
    record = ConnectionRecord(time.time(), "x-1", "public", "127.0.0.1:1", bytes_in=40)
    record.detect_ms, record.duration_ms = 0.3, 5.0
    began = time.process_time()
    for _ in range(times):
        listener.accepted()
        route.matched(record)
        listener.decided(record)
        server.connected()
        backend.connected(0.2)
        server.answered(backend, 0.3)
        server.released()
        listener.relayed(route, server, 40, 400)
        listener.connection_ended(route, record, "done")
    return 1e6 * (time.process_time() - began) / times


def main() -> None:
    """Do what the command line says."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--pairs", type=int, default=300, help="of rounds")
    options.add_argument("--connections", type=int, default=60, help="in each round")
    options.add_argument("--serve", metavar="RULES", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.serve:
        run(chosen.serve)
        return
    try:
        found = [*measure(chosen.pairs, chosen.connections)]
    except (BenchmarkError, OSError) as problem:
        sys.exit(f"counting: {problem}")
    without, with_it = (statistics.median(costs) for costs in zip(*found, strict=True))
    differences = [after - before for before, after in found]
    below, above = interval(differences)
    lower, _, upper = statistics.quantiles(differences, n=4)
    itself = statistics.median(counted(20_000) for _ in range(15))
    print("| CPU time of a short connection | us |")
    print("|---|---|")
    print(f"| without counting, median of {len(found)} rounds | {without:.1f} |")
    print(f"| with it | {with_it:.1f} |")
    print(f"| difference within a pair of rounds, median | {statistics.median(differences):.2f} |")
    print(f"| where that is with 95 % certainty | {below:.2f} to {above:.2f} |")
    print(f"| where half of the pairs are | {lower:.2f} to {upper:.2f} |")
    print(f"| all that is counted for one connection, by itself | {itself:.2f} |")
    least, most = below / without, above / without
    print(f"\ncounting is {100 * itself / without:.1f} % of a short connection by itself,")
    print(
        f"and by the pairs {100 * least:.1f} to {100 * most:.1f} %; load {os.getloadavg()[0]:.1f}"
    )
    if least <= _MOST_SHARE < most:
        print("the pairs differ too much to tell: take more of them, or a quieter machine")
    sys.exit(max(itself / without, least) > _MOST_SHARE)


if __name__ == "__main__":
    main()
