"""What does not depend on the machine: instructions in user mode, by valgrind, and system calls, by strace.

Those of the process that serves are counted, and nothing of what makes the load. Clients and servers act one after the other, each once that process
has nothing to do any more, as over a network: so it takes the same turns each time, on any machine. What it does by the clock is counted while
it is idle, and taken off.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import subprocess
import tempfile
import time
from abc import abstractmethod
from collections import Counter as Tally
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from benchmarks.bench import Figure, Measure
from benchmarks.children import BenchmarkError, is_asleep, output_of, threads
from benchmarks.clients import PING, PONG
from benchmarks.datagrams import QUESTION, asking, bound
from benchmarks.servers import SERVICES
from benchmarks.tls_clients import client_context, make_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from benchmarks.bench import Bench
    from benchmarks.children import Child
    from benchmarks.proxies import Proxy, Running

PEERS = ("haproxy-auto", "nginx", "txmux")
IDLE = 3.0
WARMING_UP = 40
_BATCHES = 5
_PATIENCE = 600.0
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"
_ANSWER = b"HTTP/1.0 200 OK\r\n\r\nhello world\n"
_MOST = 2**16
_TITLES = {
    "start": "start",
    "check": "check of the configuration",
    "connection": "one connection",
    "request": "small request and reply",
    "full": "TLS ended, full handshake",
    "resumed": "TLS ended, resumed session",
    "flow": "UDP, flow of one question",
}
_CALL = re.compile(rb"^\w+\(", re.MULTILINE)
_TOTAL = re.compile(r"^(?:summary|totals): *(\d+)", re.MULTILINE)


class Counter:
    """Counts what a program does, from outside.

    Args:
        folder: For its files, which are its own.
    """

    unit: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def command(self) -> tuple[str, ...]:
        """Return what stands before a program's command, so that it is counted."""

    @abstractmethod
    def so_far(self, pids: Iterable[int] = ()) -> dict[int, float]:
        """Return how many each process had, of these, which have nothing to do, and of those that have ended."""


class Instructions(Counter):
    """Counts instructions in user mode, in thousands."""

    unit = "1,000 instructions"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._found: Tally[int] = Tally()

    def command(self) -> tuple[str, ...]:  # noqa: D102
        output = f"--callgrind-out-file={self.folder}/%p"
        # A process inherits what the one before has counted, unless that has been written down.
        options = ("--trace-children=yes", "--dump-before=*fork*", output)
        return "valgrind", "-q", "--tool=callgrind", *options

    def so_far(self, pids: Iterable[int] = ()) -> dict[int, float]:  # noqa: D102
        for pid in pids:
            dump = ["callgrind_control", "--dump", str(pid)]
            with contextlib.suppress(subprocess.CalledProcessError):  # it is one that starts others
                subprocess.run(dump, capture_output=True, check=True, timeout=_PATIENCE)
        for path in self.folder.iterdir():  # one for each time, with what there was since
            if total := _TOTAL.search(path.read_text(errors="replace")):
                self._found[int(path.name.partition(".")[0])] += int(total[1])
                path.unlink()
        return {pid: count / 1000 for pid, count in self._found.items()}


class Calls(Counter):
    """Counts system calls."""

    unit = "system calls"

    def command(self) -> tuple[str, ...]:  # noqa: D102
        output = f"{self.folder}/thread"
        return "strace", "-ff", "-qq", "--signal=none", "--output", output

    def so_far(self, pids: Iterable[int] = ()) -> dict[int, float]:  # noqa: D102
        processes = {thread: pid for pid in pids for thread in threads(pid)}
        found: Tally[int] = Tally()
        for path in self.folder.iterdir():
            thread = int(path.suffix[1:])
            found[processes.get(thread, thread)] += len(_CALL.findall(path.read_bytes()))
        return {pid: float(count) for pid, count in found.items()}


COUNTERS: Mapping[str, type[Counter]] = {"instructions": Instructions, "calls": Calls}


