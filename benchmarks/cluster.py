"""What shared limits cost a client: the time from connect() to the server's first byte, with a Redis that answers, hangs, or is gone.

    python -m benchmarks.cluster

There is one service for each case, with the same listener, and one source that is busy enough to be reported. They
take turns in short rounds, so that all have the same share of whatever else the machine does. What counts is the difference to the
service without a Redis. Nobody may be refused.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.children import BenchmarkError, Child, eventually, free_ports, is_listening

RULES = """
[txmux]
admin = off
access_log = off
{shared}
[listen public]
endpoint = 127.0.0.1:{port}
connection_rate_per_source = 1500/s burst=30
default = 127.0.0.1:{server}
"""
_ROUND = 100
_PAUSE = 0.0005
"""Seconds between two connections, so that they stay below the rate, and above half of it, from which on Redis is asked."""
_CASES = ("no Redis", "answers", "hangs", "gone")


def greet(listening: socket.socket) -> None:
    """Greet whoever comes, until the socket is closed."""
    while True:
        try:
            client, _ = listening.accept()
        except OSError:
            return
        with client:
            client.sendall(b"1")


def connect(port: int) -> float | None:
    """Give the milliseconds until the first byte; ``None`` if there is none."""
    begun = time.perf_counter()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            found = client.recv(1)
    except ConnectionResetError:
        return None
    return (time.perf_counter() - begun) * 1000 if found else None


def connect_all(port: int) -> list[float | None]:
    """Connect as often as a round has it."""
    found = []
    for _ in range(_ROUND):
        found.append(connect(port))
        time.sleep(_PAUSE)
    return found


def asked(port: int) -> int:
    """Return how many reports were exchanged by a Redis."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"INFO commandstats\r\n")
        told = client.recv(65536).decode()
    match = re.search(r"cmdstat_eval:calls=(\d+)", told)
    return int(match[1]) if match else 0


def measure(rounds: int) -> dict[str, list[float | None]]:
    """Measure all cases, in turn."""
    cores = sorted(os.sched_getaffinity(0))
    found: dict[str, list[float | None]] = {case: [] for case in _CASES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        server = listening.getsockname()[1]
        threading.Thread(target=greet, args=(listening,), daemon=True).start()
        ports = stack.enter_context(free_ports(len(_CASES)))
        redis = dict(zip(_CASES[1:], stack.enter_context(free_ports(3)), strict=True))
        stores: dict[str, Child] = {}
        for case, port in redis.items():
            command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
            stores[case] = Child(command, folder / f"redis-{case}.log", cores, 600.0)
            stack.callback(stores[case].end)
            eventually(partial(is_listening, port), "Redis listens")
        for case, port in zip(_CASES, ports, strict=True):
            shared = f"shared_limits = redis://127.0.0.1:{redis[case]}" if case in redis else ""
            rules = folder / f"{case.replace(' ', '-')}.ini"
            rules.write_text(RULES.format(shared=shared, port=port, server=server))
            command = [sys.executable, "-m", "txmux", "run", str(rules)]
            stack.enter_context(Child(command, folder / f"{case}.log", cores, 600.0))
            eventually(partial(is_listening, port), "txmux listens")
        for port in ports:
            connect_all(port)
        (pid,) = stores["hangs"].started()
        os.kill(pid, signal.SIGSTOP)
        stack.callback(os.kill, pid, signal.SIGCONT)
        stores["gone"].end()
        for _ in range(rounds):
            for case, port in zip(_CASES, ports, strict=True):
                found[case] += connect_all(port)
        print(f"scripts in the Redis that answers: {asked(redis['answers'])}")
    return found


def report(found: dict[str, list[float | None]]) -> None:
    """Print the cases, and how they differ from the first."""
    base = None
    for case, times in found.items():
        let_in = [one for one in times if one is not None]
        if len(let_in) < 2:
            raise BenchmarkError(f"{case}: nobody was let in")
        cuts = statistics.quantiles(let_in, n=100)
        middle, most = cuts[49], cuts[98]
        # Whatever else the machine does strikes few rounds, and their middle is not moved by that.
        rounds = [let_in[at : at + _ROUND] for at in range(0, len(let_in), _ROUND)]
        typical = statistics.median(sorted(one)[-2] for one in rounds if len(one) > 1)
        base = typical if base is None else base
        print(
            f"{case:9} p50 {middle:.2f} ms  p99 {most:.2f} ms, of a typical round {typical:.2f} ms ({typical - base:+.2f})  "
            f"refused {len(times) - len(let_in)} of {len(times)}"
        )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="of 100 connections in each case")
    report(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
