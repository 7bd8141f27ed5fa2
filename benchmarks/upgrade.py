"""How long an upgrade takes that moves very many connections, and how long each of them is quiet.

    python -m benchmarks.upgrade

Most connections say nothing. On a few, the server sends the time every two milliseconds, and how late it comes to the client is noted:
in peace, and while the service is upgraded. All are asked for an answer at the end. Exits with 0 if all have one, none was
quiet for longer than is allowed, and each worker has as many as the others, within a tenth. Connections move in batches, so a
few cannot be as even.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from benchmarks.children import BenchmarkError, Child, eventually, free_ports, is_listening
from benchmarks.flood import process

if TYPE_CHECKING:
    from collections.abc import Iterator

PERIOD = 0.002
STREAMED, ASKED = b"S", b"A"
_STAMP = struct.Struct("d")
_BEFORE = 1.0
"""Seconds for which the streams are watched before each upgrade."""
_NOTICED = 0.03
"""Seconds until the log has been read."""

RULES = """
[txmux]
access_log = {folder}/access.log
workers = {workers}
admin = unix:{folder}/admin.sock

[listen public]
endpoint = 127.0.0.1:{port}

[route all]
match   = any
backend = 127.0.0.1:{backend}
"""


def serve(listening: socket.socket) -> None:
    """Answer each byte with itself, and send the time to those who want it."""
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    streams: list[socket.socket] = []
    due = time.monotonic()
    while True:
        for descriptor, _ in poll.poll(max(0.0, due - time.monotonic()), 1000):
            if descriptor == listening.fileno():
                client, _ = listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
                continue
            client = clients[descriptor]
            data = b""
            with contextlib.suppress(OSError):
                data = client.recv(100)
            if not data:
                poll.unregister(descriptor)
                clients.pop(descriptor).close()
                streams = [one for one in streams if one is not client]
            elif data == STREAMED:
                streams.append(client)
            else:
                client.send(data)
        if time.monotonic() >= due:
            due = max(due + PERIOD, time.monotonic())
            for stream in streams:
                with contextlib.suppress(OSError):
                    stream.send(_STAMP.pack(time.monotonic()))


class Streams:
    """Connections on which the time comes, watched by a thread.

    Args:
        ends: The clients' ends.
    """

    def __init__(self, ends: list[socket.socket]) -> None:
        self._ends = {end.fileno(): end for end in ends}
        self._found: list[tuple[int, float, float]] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        poll = select.epoll()
        for descriptor in self._ends:
            poll.register(descriptor, select.EPOLLIN)
        while not self._is_over:
            for descriptor, _ in poll.poll(0.1):
                data = self._ends[descriptor].recv(2**12)
                now = time.monotonic()
                self._found.append((descriptor, now, now - _STAMP.unpack_from(data)[0]))

    def latest(self, begin: float, end: float) -> list[float]:
        """Give how late the latest byte of each stream was that came in this time, in seconds."""
        latest = dict.fromkeys(self._ends, 0.0)
        for descriptor, now, late in self._found[:]:
            if begin <= now <= end:
                latest[descriptor] = max(latest[descriptor], late)
        return [*latest.values()]

    def end(self) -> None:
        """Watch them no longer."""
        self._is_over = True
        self._thread.join()


@attrs.frozen
class Result:
    """What one upgrade was like.

    Attributes:
        moved: Connections.
        seconds: For which the old process handed over.
        before: How late the latest byte of each stream was in peace, in seconds.
        starting: The same, while the new process started.
        moving: The same, while connections moved.
        spread: How many connections each worker has then.
    """

    moved: int
    seconds: float
    before: list[float]
    starting: list[float]
    moving: list[float]
    spread: list[int]


class Service:
    """The service under test.

    Args:
        folder: For its files.
        workers: The number of its processes.
        backend: The port of the server.
        port: Its own.
    """

    def __init__(self, folder: Path, workers: int, backend: int, port: int) -> None:
        self._output, self._pidfile = folder / "output.log", folder / "txmux.pid"
        self._admin = folder / "admin.sock"
        rules = folder / "rules.ini"
        rules.write_text(RULES.format(folder=folder, workers=workers, backend=backend, port=port))
        twist = str(Path(sys.executable).with_name("twist"))
        command = [twist, "--log-format=text", "txmux", "--rules", str(rules)]
        command += ["--pidfile", str(self._pidfile)]
        self.child = Child(command, self._output, sorted(os.sched_getaffinity(0)))
        eventually(self._pidfile.exists, "txmux serves")
        self._pids = [self._pid()]
        eventually(partial(is_listening, port), "txmux listens")

    def _pid(self) -> int:
        return int(self._pidfile.read_text())

    def upgrade(self) -> tuple[int, float]:
        """Upgrade it, and give how many connections were moved, and in how many seconds."""
        old = self._pids[-1]
        done = len(self._done())
        os.kill(old, signal.SIGUSR2)
        eventually(lambda: len(self._done()) > done, "it is upgraded")
        self._pids.append(self._pid())
        moved, milliseconds = self._done()[-1]
        return int(moved), int(milliseconds) / 1000

    def spread(self) -> list[int]:
        """Give how many connections each worker has."""
        command = [
            sys.executable,
            "-m",
            "txmux",
            "status",
            "--json",
            "--admin",
            f"unix:{self._admin}",
        ]
        status = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return [row["connections"] for row in status["workers"]]

    def _done(self) -> list[tuple[str, str]]:
        return re.findall(r"connections handed over: (\d+), in (\d+) ms", self._output.read_text())

    def end(self) -> None:
        """End all of it."""
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        # The last removes its files from the folder, which is removed next.
        eventually(lambda: not any(map(_lives, self._pids)), "it has ended")
        self.child.end()


def _lives(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "XZ"
    return False


@contextlib.contextmanager
def running(workers: int) -> Iterator[tuple[Service, int]]:
    """Run txmux with a server, and give it and its port."""
    with (
        free_ports(1) as (port,),
        tempfile.TemporaryDirectory(prefix="txmux-upgrade-") as folder,
        socket.create_server(("127.0.0.1", 0), backlog=8192) as listening,
        process(partial(serve, listening)),
    ):
        service = Service(Path(folder), workers, listening.getsockname()[1], port)
        try:
            yield service, port
        finally:
            service.end()


def connected(port: int, says: bytes) -> socket.socket:
    """Connect, and wait until the connection is relayed."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(says)
    if not client.recv(1, socket.MSG_PEEK if says == STREAMED else 0):
        raise BenchmarkError("a client was not served")
    return client


