"""How long a good client waits while one source floods txmux, compared with how long it waits in peace.

    python -m benchmarks.flood

Floods come from 127.0.0.2 and the good client from 127.0.0.1. Many connections make a flood, and one that is closed
comes again five seconds later; they come evenly spread. The good client makes one connection after the other, and each
is timed from before it is made until its answer is there. Every kind of flood is tried with and without limits for each
source. Exits with 0 if the good client never waited much longer than in peace.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import resource
import select
import socket
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from benchmarks.children import BenchmarkError, Child, eventually, free_ports, is_listening, process
from benchmarks.measures.latency import percentiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BAD, GOOD = "127.0.0.2", "127.0.0.1"
PING, PONG = b"PING\n", b"PONG\n"
PATIENCE = 10.0
PAUSE = 0.015  # so that the good client does not reach a limit itself
TICK = 0.01  # seconds
TICKS = 500  # until one that is closed comes again
BIND_ADDRESS_NO_PORT = 24  # ip(7)

RULES = """
[txmux]
access_log = {folder}/access.log

[listen public]
endpoint = 127.0.0.1:{port}
detect_timeout = 1m
{limits}

[route good]
match   = payload text=PING
backend = 127.0.0.1:{backend}

[route site]
match   = tls sni=www.example.com
backend = 127.0.0.1:{backend}
"""

LIMITS = """
max_connections_per_source = 200
max_undecided_per_source   = 100
connection_rate_per_source = 100/s
"""


def garbage() -> bytes:
    """Make what looks like TLS for some time, of one of several kinds."""
    chance = random.random()
    if chance < 0.3:  # one record that is not what it says
        return b"\x16\x03\x01\x02\x00" + random.randbytes(512)
    if chance < 0.5:  # a message without an end
        record = b"\x16\x03\x01\x10\x00" + random.randbytes(4096)
        return b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + 7 * record
    if chance < 0.55:  # the head of a message, and after it one byte in each record
        head = b"\x16\x03\x01\x00\x06\x01\x00\x70\x00\x03\x03"
        return head + b"".join(b"\x16\x03\x01\x00\x01" + random.randbytes(1) for _ in range(5000))
    return b"\x16\x03\x01\x00\x00" * 6000  # records with nothing in them


@attrs.frozen
class Kind:
    """A kind of flood.

    Attributes:
        name: For the table.
        says: What each connection sends as soon as it stands.
    """

    name: str
    says: Callable[[], bytes]


KINDS = (Kind("silent", bytes), Kind("garbage that looks like TLS", garbage))


@attrs.frozen
class Result:
    """What one flood did; times are seconds.

    Attributes:
        before: The median and the 99th percentile of the good client's times before.
        during: The same in the flood.
        cpu: Of txmux, in each second of the flood.
        memory: Bytes that txmux has more than before.
        lines: So many times the flood was refused or ended.
    """

    before: tuple[float, float]
    during: tuple[float, float]
    cpu: float
    memory: int
    lines: int


class Flood:
    """Connections that come again and again.

    Args:
        port: Where to.
        connections: So many.
        says: What each sends.
    """

    def __init__(self, port: int, connections: int, says: Callable[[], bytes]) -> None:
        self._port = port
        self._says = says
        self._due = [len(range(first, connections, TICKS)) for first in range(TICKS)]
        self._open: dict[int, socket.socket] = {}
        self._poll = select.epoll()

    def run(self) -> None:
        """Go on until the process is ended."""
        began = time.monotonic()
        for tick in range(10**9):
            while (left := began + tick * TICK - time.monotonic()) > 0:
                self._collect(left, tick)
            self._collect(0, tick)
            coming, self._due[tick % TICKS] = self._due[tick % TICKS], 0
            for _ in range(coming):
                self._come()

    def _come(self) -> None:
        client = socket.socket()
        client.setblocking(False)  # noqa: FBT003 - the socket module's signature
        client.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        client.bind((BAD, 0))
        client.connect_ex(("127.0.0.1", self._port))
        said = self._says()
        if said:
            with contextlib.suppress(OSError):
                client.send(said)
        self._open[client.fileno()] = client
        self._poll.register(client, select.EPOLLIN)

    def _collect(self, seconds: float, tick: int) -> None:
        for descriptor, _ in self._poll.poll(seconds):
            self._poll.unregister(descriptor)
            self._open.pop(descriptor).close()
            self._due[(tick - 1) % TICKS] += 1


def serve(listening: socket.socket) -> None:
    """Answer one client after the other."""
    while True:
        client, _ = listening.accept()
        with client, contextlib.suppress(OSError):
            if client.recv(100) == PING:
                client.sendall(PONG)


def good_times(port: int, seconds: float) -> list[float]:
    """Be a good client for some time, and give the seconds that each connection took."""
    found = []
    end = time.monotonic() + seconds
    gc.disable()
    try:
        while time.monotonic() < end:
            began = time.perf_counter()
            with socket.create_connection(
                ("127.0.0.1", port), timeout=PATIENCE, source_address=(GOOD, 0)
            ) as client:
                client.sendall(PING)
                if client.recv(100) != PONG:
                    raise BenchmarkError("the good client was not served")
                found.append(time.perf_counter() - began)
            time.sleep(PAUSE)
    finally:
        gc.enable()
    return found


@contextlib.contextmanager
def running(folder: Path, limits: str) -> Iterator[tuple[Child, int]]:
    """Run txmux with a backend, and give it and its port."""
    cores = sorted(os.sched_getaffinity(0))
    rules = folder / "rules.ini"
    twist = str(Path(sys.executable).with_name("twist"))
    with (
        free_ports(1) as (port,),
        socket.create_server(("127.0.0.1", 0), backlog=4096) as listening,
    ):
        backend = listening.getsockname()[1]
        rules.write_text(RULES.format(folder=folder, port=port, limits=limits, backend=backend))
        command = [twist, "--log-format=text", "txmux", "--rules", str(rules)]
        with (
            process(partial(serve, listening)),
            Child(command, folder / "output.log", cores[-1:]) as txmux,
        ):
            eventually(partial(is_listening, port), "txmux listens")
            os.sched_setaffinity(0, cores[:-1] or cores)
            try:
                yield txmux, port
            finally:
                os.sched_setaffinity(0, cores)


def measure(kind: Kind, limits: str, connections: int, seconds: float) -> Result:
    """Measure one flood."""
    with tempfile.TemporaryDirectory(prefix="txmux-flood-") as name:
        folder = Path(name)
        with running(folder, limits) as (txmux, port):
            good_times(port, 0.5)
            before = percentiles(good_times(port, seconds))
            memory = txmux.memory()
            with process(Flood(port, connections, kind.says).run):
                time.sleep(TICKS * TICK)  # all of them have come
                cpu, began = txmux.cpu(), time.monotonic()
                during = percentiles(good_times(port, seconds))
                cpu = (txmux.cpu() - cpu) / (time.monotonic() - began)
                memory = txmux.memory() - memory
                lines = (folder / "access.log").read_text().count(f"client={BAD}:")
    return Result(before, during, cpu, memory, lines)


def main() -> None:
    """Do what the command line says."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--connections", type=int, default=5000)
    options.add_argument("--seconds", type=float, default=4, help="for each measurement")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--most", type=float, default=2.0, help="the ratio that is allowed")
    chosen = options.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if 0 <= hard < chosen.connections + 100:
        sys.exit(f"{chosen.connections} connections need more open files than {soft}")
    print(
        "| flood | limits per source | before, ms | during, ms | ratio | CPU | memory | refused |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    worst = 0.0
    for kind in KINDS:
        for limits in ("", LIMITS):
            results = [
                measure(kind, limits, chosen.connections, chosen.seconds)
                for _ in range(chosen.rounds)
            ]
            worst = max(worst, row(kind, limits, results))
    print(f"\nverdict: {'all is well' if worst <= chosen.most else 'the good client had to wait'}")
    sys.exit(worst > chosen.most)


def row(kind: Kind, limits: str, results: list[Result]) -> float:
    """Print the result in the middle, and give the ratio of its times."""
    ratios = sorted(results, key=lambda result: result.during[0] / result.before[0])
    middle = ratios[len(ratios) // 2]
    ratio = statistics.median(result.during[0] / result.before[0] for result in results)
    shown = [
        f"{median * 1e3:.2f}, 99 % {high * 1e3:.2f}"
        for median, high in (middle.before, middle.during)
    ]
    print(
        f"| {kind.name} | {'yes' if limits else 'no'} | {shown[0]} | {shown[1]} | {ratio:.2f} "
        f"| {middle.cpu:.0%} | {middle.memory / 2**20:+.1f} MiB | {middle.lines} |",
        flush=True,
    )
    return ratio


if __name__ == "__main__":
    main()
