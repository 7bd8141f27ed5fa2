"""What a flood of datagrams from a million addresses does to flows that were there before.

    python -m benchmarks.flood_datagrams

Each datagram of the flood is a question of DNS from another address of 127.0.0.0/8, which is led to a server that does not answer it. Before it, some clients
have begun flows, and they ask at a steady pace, before and during the flood, a server that answers. It is counted how many of
these questions were answered within a second, what memory the proxy has taken, and what the forged addresses were sent. nginx is measured
beside txmux, if it is installed. Exits with 0 if txmux kept 99 % of what it answered before, and sent nothing to the forged addresses.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from benchmarks import proxies
from benchmarks.__main__ import prepared
from benchmarks.children import BenchmarkError
from benchmarks.datagrams import QUESTION, bound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from benchmarks.children import Child

KNOWN = b"\xffknown client"
"""What a client sends that is answered; a number follows."""

_IP_PKTINFO = 8  # ip(7)
_FIRST, _LAST = 2, 2**24 - 2  # of the addresses behind 127.0.0.0
_TICK = 0.002  # seconds
_PATIENCE = 1.0  # seconds in which an answer has to be there


class Flood:
    """Sends each datagram from another address of this machine, from the same port.

    Args:
        port: Where to on 127.0.0.1.
        said: What each says.
    """

    def __init__(self, port: int, said: bytes = QUESTION) -> None:
        self._to = ("127.0.0.1", port)
        self._said = (said,)
        self._numbers = itertools.cycle(range(_FIRST, _LAST))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("0.0.0.0", 0))
        self._socket.setblocking(False)  # noqa: FBT003 - the socket module's signature

    def send(self, count: int) -> None:
        """Send so many."""
        send, said, to = self._socket.sendmsg, self._said, self._to
        for number in itertools.islice(self._numbers, count):
            source = b"\0\0\0\0\x7f" + number.to_bytes(3, "big") + b"\0\0\0\0"
            with contextlib.suppress(BlockingIOError):
                send(said, ((socket.IPPROTO_IP, _IP_PKTINFO, source),), 0, to)

    def run(self, count: int, rate: float) -> None:
        """Send so many, so many in a second."""
        began, sent = time.monotonic(), 0
        while sent < count:
            due = min(count, int((time.monotonic() - began) * rate))
            self.send(due - sent)
            sent = due
            time.sleep(_TICK)

    def answers(self) -> int:
        """Count the bytes that have come to the forged addresses."""
        total = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                total += len(self._socket.recv(65_535))
        return total

    def close(self) -> None:
        """Close its socket."""
        self._socket.close()


def serve(server: socket.socket) -> None:
    """Answer known clients, and nobody else."""
    while True:
        said, client = server.recvfrom(2048)
        if said.startswith(KNOWN):
            server.sendto(said, client)


@attrs.frozen
class Kept:
    """What clients were answered.

    Attributes:
        asked: The questions.
        answered: Those that were answered in time.
        worst: The seconds until the latest of these answers.
    """

    asked: int
    answered: int
    worst: float

    @property
    def part(self) -> float:
        """The part that was answered."""
        return self.answered / max(1, self.asked)


def exchanges(clients: list[socket.socket], seconds: float, rate: float) -> Kept:
    """Ask in turns, at a steady pace.

    Args:
        clients: Who asks; their sockets do not block.
        seconds: For how long.
        rate: Questions in a second, of all together.
    """
    sent: dict[int, float] = {}
    answered, worst = 0, 0.0
    began = time.monotonic()
    asked = 0
    while (now := time.monotonic()) < began + seconds + _PATIENCE:
        due = min(int((now - began) * rate), int(seconds * rate))
        for number in range(asked, due):
            sent[number] = time.monotonic()
            with contextlib.suppress(OSError):
                clients[number % len(clients)].send(KNOWN + number.to_bytes(4, "big"))
        asked = due
        for client in clients:
            with contextlib.suppress(OSError):
                while True:
                    number = int.from_bytes(client.recv(2048)[-4:], "big")
                    took = time.monotonic() - sent.pop(number, -1e9)
                    if took <= _PATIENCE:
                        answered += 1
                        worst = max(worst, took)
        if asked == int(seconds * rate) and not sent:
            break
        time.sleep(_TICK)
    return Kept(asked, answered, worst)


def begun(port: int, count: int) -> list[socket.socket]:
    """Make clients whose flows have been answered."""
    clients = []
    for _ in range(count):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(("127.0.0.1", port))
        client.settimeout(60)
        for number in range(2):
            client.send(KNOWN + number.to_bytes(4, "big"))
            client.recv(2048)
        client.setblocking(False)  # noqa: FBT003 - the socket module's signature
        clients.append(client)
    return clients


@attrs.frozen
class Result:
    """What one flood did.

    Attributes:
        before: What clients were answered before it.
        during: The same in it.
        memory: Bytes that the proxy has more than before, at the most.
        cpu: Of the proxy, in each second of the flood.
        sent: Bytes to the forged addresses.
    """

    before: Kept
    during: Kept
    memory: int
    cpu: float
    sent: int


@contextlib.contextmanager
def beside(target: object, *args: object) -> Iterator[multiprocessing.process.BaseProcess]:
    """Run something in a process of its own."""
    forked = multiprocessing.get_context("fork").Process(target=target, args=args, daemon=True)  # type: ignore[arg-type]
    forked.start()
    try:
        yield forked
    finally:
        forked.kill()
        forked.join()


def _flood(port: int, said: bytes, count: int, rate: float, to: Connection) -> None:
    flood = Flood(port, said)
    flood.run(count, rate)
    time.sleep(_PATIENCE)
    to.send(flood.answers())


def measure(child: Child, port: int, count: int, rate: float, said: bytes = QUESTION) -> Result:
    """Measure one flood.

    Args:
        child: The proxy.
        port: Its port.
        count: The addresses.
        rate: Their datagrams in a second.
        said: What each says.
    """
    clients = begun(port, 50)
    seconds = count / rate
    before = exchanges(clients, min(3.0, seconds), 500)
    memory, most = child.memory(), 0
    ours, theirs = multiprocessing.Pipe(duplex=False)
    cpu, began = child.cpu(), time.monotonic()
    asked = answered = 0
    worst = 0.0
    with beside(_flood, port, said, count, rate, theirs):
        theirs.close()
        while time.monotonic() < began + seconds:
            kept = exchanges(clients, 1.0, 500)
            asked, answered = asked + kept.asked, answered + kept.answered
            worst = max(worst, kept.worst)
            most = max(most, child.memory())
        spent = (child.cpu() - cpu) / (time.monotonic() - began)
        if not ours.poll(120):
            raise BenchmarkError("the flood does not end")
        sent = ours.recv()
    for client in clients:
        client.close()
    return Result(before, Kept(asked, answered, worst), most - memory, spent, sent)


def main() -> None:
    """Do what the command line says."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--addresses", type=int, default=1_000_000)
    options.add_argument("--rate", type=float, default=50_000, help="datagrams in a second")
    options.add_argument("--size", type=int, default=len(QUESTION), help="bytes of each")
    options.add_argument("--peers", default="nginx,txmux")
    options.add_argument("--least", type=float, default=0.99, help="the part to be kept")
    chosen = options.parse_args()
    cores = prepared()
    print(
        f"{chosen.addresses:,} addresses, {chosen.rate:,.0f} datagrams of {chosen.size} bytes a second\n\n"
        "| proxy | answered before | in the flood | latest answer, ms | memory | CPU | to forged addresses |\n"
        "|---|---|---|---|---|---|---|",
        flush=True,
    )
    is_kept = True
    for proxy in proxies.chosen(chosen.peers.split(",")):
        if proxy.udp is None or proxy.path() is None:
            continue
        with (
            tempfile.TemporaryDirectory(prefix="txmux-flood-") as made,
            bound() as server,
            beside(serve, server),
            proxies.running_udp(
                proxy, {"BULK": server.getsockname()[1], "NAMES": 9}, Path(made), cores[:1]
            ) as running,
        ):
            said = QUESTION.ljust(chosen.size, b"\0")
            found = measure(
                running.child, running.ports["BULK"], chosen.addresses, chosen.rate, said
            )
        print(
            f"| {proxy.title} | {found.before.part:.2%} | {found.during.part:.2%} | {found.during.worst * 1e3:.0f} "
            f"| {found.memory / 2**20:+.1f} MiB | {found.cpu:.0%} | {found.sent} bytes |",
            flush=True,
        )
        if proxy.family == "txmux":
            is_kept = found.during.part >= chosen.least * found.before.part and not found.sent
    sys.exit(not is_kept)


if __name__ == "__main__":
    main()