def measure(workers: int, connections: int, streams: int, rounds: int) -> Iterator[Result]:
    """Upgrade a service, again and again.

    Raises:
        BenchmarkError: A connection was lost.
    """
    with running(workers) as (service, port):
        quiet = [connected(port, ASKED) for _ in range(connections - streams)]
        watched = Streams([connected(port, STREAMED) for _ in range(streams)])
        time.sleep(_BEFORE)
        for _ in range(rounds):
            time.sleep(_BEFORE)
            asked = time.monotonic()
            moved, seconds = service.upgrade()
            done = time.monotonic()
            began = done - seconds - _NOTICED
            yield Result(
                moved,
                seconds,
                watched.latest(asked - _BEFORE, asked),
                watched.latest(asked, began),
                watched.latest(began, done + _NOTICED),
                service.spread(),
            )
            for client in quiet:
                client.sendall(ASKED)
            for client in quiet:
                if client.recv(1) != ASKED:
                    raise BenchmarkError("a connection was lost")
        watched.end()


def main() -> None:
    """Do what the command line says."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--connections", type=int, default=4500)
    options.add_argument("--streams", type=int, default=10, help="those on which the time comes")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--most", type=float, default=100.0, help="milliseconds of quiet allowed")
    options.add_argument("--uneven", type=float, default=10, help="per cent allowed")
    chosen = options.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(
        "| moved | in, ms | latest byte in peace, ms | while the new process starts | while they move | each worker has |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    found = []
    try:
        for result in measure(chosen.workers, chosen.connections, chosen.streams, chosen.rounds):
            found.append(result)
            times = (result.before, result.starting, result.moving)
            shown = (f"{1000 * statistics.median(one):.1f}, {1000 * max(one):.1f}" for one in times)
            print(
                f"| {result.moved} | {1000 * result.seconds:.0f} | {' | '.join(shown)} | "
                f"{', '.join(map(str, result.spread))} |",
                flush=True,
            )
    except (BenchmarkError, OSError) as problem:
        sys.exit(f"upgrade: {problem}")
    worst = max(max(result.moving) for result in found)
    even = chosen.connections / chosen.workers
    is_well = 1000 * worst <= chosen.most and all(
        result.moved == chosen.connections
        and max(abs(count - even) for count in result.spread) <= even * chosen.uneven / 100
        for result in found
    )
    print(f"\nverdict: {'all is well' if is_well else 'connections noticed'}")
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
