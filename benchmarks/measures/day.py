"""A day in the life: the shape that people have, at a rate that all of them bear, with one reload a minute.

200 sites by TLS and HTTP on 50 servers that are checked, a list of 5,000 networks, limits for each source, an access log, two workers, and 2,000
idle connections. Each good client comes by the clock, asks one server, and goes; others come from networks of the list.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import ssl
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from benchmarks.bench import Figure
from benchmarks.children import BenchmarkError, Child, eventually, free_ports, is_listening, process
from benchmarks.measures.latency import percentiles
from benchmarks.templates import fill
from benchmarks.tls_clients import client_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

FIGURES = (
    Figure("day.cpu", "a day in the life, CPU", "% of a core", 2),
    Figure("day.p99", "a day in the life, good client, 99th percentile", "ms", 2),
)

SITES, SERVERS, NETWORKS = 200, 50, 5_000
RATE = 100
"""Clients a second."""
_LISTED_ONE_OF = 10
_HOUSE = tuple(f"127.0.4.{number}" for number in range(1, 21))
_GOOD = tuple(f"127.0.5.{number}" for number in range(1, 201))
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"
_BIND_ADDRESS_NO_PORT = 24  # ip(7)
_PATIENCE = 10.0
_PIECE = 2**16


@attrs.frozen
class Kind:
    """How a program does it.

    Attributes:
        template: Its configuration.
        arguments: Its command line; ``{}`` stands for the configuration's path.
        reload: What has it read its configuration again.
        site: Writes what a site needs: its name and the number of its server.
        server: The same for a server: its number and the port of all.
    """

    template: str
    arguments: Sequence[str]
    reload: signal.Signals
    site: Callable[[str, int], str]
    server: Callable[[int, int], str]


def _of_haproxy(number: int, port: int) -> str:
    address = f"server only {_address(number)}:{port}"
    http = f"backend http-b{number}\n    mode http\n    {address} track tls-b{number}/only\n"
    return f"backend tls-b{number}\n    {address} check inter 3s\n{http}"


def _of_txmux(number: int, port: int) -> str:
    return f"[backend b{number}]\nserver = {_address(number)}:{port}\ncheck = tcp interval=3s\n"


KINDS: Mapping[str, Kind] = {
    "haproxy-auto": Kind(
        "day-haproxy.cfg", ("-W", "-f", "{}"), signal.SIGUSR2, "{0} b{1}".format, _of_haproxy
    ),
    "nginx": Kind(
        "day-nginx.conf",
        ("-e", "stderr", "-g", "user root;", "-c", "{}"),
        signal.SIGHUP,
        "{0} b{1};".format,
        lambda number, port: f"upstream b{number} {{ server {_address(number)}:{port}; }}",
    ),
    "txmux": Kind(
        "day-txmux.ini",
        ("run", "{}"),
        signal.SIGHUP,
        "[route {0}]\nmatch = tls sni={0}\n    http host={0}\nbackend = b{1}\n".format,
        _of_txmux,
    ),
}


def _address(number: int) -> str:
    return f"127.0.2.{number + 1}"


def _name(number: int) -> str:
    return f"site{number}.example.com"


@attrs.frozen
class Service:
    """A proxy that lives such a day.

    Attributes:
        kind: How it does it.
        folder: For its files.
        ports: Where it listens, by the name in the template.
        server: The port of all servers.
    """

    kind: Kind
    folder: Path
    ports: Mapping[str, int]
    server: int

    def write(self, version: int) -> Path:
        """Write its configuration, in which the last site's name has this number."""
        names = [*map(_name, range(SITES - 1)), f"version{version}.example.com"]
        sites = [self.kind.site(name, number % SERVERS) for number, name in enumerate(names)]
        servers = [self.kind.server(number, self.server) for number in range(SERVERS)]
        blocks = itertools.chain(servers, sites if self.kind.template.endswith("ini") else ())
        for suffix in ("txt", "conf"):
            (self.folder / f"day-sites.{suffix}").write_text("\n".join(sites) + "\n")
        return fill(self.kind.template, self.folder, {**self.ports, "SITES": "\n".join(blocks)})


def _write_networks(folder: Path) -> None:
    listed = ["127.9.0.0/16"]
    listed += [f"10.{number // 250}.{number % 250}.0/24" for number in range(NETWORKS - 1)]
    (folder / "day-networks.txt").write_text("\n".join(listed) + "\n")
    (folder / "day-listed.conf").write_text("".join(f"{network} 1;\n" for network in listed))


