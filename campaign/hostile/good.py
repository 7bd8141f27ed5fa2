"""The good client: it makes one connection after another, and notes how long each takes."""

from __future__ import annotations

import contextlib
import gc
import math
import socket
import ssl
import statistics
import time

import attrs

from campaign.hostile.admin import AUTHORIZED, request
from campaign.hostile.server import PING, PONG
from campaign.hostile.victims import Victim

GOOD = "127.0.0.1"
PAUSE = 0.01
"""Seconds between two of its connections."""
PATIENCE = 5.0
"""Seconds after which it gives up, where nobody says otherwise."""

_HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n"
_ASKED = b"GET / HTTP/1.1\r\nHost: good.example\r\nConnection: close\r\n\r\n"
_SAYS = {
    "PROXIED": _HEADER + PING,
    "WEB": _ASKED,
    "ADMIN": request("GET", "/api/status", AUTHORIZED),
    "METRICS": request("GET", "/metrics"),
}
_SERVED = b"HTTP/1.1 200 "


@attrs.frozen
class Served:
    """How the good client was served.

    Attributes:
        times: The seconds that each connection took that was served.
        failed: How many were not.
        why: The last reason.
    """

    times: list[float]
    failed: int
    why: str = ""

    @property
    def percentiles(self) -> tuple[float, float]:
        """The 50th and the 99th percentile; who was not served counts as one that waits for ever."""
        all_of_them = sorted([*self.times, *[math.inf] * self.failed])
        if len(all_of_them) < 2 or math.inf in all_of_them:
            last = len(all_of_them) - 1
            return (
                (all_of_them[last // 2], all_of_them[round(last * 0.99)])
                if all_of_them
                else (math.inf, math.inf)
            )
        cuts = statistics.quantiles(all_of_them, n=100, method="inclusive")
        return cuts[49], cuts[98]


class GoodClient:
    """Asks a service of a proxy.

    Args:
        victim: The proxy.
        service: What it is asked for.
        patience: Seconds after which it gives up.
    """

    def __init__(self, victim: Victim, service: str, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._to = ("127.0.0.1", victim.ports[service])
        self._says = _SAYS.get(service, PING)
        self._is_admin = service in {"ADMIN", "METRICS"}
        self._context: ssl.SSLContext | None = None
        if service in {"TLS", "MUTUAL"}:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        if service == "MUTUAL" and self._context is not None:
            self._context.load_cert_chain(*victim.papers.client)

    def be_served(self) -> float:
        """Make one connection, and give the seconds that it took.

        Raises:
            OSError: It was not served.
        """
        began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(
                socket.create_connection(self._to, self._patience, source_address=(GOOD, 0))
            )
            if self._context is not None:
                client = stack.enter_context(
                    self._context.wrap_socket(client, server_hostname="www.example.com")
                )
            client.sendall(self._says)
            heard = b""
            while not heard.endswith(PONG):
                more = client.recv(2**16)
                if not more and self._is_whole(heard):
                    break
                if not more:
                    raise ConnectionError(f"closed after {heard[:100]!r}")
                heard += more
        return time.perf_counter() - began

    def _is_whole(self, heard: bytes) -> bool:
        return self._is_admin and heard.startswith(_SERVED)

    def served(self, seconds: float) -> Served:
        """Ask again and again for some time, at least twice; once if it is not served."""
        times: list[float] = []
        failed, why = 0, ""
        end = time.monotonic() + seconds
        gc.disable()
        try:
            while time.monotonic() < end or (len(times) < 2 and not failed):
                try:
                    times.append(self.be_served())
                except OSError as problem:
                    failed, why = failed + 1, repr(problem)
                time.sleep(PAUSE)
        finally:
            gc.enable()
        return Served(times, failed, why)
