"""UDP: much data of one flow, questions and answers, and flows that stay."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import BenchmarkError, output_of
from benchmarks.datagrams import (
    QUESTION,
    SIZE,
    answered,
    asked_anew,
    asking,
    bound,
    pumped,
    responding,
)

if TYPE_CHECKING:
    import socket

    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

BULK = (
    Figure(
        "udp.up",
        "UDP to the server, datagrams",
        "1,000 per CPU second",
        0,
        more_is_better=True,
        base="nginx",
    ),
    Figure(
        "udp.down",
        "UDP from the server, datagrams",
        "1,000 per CPU second",
        0,
        more_is_better=True,
        base="nginx",
    ),
    Figure(
        "udp.single",
        "UDP, sent one by one, datagrams",
        "1,000 per CPU second",
        0,
        more_is_better=True,
        base="nginx",
    ),
    Figure(
        "udp.rate", "UDP to the server, throughput", "Gbit/s", 1, more_is_better=True, base="nginx"
    ),
)
QUESTIONS = (
    Figure("udp.question", "UDP, question and answer, CPU", "µs", base="nginx"),
    Figure("udp.flow", "UDP, flow of one question, CPU", "µs", base="nginx"),
)
HELD = (
    Figure("udp.begun", "UDP, first question of a flow, CPU", "µs", base="nginx"),
    Figure("udp.memory", "UDP, idle flow, memory", "KiB", base="nginx"),
    Figure("udp.held", "UDP, flows held, of 9,000", "", 0, more_is_better=True, base="nginx"),
)

_TRIED = 9000
_AT_ONCE = 50
_PATIENCE = 20.0
_MOST_LOST = 0.01


def bulk(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure much data of one flow, see `Measure`."""
    if proxy.udp is None:
        return {}
    seconds = bench.size(2, 1)
    found = {}
    with (
        bound() as server,
        bound() as client,
        bench.running_udp(proxy, bulk=server.getsockname()[1]) as running,
    ):
        client.connect(("127.0.0.1", running.ports["BULK"]))
        client.send(QUESTION)
        for end in (server, client):
            end.settimeout(_PATIENCE)
        server.connect(server.recvfrom(2048)[1])
        server.send(QUESTION)
        client.recv(2048)
        for key, ends, together in (
            ("udp.up", (client, server), True),
            ("udp.down", (server, client), True),
            ("udp.single", (client, server), False),
        ):
            pumped(*ends, 0.2, together=together)
            before = running.child.cpu()
            done = pumped(*ends, seconds, together=together)
            found[key] = done.datagrams / (running.child.cpu() - before) / 1000
            if key == "udp.up":
                found["udp.rate"] = done.datagrams * SIZE * 8 / done.seconds / 1e9
            if done.lost > _MOST_LOST * done.datagrams:
                bench.notes.append(f"beside {done.datagrams} datagrams {done.lost} were lost")
    return found


def questions(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure short exchanges, see `Measure`."""
    if proxy.udp is None:
        return {}
    count = bench.size(20_000, 2_000)
    with responding() as names, bench.running_udp(proxy, names=names) as running:
        asked_anew(running.ports["ONCE"], 1_000)
        before = running.child.cpu()
        asked_anew(running.ports["ONCE"], count)
        found = {"udp.flow": (running.child.cpu() - before) / count * 1e6}
        before = running.child.cpu()
        done = dnsperf(bench, running.ports["LASTING"])
        found["udp.question"] = (running.child.cpu() - before) / done * 1e6
    return found


def dnsperf(bench: Bench, port: int) -> int:
    """Ask from 20 ports as fast as it goes.

    Returns:
        The number of questions that were answered.

    Raises:
        BenchmarkError: There were none.
    """
    asked = bench.folder / "questions"
    asked.write_text("www.example.com A\n")
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-c", "20", "-q", "20"]
    command += ["-l", str(bench.size(2, 1)), "-d", str(asked)]
    said = output_of(command, bench.load_cores)
    match = re.search(r"Queries completed: +(\d+)", said)
    lost = re.search(r"Queries lost: +([1-9]\d*)", said)
    if match is None or match[1] == "0":
        raise BenchmarkError("dnsperf got no answer")
    if lost:
        bench.notes.append(f"beside {match[1]} questions {lost[1]} were not answered")
    return int(match[1])


def held(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure flows that stay, see `Measure`."""
    if proxy.udp is None:
        return {}
    count = bench.size(_TRIED, 900)
    clients: list[socket.socket] = []
    with (
        responding() as names,
        bench.running_udp(proxy, names=names) as running,
        contextlib.ExitStack() as stack,
    ):
        port = running.ports["LASTING"]
        asked_anew(port, 50)
        before, memory = running.child.cpu(), running.child.memory()
        for _ in range(0, count, _AT_ONCE):
            some = [stack.enter_context(asking(port)) for _ in range(_AT_ONCE)]
            if answered(some) < len(some):
                bench.notes.append(f"of a flow behind the first {len(clients)} nothing came")
                break
            clients += some
        found = {
            "udp.begun": (running.child.cpu() - before) / max(1, len(clients)) * 1e6,
            "udp.memory": (running.child.memory() - memory) / max(1, len(clients)) / 1024,
        }
        still = 0
        for start in range(0, len(clients), _AT_ONCE):
            some = clients[start : start + _AT_ONCE]
            for client in some:
                client.send(QUESTION)
            still += answered(some)
        found["udp.held"] = still
    return found