def serve(listening: Sequence[socket.socket]) -> None:
    """Be all servers: answer whatever comes, and close once the client has."""
    poll = select.epoll()
    servers = {one.fileno(): one for one in listening}
    clients: dict[int, socket.socket] = {}
    for descriptor in servers:
        poll.register(descriptor, select.EPOLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in servers:
                client, _ = servers[descriptor].accept()
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
                continue
            client = clients[descriptor]
            with suppress(OSError):
                if client.recv(_PIECE):
                    client.sendall(_ANSWER)
                    continue
            poll.unregister(descriptor)
            clients.pop(descriptor).close()


def hello(name: str) -> bytes:
    """Make a ClientHello that asks for a name."""
    outgoing = ssl.MemoryBIO()
    tls = client_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def opened(port: int, source: str, said: bytes) -> socket.socket:
    """Connect from an address, and say something."""
    client = socket.socket()
    try:
        client.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        client.bind((source, 0))
        client.settimeout(_PATIENCE)
        client.connect(("127.0.0.1", port))
        client.sendall(said)
    except OSError:
        client.close()
        raise
    return client


def answers(port: int, source: str, said: bytes) -> bool:
    """Tell whether a client that says something is answered by a server."""
    with suppress(OSError), opened(port, source, said) as client:
        return client.recv(_PIECE).startswith(_ANSWER[:12])
    return False


class Clients:
    """Clients that come by the clock, whether or not those before have been answered.

    Args:
        ports: Where to.

    Attributes:
        waited: Seconds from when each good one was due to its answer.
        failed: How many good ones had none.
        let_in: How many of the list were answered all the same.
    """

    def __init__(self, ports: Mapping[str, int]) -> None:
        self.waited: list[float] = []
        self.failed = self.let_in = 0
        self._poll = select.epoll()
        self._waiting: dict[int, tuple[socket.socket, float, bool]] = {}
        sites = [_name(number) for number in range(SITES - 1)]
        said = [(ports["PORT_TLS"], hello(name)) for name in sites]
        said += [(ports["PORT_HTTP"], _asked(name)) for name in sites]
        self._said = itertools.cycle(said)
        self._sources = itertools.cycle(_GOOD)

    def come(self, seconds: float, minute: float, at_each: Callable[[], object]) -> None:
        """Come for so long; do something at each whole minute of so many seconds."""
        due = begun = time.monotonic()
        ends, next_minute = begun + seconds, begun + minute
        number = 0
        while due < ends or (self._waiting and time.monotonic() < ends + _PATIENCE):
            now = time.monotonic()
            if now >= next_minute and next_minute < ends:
                at_each()
                next_minute += minute
            if due < ends and now >= due:
                self._begin(due, listed=number % _LISTED_ONE_OF == 0)
                number += 1
                due = begun + number / RATE
                continue
            for descriptor, _ in self._poll.poll(max(0.0, due - now if due < ends else 0.1)):
                self._end(descriptor)
        for descriptor in [*self._waiting]:
            client, _, _ = self._waiting.pop(descriptor)
            client.close()
            self.failed += 1

    def _begin(self, due: float, *, listed: bool) -> None:
        port, said = next(self._said)
        source = "127.9.0.1" if listed else next(self._sources)
        try:
            client = opened(port, source, said)
        except OSError:
            self.failed += not listed
            return
        self._waiting[client.fileno()] = client, due, listed
        self._poll.register(client, select.EPOLLIN)

    def _end(self, descriptor: int) -> None:
        client, due, listed = self._waiting.pop(descriptor)
        answered = False
        with suppress(OSError):
            answered = client.recv(_PIECE).startswith(_ANSWER[:12])
        client.close()
        if listed:
            self.let_in += answered
        elif answered:
            self.waited.append(time.monotonic() - due)
        else:
            self.failed += 1


def _asked(name: str) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    if proxy.key not in KINDS:
        return {}
    seconds, idle = bench.size(600, 4), bench.size(2_000, 200)
    _write_networks(bench.folder)
    cores = [*bench.proxy_cores, *bench.load_cores]
    with ExitStack() as stack:
        server, tls, http = stack.enter_context(free_ports(3))
        listening = [
            stack.enter_context(socket.create_server((_address(number), server), backlog=4096))
            for number in range(SERVERS)
        ]
        stack.enter_context(process(partial(serve, listening)))
        ports = {"PORT_TLS": tls, "PORT_HTTP": http}
        kind = KINDS[proxy.key]
        service = Service(kind, bench.folder, ports, server)
        config = service.write(0)
        command = [proxy.path() or proxy.program, *(word.format(config) for word in kind.arguments)]
        log = bench.folder / "day.log"
        child = stack.enter_context(Child(command, log, cores[:2], 2 * seconds + 300))
        eventually(
            lambda: child.has_ended() or (is_listening(tls) and is_listening(http)), "it listens"
        )
        if child.has_ended():
            raise BenchmarkError(f"it does not start: {child.last_words()}")
        return _live(bench, child, service, seconds, idle, stack)


def _live(
    bench: Bench, child: Child, service: Service, seconds: float, idle: int, stack: ExitStack
) -> dict[str, float]:
    tls = service.ports["PORT_TLS"]
    version = itertools.count(1)
    last = 0

    def is_version(number: int) -> bool:
        return answers(tls, _HOUSE[0], hello(f"version{number}.example.com"))

    def change() -> None:
        nonlocal last
        last = next(version)
        service.write(last)
        os.kill(child.main(), service.kind.reload)

    eventually(lambda: is_version(0), "it serves")
    quiet = [
        stack.enter_context(opened(tls, source, hello(_name(number % (SITES - 1)))))
        for number, source in zip(range(idle), itertools.cycle(_HOUSE), strict=False)
    ]
    if any(not client.recv(_PIECE) for client in quiet):
        raise BenchmarkError("a connection was not served")
    clients = Clients(service.ports)
    child.settled()
    before, began = child.lifetime_cpu(), time.monotonic()
    clients.come(seconds, bench.size(60, 1), change)
    spent = (child.lifetime_cpu() - before) / (time.monotonic() - began)
    eventually(lambda: is_version(last), "it serves what the last reload has brought")
    for client in quiet:
        client.setblocking(False)  # noqa: FBT003 - Python's own
        with suppress(BlockingIOError):
            client.recv(1)
            bench.notes.append("an idle connection was ended")
            break
    for count, what in ((clients.failed, "had no answer"), (clients.let_in, "of the list had one")):
        if count:
            bench.notes.append(f"beside {len(clients.waited)} good clients {count} {what}")
    return {"day.cpu": spent * 100, "day.p99": percentiles(clients.waited)[1] * 1e3}