class Counted:
    """The process of a running proxy that serves clients, counted."""

    def __init__(self, counter: Counter, child: Child) -> None:
        self._counter, self._child = counter, child
        child.settled()
        self._pids = child.started()
        self._so_far = 0.0

    def start(self) -> float:
        """Return what all processes did until now."""
        return sum(self._counter.so_far(self._pids).values())

    def calm(self) -> None:
        """Wait until it has nothing to do."""
        deadline = time.monotonic() + _PATIENCE
        while not all(map(is_asleep, self._pids)):
            if time.monotonic() > deadline:
                raise BenchmarkError("it has always something to do")

    def cost(self, work: Callable[[], object], count: int) -> float:
        """Return what a unit of work takes, as the median of several batches of so many."""
        if len(self._pids) > 1:
            self._find(work)
        for _ in range(WARMING_UP):
            work()
        self._spent()
        began = time.monotonic()
        time.sleep(IDLE)
        by_the_clock = self._spent() / (time.monotonic() - began)
        found = []
        for _ in range(_BATCHES):
            began = time.monotonic()
            for _ in range(count):
                work()
            found.append((self._spent() - by_the_clock * (time.monotonic() - began)) / count)
        return median(found)

    def _find(self, work: Callable[[], object]) -> None:
        """Find out which process it is: the others start it and look after it."""
        before = self._counter.so_far(self._pids)
        for _ in range(WARMING_UP):
            work()
        after = self._counter.so_far(self._pids)
        self._pids = {max(self._pids, key=lambda pid: after.get(pid, 0) - before.get(pid, 0))}

    def _spent(self) -> float:
        self.calm()
        before, self._so_far = (
            self._so_far,
            sum(map(self._counter.so_far(self._pids).__getitem__, self._pids)),
        )
        return self._so_far - before


@attrs.frozen
class Ends:
    """A proxy's clients and its server in one, who act one after the other.

    Attributes:
        port: Where the proxy listens.
        server: Listens where it leads clients to.
        calm: Waits until it has nothing to do.
    """

    port: int
    server: socket.socket
    calm: Callable[[], None]

    def connect(self) -> socket.socket:
        """Open a connection, and say nothing."""
        client = socket.create_connection(("127.0.0.1", self.port), _PATIENCE)
        self.calm()
        return client

    def answer(self, asked: bytes) -> socket.socket:
        """Take the connection that the proxy makes for a request, and answer that."""
        server, _ = self.server.accept()
        expect(server, asked)
        self.calm()
        server.sendall(_ANSWER)
        return server

    def connection(self) -> None:
        """Make a connection for one request."""
        with self.connect() as client:
            client.sendall(_REQUEST)
            with self.answer(_REQUEST):
                expect(client, _ANSWER)
                self.calm()
            expect(client, b"")
            self.calm()
        self.calm()

    def request(self, client: socket.socket, server: socket.socket) -> None:
        """Send a small request and a reply on a connection that stays."""
        client.sendall(PING)
        expect(server, PING)
        self.calm()
        server.sendall(PONG)
        expect(client, PONG)
        self.calm()

    def handshakes(self, *, resumed: bool) -> Iterator[None]:
        """Make connections with TLS, each for one request, as long as there is a next one; the first is not resumed."""
        context, session = client_context(), None
        while True:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(
                incoming, outgoing, server_hostname="www.example.com", session=session
            )
            with self.connect() as client:

                def exchange(
                    step: Callable[[], object],
                    client: socket.socket = client,
                    incoming: ssl.MemoryBIO = incoming,
                    outgoing: ssl.MemoryBIO = outgoing,
                ) -> None:
                    while True:
                        with contextlib.suppress(ssl.SSLWantReadError):
                            step()
                            return
                        client.sendall(outgoing.read())
                        self.calm()
                        incoming.write(client.recv(_MOST))

                exchange(tls.do_handshake)
                if resumed and session is not None and not tls.session_reused:
                    raise BenchmarkError("a session was not resumed")
                client.sendall(outgoing.read())
                self.calm()
                tls.write(_REQUEST)
                client.sendall(outgoing.read())
                with self.answer(_REQUEST):
                    exchange(tls.read)
                    self.calm()
                client.recv(_MOST)  # that it ends; nginx waits for the client to say so, too
                self.calm()
                session = tls.session if resumed else None
            self.calm()
            yield

    def flow(self) -> None:
        """Send a question from a port of its own, and an answer."""
        with asking(self.port) as client:
            _, proxy = self.server.recvfrom(_MOST)
            self.calm()
            self.server.sendto(QUESTION, proxy)
            client.settimeout(_PATIENCE)
            expect(client, QUESTION)
            self.calm()


