"""How long a good client waits for a connection and an answer while others storm the proxy as fast as they can.

The storm comes from 127.0.0.1, or from many addresses, and the good client from another one.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from contextlib import ExitStack, suppress
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Literal

import attrs

from benchmarks.bench import Figure
from benchmarks.children import process
from benchmarks.clients import PING, PONG
from benchmarks.datagrams import QUESTION, responding
from benchmarks.measures.latency import percentiles
from benchmarks.proxies import ACCEPTS_PROXY
from benchmarks.tls_clients import make_certificate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy, Running

ONE = ("127.0.0.1",)
MANY = tuple(f"127.0.1.{number}" for number in range(1, 201))
OTHER = "127.0.0.2"
HEADER = b"PROXY TCP4 192.0.2.1 198.51.100.7 51234 443\r\n"

_AT_ONCE = struct.pack("ii", 1, 0)  # linger, but for no time: closing resets
_BIND_ADDRESS_NO_PORT = 24  # ip(7)
_BEGUN = 0.5  # seconds after which the storm has filled what queues there are
_PATIENCE = 10.0
_PAUSE = 0.002
_FLOWS = 2000


def _hello() -> bytes:
    """Make a ClientHello."""
    outgoing = ssl.MemoryBIO()
    tls = _context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="www.example.com")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@attrs.frozen
class Storm:
    """A kind of storm.

    Attributes:
        key: Its name in figures.
        title: What it is.
        said: What each client sends.
        stays: How long: not at all, until an answer or the end comes, or until it is crowded out by others.
        at_once: The most clients that stay.
        config: What the proxy is to do with its clients, apart from leading them on.
        base: The family of proxies that it is compared with.
    """

    key: str
    title: str
    said: bytes
    stays: Literal["no", "answered", "crowded"] = "no"
    at_once: int = 64
    config: Literal["", "tls", "headers", "udp"] = ""
    base: str = "haproxy"


STORMS = (
    Storm("connect", "resets", b""),
    Storm("request", "requests and resets", PING),
    Storm("answer", "requests", PING, "answered"),
    Storm("header", "PROXY headers and requests", HEADER + PING, "answered", config="headers"),
    Storm("hello", "TLS hellos", _hello(), "answered", config="tls"),
    Storm("half", "halves of TLS hellos", _hello()[:200], "crowded", 1000),
    Storm("flow", "new flows of UDP", QUESTION, "answered", config="udp", base="nginx"),
)
FIGURES = tuple(
    Figure(
        f"storm.{storm.key}{percent}",
        f"new {'flow' if storm.config == 'udp' else 'connection'} in a storm of {storm.title}, "
        f"{percent or 50}th percentile",
        "ms",
        base=storm.base,
    )
    for storm in STORMS
    for percent in ("", "99")
)


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    found: dict[str, float] = {}
    for storm in STORMS:
        if proxy.key == "txmux" or proxy.family == storm.base:  # a round has to end some time
            (waited,) = during(bench, proxy, storm, ONE, [OTHER])
            middle, high = percentiles(waited)
            found[f"storm.{storm.key}"], found[f"storm.{storm.key}99"] = middle * 1e3, high * 1e3
    return found


def during(
    bench: Bench, proxy: Proxy, storm: Storm, sources: Sequence[str], good: Sequence[str]
) -> list[list[float]]:
    """Time a good client in a storm, in turns at each of its addresses."""
    with ExitStack() as stack:
        port = _serve(bench, proxy, storm, stack)
        flood = flow_flood if storm.config == "udp" else rage
        stack.enter_context(process(partial(flood, port, storm, sources)))
        time.sleep(_BEGUN)
        return waits(port, storm, good, bench.size(4, 1))


def _serve(bench: Bench, proxy: Proxy, storm: Storm, stack: ExitStack) -> int:
    running: Running
    if storm.config == "udp":
        names = stack.enter_context(responding())
        running = stack.enter_context(bench.running_udp(proxy, names=names))
        return running.ports["ONCE"]
    if storm.config == "tls" and not (bench.folder / "tls.pem").exists():
        make_certificate(bench.folder / "tls.pem")
    if storm.config == "headers":
        proxy = attrs.evolve(proxy, values={**proxy.values, **ACCEPTS_PROXY})
    running = stack.enter_context(bench.running(proxy, tls=storm.config == "tls", asks=False))
    return running.ports["HTTP" if storm.config == "tls" else "REDIS"]


def rage(port: int, storm: Storm, sources: Sequence[str]) -> None:
    """Make connections until the process is ended."""
    poll, clients = select.epoll(), dict[int, socket.socket]()
    for client in _clients(sources):
        with suppress(OSError):
            client.connect_ex(("127.0.0.1", port))
            if storm.said:
                client.send(storm.said)
        if storm.stays == "no":
            client.close()
            continue
        clients[client.fileno()] = client
        if storm.stays == "answered":
            poll.register(client, select.EPOLLIN)
        while len(clients) >= storm.at_once:
            ready = (
                [descriptor for descriptor, _ in poll.poll()] if storm.stays == "answered" else []
            )
            for descriptor in ready or [next(iter(clients))]:
                clients.pop(descriptor).close()


def _clients(sources: Sequence[str]) -> Iterator[socket.socket]:
    for source in cycle(sources):
        client = socket.socket()
        client.setblocking(False)  # noqa: FBT003 - the socket module's signature
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        if source != ONE[0]:
            client.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            client.bind((source, 0))
        yield client


def flow_flood(port: int, storm: Storm, sources: Sequence[str]) -> None:
    """Begin flows until the process is ended: each ends with its answer, and then its port begins another."""
    poll, clients = select.epoll(), dict[int, socket.socket]()
    for source, _ in zip(cycle(sources), range(_FLOWS), strict=False):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.setblocking(False)  # noqa: FBT003 - the socket module's signature
        client.bind((source, 0))
        client.connect(("127.0.0.1", port))
        clients[client.fileno()] = client
        poll.register(client, select.EPOLLIN)
    waiting: dict[int, None] = {}
    for descriptor in cycle(clients):
        with suppress(OSError):
            clients[descriptor].send(storm.said)
        waiting[descriptor] = None
        if len(waiting) >= storm.at_once:
            for ready, _ in poll.poll(0.01):
                clients[ready].recv(2048)
                waiting.pop(ready, None)
            if len(waiting) >= storm.at_once:  # its question was lost
                del waiting[next(iter(waiting))]


def waits(port: int, storm: Storm, good: Sequence[str], seconds: float) -> list[list[float]]:
    """Time connections, one after another; one that is not served counts as all the patience that there is."""
    found: list[list[float]] = [[] for _ in good]
    end = time.monotonic() + seconds * len(good)
    context = _context()
    while time.monotonic() < end or len(found[-1]) < 2:
        for source, its in zip(good, found, strict=True):
            begun, took = time.perf_counter(), _PATIENCE
            with suppress(OSError):
                if _ask(port, storm, source, context):
                    took = time.perf_counter() - begun
            its.append(took)
            time.sleep(_PAUSE)
    return found


def _ask(port: int, storm: Storm, source: str, context: ssl.SSLContext) -> bool:
    if storm.config == "udp":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
            flow.settimeout(1.0)
            flow.bind((source, 0))
            flow.connect(("127.0.0.1", port))
            flow.send(QUESTION)
            return len(flow.recv(2048)) == len(QUESTION)
    with socket.create_connection(("127.0.0.1", port), _PATIENCE, (source, 0)) as client:
        client.settimeout(_PATIENCE)
        if storm.config == "tls":
            with context.wrap_socket(client, server_hostname="www.example.com") as tls:
                tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return tls.recv(8) == b"HTTP/1.1"
        client.sendall(HEADER + PING if storm.config == "headers" else PING)
        return client.recv(len(PONG)) == PONG
