"""How long a good client waits for a connection and an answer while another makes connections and resets them, as fast as it can."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import Figure
from benchmarks.children import process
from benchmarks.clients import PING, PONG
from benchmarks.measures.latency import percentiles

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.proxies import Proxy

_KINDS = {"connect": b"", "request": PING}
FIGURES = tuple(
    Figure(
        f"storm.{kind}{percent}",
        f"new connection in a storm of {title}, {percent or 50}th percentile",
        "ms",
    )
    for kind, title in (("connect", "resets"), ("request", "requests and resets"))
    for percent in ("", "99")
)
_AT_ONCE = struct.pack("ii", 1, 0)  # linger, but for no time: closing resets
_BEGUN = 0.5  # seconds after which the storm has filled what queues there are
_PATIENCE = 10.0
_PAUSE = 0.002


def measure(bench: Bench, proxy: Proxy) -> dict[str, float]:
    """Measure once, see `Measure`."""
    found: dict[str, float] = {}
    if proxy.family != "haproxy" and proxy.key != "txmux":  # a round has to end some time
        return found
    for kind, said in _KINDS.items():
        with bench.running(proxy) as running:
            port = running.ports["REDIS"]
            with process(partial(rage, port, said)):
                time.sleep(_BEGUN)
                middle, high = percentiles(waits(port, bench.size(4, 1)))
        found[f"storm.{kind}"], found[f"storm.{kind}99"] = middle * 1e3, high * 1e3
    return found


def rage(port: int, said: bytes) -> None:
    """Connect, say this, and reset the connection, until the process is ended."""
    while True:
        with socket.socket() as client, suppress(OSError):
            client.setblocking(False)  # noqa: FBT003 - the socket module's signature
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            client.connect_ex(("127.0.0.1", port))
            if said:
                client.send(said)


def waits(port: int, seconds: float) -> list[float]:
    """Time connections, one after another; one that is not served counts as all the patience that there is."""
    found: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(found) < 2:
        begun = time.perf_counter()
        took = _PATIENCE
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), _PATIENCE) as client:
            client.settimeout(_PATIENCE)
            client.sendall(PING)
            if client.recv(len(PONG)) == PONG:
                took = time.perf_counter() - begun
        found.append(took)
        time.sleep(_PAUSE)
    return found