def expect(end: socket.socket, wanted: bytes) -> None:
    """Take what comes to an end of a connection.

    Raises:
        BenchmarkError: It is something else.
    """
    if (came := end.recv(_MOST)) != wanted:
        raise BenchmarkError(f"{came[:40]!r} came in place of {wanted!r}")


def measure(kind: str, bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Count once, see `Measure`."""
    if proxy.key not in PEERS:
        return {}
    found: dict[str, float] = {}
    with socket.create_server(("127.0.0.1", 0)) as server, bound() as answering:
        for end in (server, answering):
            end.settimeout(_PATIENCE)
        ports = dict.fromkeys(SERVICES, server.getsockname()[1])
        below = attrs.evolve(bench, servers=attrs.evolve(bench.servers, ports=ports))

        @contextlib.contextmanager
        def counted(
            run: Callable[..., AbstractContextManager[Running]], **how: Any
        ) -> Iterator[tuple[Running, Counted]]:
            with run(proxy, **how):
                pass  # which leaves the bytecode of Python's modules behind
            with counting(kind, bench) as counter, run(_below(proxy, counter), **how) as running:
                yield running, Counted(counter, running.child)

        with counted(below.running, asks=False) as (running, costs):
            found["start"] = costs.start()
            ends = Ends(running.ports["HTTP"], server, costs.calm)
            found["connection"] = costs.cost(ends.connection, bench.size(100, 20))
            ends = attrs.evolve(ends, port=running.ports["REDIS"])
            with ends.connect() as client:
                client.sendall(PING)
                with ends.answer(PING) as peer:
                    expect(client, _ANSWER)
                    ask = partial(ends.request, client, peer)
                    found["request"] = costs.cost(ask, bench.size(400, 50))
        with counting(kind, bench) as counter:
            check = _below(proxy, counter, proxy.check)
            words = (word.format(running.config) for word in check.arguments)
            output_of([check.program, *words], bench.proxy_cores, _PATIENCE)
            found["check"] = sum(counter.so_far().values())
        if proxy.tls is not None:
            make_certificate(bench.folder / "tls.pem")
            with counted(below.running, tls=True) as (running, costs):
                ends = Ends(running.ports["HTTP"], server, costs.calm)
                for name, resumed in (("full", False), ("resumed", True)):
                    shake = partial(next, ends.handshakes(resumed=resumed))
                    found[name] = costs.cost(shake, bench.size(50, 10))
        if proxy.udp is not None:
            with counted(below.running_udp, names=answering.getsockname()[1]) as (running, costs):
                ends = Ends(running.ports["ONCE"], answering, costs.calm)
                found["flow"] = costs.cost(ends.flow, bench.size(100, 20))
    return {f"{kind}.{name}": value for name, value in found.items()}


@contextlib.contextmanager
def counting(kind: str, bench: Bench) -> Iterator[Counter]:
    """Count so until the block ends."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as made:
        yield COUNTERS[kind](Path(made))


def _below(proxy: Proxy, counter: Counter, arguments: Sequence[str] | None = None) -> Proxy:
    """Return the proxy below what counts it, with other arguments if some are given."""
    program = proxy.path() or proxy.program
    clean = ("-i", f"PATH={os.environ['PATH']}", "PYTHONHASHSEED=0")
    return attrs.evolve(
        proxy,
        program="env",
        arguments=(*clean, *counter.command(), program, *(arguments or proxy.arguments)),
        values={**proxy.values, "SANDBOX": "off"},  # which allows none of what it is counted by
        patience=_PATIENCE,
    )


def _figures(kind: str) -> tuple[Figure, ...]:
    unit = COUNTERS[kind].unit
    return tuple(
        Figure(f"{kind}.{name}", title, unit, base="nginx" if name == "flow" else "haproxy")
        for name, title in _TITLES.items()
    )


COUNTED = tuple(
    Measure(kind, _figures(kind), partial(measure, kind), rounds=1) for kind in COUNTERS
)
