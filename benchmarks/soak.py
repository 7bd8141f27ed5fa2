"""Very many short connections of every kind through one txmux, whose memory and descriptors must stay as they are.

    python -m benchmarks.soak --connections 200000

Runs ``twist txmux``, backends and clients as processes of their own. After each round, when every client has gone,
it prints txmux's resident memory and its open descriptors. In the end each connection must stand once in the access
log, with the reason that its kind has. Exits with 0 if all is well.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.children import descendants, resident
from benchmarks.soak_kinds import KINDS, PATIENCE, SoakError, run_clients, serve

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESSES = 4
"""Of clients; as many serve."""
KEPT_PIPES = 32
"""Descriptors that the kernel relay may keep for later."""
GROWTH = 2 * 2**20
"""Bytes of memory that may be added after the first quarter."""

RULES = """
[txmux]
relay = {relay}
access_log = {folder}/access.log
access_log_format = json

[listen public]
endpoint = 127.0.0.1:0

[route backend]
match   = payload text=B
backend = 127.0.0.1:{backend}

[route nobody]
match   = payload text=N
backend = 127.0.0.1:{closed}

[route long]
match   = payload text=LONG-WORD
backend = reset
"""


class Txmux:
    """The service, as a child process with a worker.

    Args:
        folder: For its files.
        relay: As in ``[txmux]``.
        backend: The port of the backends.
        closed: A port on which nobody listens.
    """

    def __init__(self, folder: Path, relay: str, backend: int, closed: int) -> None:
        self.log = folder / "access.log"
        self._output = folder / "output.log"
        rules = folder / "rules.ini"
        rules.write_text(RULES.format(folder=folder, relay=relay, backend=backend, closed=closed))
        twist = str(Path(sys.executable).with_name("twist"))
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [twist, "--log-format=text", "txmux", "--rules", str(rules)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def port(self) -> int:
        """Wait until it listens, and give its port."""
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            match = re.search(r"listening on \S+:(\d+) ", self._output.read_text())
            if match is not None:
                return int(match[1])
            time.sleep(0.02)
        raise SoakError(f"txmux has not started:\n{self._output.read_text()}")

    def memory(self) -> int:
        """Give the resident memory of all its processes in bytes."""
        return sum(map(resident, self._pids()))

    def descriptors(self) -> int:
        """Count the open descriptors of all its processes."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self._pids())

    def _pids(self) -> set[int]:
        return {self._process.pid, *descendants(self._process.pid)}

    def has_logged(self, count: int) -> bool:
        """Wait until so many connections are logged."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with self.log.open() as log:
                logged = sum(json.loads(line).get("count", 1) for line in log)
            if logged >= count:
                return True
            time.sleep(0.1)
        return False

    def stop(self) -> str:
        """End it, and tell what it said of errors in it."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "txmux has not stopped"
        match = re.search(r"Traceback.*|Unhandled.*", self._output.read_text(), re.DOTALL)
        return match[0][:2000] if match else ""


def soak(connections: int, rounds: int, relay: str, seconds: float) -> list[str]:
    """Run it all.

    Args:
        connections: How many.
        rounds: After each is measured.
        relay: As in ``[txmux]``.
        seconds: No round begins after that time.

    Returns:
        What is not as it ought to be.
    """
    processes = multiprocessing.get_context("fork")
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    # It keeps its port, lest another program get it: nobody listens there.
    nobody = socket.socket()
    nobody.bind(("127.0.0.1", 0))
    closed = nobody.getsockname()[1]
    servers = [
        processes.Process(target=serve, args=(listening,), daemon=True) for _ in range(PROCESSES)
    ]
    for server in servers:
        server.start()
    with tempfile.TemporaryDirectory(prefix="txmux-soak-") as folder:
        txmux = Txmux(Path(folder), relay, listening.getsockname()[1], closed)
        wrong: list[str] = []
        try:
            with processes.Pool(PROCESSES) as clients:
                wrong += drive(txmux, clients.map, connections, rounds, seconds)
        except SoakError as problem:
            wrong.append(str(problem))
        finally:
            wrong += filter(None, [txmux.stop()])
            for server in servers:
                server.terminate()
                server.join()
            listening.close()
            nobody.close()
    return wrong


def drive(
    txmux: Txmux, run: Callable[..., list[str]], connections: int, rounds: int, seconds: float
) -> list[str]:
    """Make the connections, measure after each round, and judge."""
    port = txmux.port()
    began = time.monotonic()
    measured: list[tuple[int, int]] = []
    done = 0
    print("| connections | seconds | memory, KiB | descriptors |\n|---|---|---|---|", flush=True)
    for number in range(1, rounds + 1):
        if time.monotonic() - began > seconds:
            return [f"only {done} connections in {seconds:g} s"]
        until = connections * number // rounds
        pieces = [range(done + first, until, PROCESSES) for first in range(PROCESSES)]
        wrong = [said for said in run(run_clients, [(port, piece) for piece in pieces]) if said]
        if wrong:
            return wrong
        done = until
        if not txmux.has_logged(done):
            return [f"not every one of {done} connections is logged"]
        measured.append((txmux.memory(), txmux.descriptors()))
        took = time.monotonic() - began
        print(
            f"| {done} | {took:.0f} | {measured[-1][0] // 1024} | {measured[-1][1]} |", flush=True
        )
    return judged(measured) + logged(txmux.log, connections)


def judged(measured: list[tuple[int, int]]) -> list[str]:
    """Compare what was measured after each round."""
    wrong = []
    first_memory, _ = measured[len(measured) // 4]
    memory, _ = measured[-1]
    if memory - first_memory > GROWTH:
        wrong.append(f"memory has grown by {(memory - first_memory) // 1024} KiB")
    counts = [count for _, count in measured]
    if max(counts) - min(counts) > KEPT_PIPES:
        wrong.append(f"descriptors have grown from {min(counts)} to {max(counts)}")
    return wrong


def logged(log: Path, connections: int) -> list[str]:
    """Compare the access log with what was done."""
    found: Counter[str] = Counter()
    ids = set()
    merged = 0
    with log.open() as lines:
        for line in lines:
            record = json.loads(line)
            found[record["reason"]] += record.get("count", 1)
            merged += record.get("count", 1) - 1
            ids.add(record["id"])
    wanted = Counter(KINDS[number % len(KINDS)][1] for number in range(connections))
    wrong = []
    if len(ids) + merged != connections:
        wrong.append(f"{len(ids) + merged} connections are logged instead of {connections}")
    if found != wanted:
        wrong.append(f"logged are {dict(found)} instead of {dict(wanted)}")
    return wrong


def main() -> None:
    """Do what the command line says."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--connections", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--relay", choices=("auto", "kernel", "portable"), default="auto")
    options.add_argument("--seconds", type=float, default=240, help="no round begins after that")
    chosen = options.parse_args()
    wrong = soak(chosen.connections, chosen.rounds, chosen.relay, chosen.seconds)
    print(f"\nverdict: {'; '.join(wrong) or 'all is well'}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
