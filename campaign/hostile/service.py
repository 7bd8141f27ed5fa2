"""The service under attack, the server behind it, and a good client of each of its listeners."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import statistics
import time
from pathlib import Path

import attrs

from tests.support.certificates import make_authority
from tests.support.echo import EchoServer
from tests.support.ports import free_port
from tests.support.proc import family_of
from tests.support.services import Service
from tests.support.undone import Cleans

TOKEN = "the-token-of-the-campaign-0123456789"
GOOD = "127.0.0.1"
_PAUSE = 0.01
"""Seconds between two connections of a good client."""
_PATIENCE = 60.0

_SETTINGS = """
admin         = 127.0.0.1:{admin}
admin_token   = {folder}/token
metrics       = 127.0.0.1:{metrics}
drain_timeout = 0s
"""
_RULES = """
[listen plain]
endpoint                   = :0
detect_timeout             = 1m
connection_rate_per_source = 5000/s
max_connections_per_source = 10000

[listen proxied]
endpoint          = :0
detect_timeout    = 1m
accept_proxy_from = 127.0.0.0/8

[listen tls]
endpoint       = :0
detect_timeout = 1m

[listen web]
endpoint       = :0
detect_timeout = 1m

[route ended]
under         = tls
match         = tls
terminate_tls = {folder}/server.pem

[route good]
under   = *
match   = payload text=PING
backend = server

[route inside]
under   = ended
match   = payload text=PING
backend = server

[route site]
under   = plain
match   = tls sni=site.example
backend = server

[route web]
under   = web
match   = http host=good.example
backend = server

[backend server]
server = 127.0.0.1:{server}
"""


def request(
    method: str, path: str, *lines: str, body: bytes = b"", host: str = "localhost"
) -> bytes:
    """Write a request with these lines in its head; the last one of its connection, unless they say otherwise."""
    length = [f"Content-Length: {len(body)}"] if body else []
    if not any(line.startswith("Connection:") for line in lines):
        length.append("Connection: close")
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", *length, *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


_PING = b"PING\n"
_SAYS = {
    "proxied": b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n" + _PING,
    "web": request("POST", "/", body=_PING, host="good.example"),
    "admin": request("GET", "/api/status", f"Authorization: Bearer {TOKEN}"),
    "metrics": request("GET", "/metrics"),
}


class Victim:
    def __init__(self, undone: Cleans, folder: Path) -> None:
        echo = EchoServer()
        undone.addCleanup(echo.end)
        make_authority("www.example.com", "www.example.com").write(folder / "server.pem", key=True)
        (folder / "token").write_text(TOKEN)
        ports = {"admin": free_port(), "metrics": free_port()}
        rules = _RULES.format(folder=folder, server=echo.port)
        self.mux = Service(folder, rules, _SETTINGS.format(folder=folder, **ports))
        undone.addCleanup(self.mux.child.end)
        self.ports = {**self.mux.ports, **ports}

    def memory(self) -> int:
        """Return the bytes of its processes that are not shared (proc(5))."""
        texts = (Path(f"/proc/{pid}/status").read_text() for pid in family_of(self.mux.pid))
        found = (re.findall(r"^RssAnon:\s+(\d+)", text, re.MULTILINE) for text in texts)
        return 1024 * sum(int(one) for ones in found for one in ones)

    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in family_of(self.mux.pid))  # noqa: PTH208

    def connect(self, listener: str) -> float:
        """Have a good client connect, and return the seconds until it was served."""
        began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            to = (GOOD, self.ports[listener])
            client = stack.enter_context(socket.create_connection(to, _PATIENCE, (GOOD, 0)))
            if listener == "tls":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                client = stack.enter_context(context.wrap_socket(client))
            client.sendall(_SAYS.get(listener, _PING))
            heard = b""
            while not heard.endswith(_PING):
                more = client.recv(2**16)
                if not more and listener in {"admin", "metrics"} and b" 200 " in heard[:20]:
                    break
                if not more:
                    raise ConnectionError(f"closed after {heard[:100]!r}")
                heard += more
        return time.perf_counter() - began

    def serve(self, listener: str, seconds: float) -> Served:
        """Have a good client come again and again for some time, at least twice; once if it is not served."""
        found = Served()
        end = time.monotonic() + seconds
        while time.monotonic() < end or (len(found.times) < 2 and not found.failed):
            try:
                found.times.append(self.connect(listener))
            except OSError as problem:
                found.failed, found.why = found.failed + 1, repr(problem)
            time.sleep(_PAUSE)
        return found


@attrs.define
class Served:
    """How a good client was served: the seconds of each connection, how many were not served, and the last reason."""

    times: list[float] = attrs.field(factory=list)
    failed: int = 0
    why: str = ""

    def __str__(self) -> str:
        if self.failed or len(self.times) < 2:
            return "not served"
        cuts = statistics.quantiles(self.times, n=100, method="inclusive")
        return f"{cuts[49] * 1e3:.1f} / {cuts[98] * 1e3:.1f}"
