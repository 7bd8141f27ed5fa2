"""Requests to the endpoint ``admin`` that ask for what nobody should get, one by one. Each check gives what it found wrong."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import struct
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import attrs

from campaign.hostile.admin import AUTHORIZED, request
from campaign.hostile.configurations import TOKEN
from campaign.hostile.plain import hello, records
from campaign.hostile.victims import Victim

_JSON = "Content-Type: application/json"
_SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
_STAY = "Connection: keep-alive"
_PATIENCE, _SOON = 60.0, 0.1
_SAFE = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


@attrs.frozen
class Told:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@attrs.frozen
class Endpoint:
    """Where requests go.

    Attributes:
        victim: The service.
    """

    victim: Victim

    def send(self, data: bytes, source: str = "127.0.0.9", patience: float = _PATIENCE) -> bytes:
        """Send bytes, and give all that comes back until nothing has come for some seconds."""
        heard = io.BytesIO()
        with socket.create_connection(
            ("127.0.0.1", self.victim.ports["ADMIN"]), _PATIENCE, source_address=(source, 0)
        ) as client:
            with contextlib.suppress(OSError):
                client.sendall(data)
            client.settimeout(patience)
            with contextlib.suppress(OSError):
                while piece := client.recv(2**16):
                    heard.write(piece)
        return heard.getvalue()

    def ask(self, data: bytes, source: str = "127.0.0.9") -> Told | None:
        """Send one request, and give its answer, if there is one."""
        heard = self.send(data, source)
        if not heard:
            return None
        answer = http.client.HTTPResponse(_Heard(heard))
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Told(answer.status, headers, answer.read())

    def status(self, data: bytes, source: str = "127.0.0.9") -> int:
        """Send one request, and give the status of its answer; 0 without one."""
        told = self.ask(data, source)
        return told.status if told is not None else 0

    def changes(self) -> int:
        """Count the changes that were asked for, as the log tells, but for those that were refused."""
        lines = [line for line in self.victim.said().splitlines() if " asked for POST " in line]
        return sum(": refused:" not in line for line in lines)


class _Heard(socket.socket):
    """What `http.client` reads an answer from."""

    def __init__(self, heard: bytes) -> None:
        super().__init__()
        self._heard = heard

    def makefile(self, *_: Any, **__: Any) -> Any:
        """Give it as a file."""
        self.close()
        return io.BytesIO(self._heard)


def _guessing(to: Endpoint) -> Iterator[str]:
    right = request("GET", "/api/status", AUTHORIZED)
    guesses = [TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "", "null", "é", *map(str, range(14))]
    found = [
        to.status(request("GET", "/api/status", f"Authorization: Bearer {one}"), "127.0.0.3")
        for one in guesses
    ]
    if set(found) != {401, 429} or 429 not in found[-4:]:
        yield f"guesses of the token are answered with {found}"
    if to.status(right, "127.0.0.4") != 200:
        yield "who has the token is not heard while somebody else guesses"
    for path in (f"/api/status?token={TOKEN}", f"/?access_token={TOKEN}"):
        if to.status(request("GET", path), "127.0.0.5") != 401:
            yield f"{path} needs no header"


def _foreign_pages(to: Endpoint) -> Iterator[str]:
    kinds = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "")
    origins = (
        "Origin: http://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "X-None: x",
    )
    for path, kind, origin in product(("/api/stop", "/api/reload"), kinds, origins):
        lines = (AUTHORIZED, f"Content-Type: {kind}", origin)
        if to.status(request("POST", path, *lines, body=b"{}")) not in {403, 415}:
            yield f"a page of elsewhere may do {path} with {kind!r}, {origin}"
    for origin in origins[:3]:
        if to.status(request("POST", "/api/reload", AUTHORIZED, _JSON, origin, body=b"{}")) != 403:
            yield f"a page of elsewhere may reload with {origin}"


def _rebinding(to: Endpoint) -> Iterator[str]:
    port = to.victim.ports["ADMIN"]
    hosts = (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
    )
    for host in (
        *hosts,
        "",
        "localhost@evil.example",
        "evil.example#localhost",
        "0x7f000001",
        "::1",
    ):
        got = to.status(request("GET", "/api/status", AUTHORIZED, host=host))
        if got not in {400, 403} and host != "::1":
            yield f"the host {host!r} is answered with {got}"
    twice = request("GET", "/api/status", "Host: evil.example", AUTHORIZED)
    if to.status(twice) not in {400, 403}:
        yield "two hosts are taken"


def _scripts(to: Endpoint) -> Iterator[str]:
    name = _SCRIPT.encode()
    web = b"GET /" + name.replace(b" ", b"/") + b" HTTP/1.1\r\nHost: " + name + b"\r\n\r\n"
    secured = records(hello(name), 2**14)
    v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    told = b"\x02" + struct.pack(">H", len(name)) + name
    header = v2 + struct.pack(">H", 12 + len(told)) + bytes(12) + told
    for service, said in (
        ("WEB", web),
        ("PLAIN", secured),
        ("TLS", secured),
        ("PROXIED", header + b"x" * 9),
    ):
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", to.victim.ports[service]), _PATIENCE) as client,
        ):
            client.sendall(said)
            client.settimeout(0.2)
            client.recv(1)
    ban = json.dumps({"network": "192.0.2.77", "seconds": 60, "reason": _SCRIPT}).encode()
    if to.status(request("POST", "/api/bans", AUTHORIZED, _JSON, body=ban)) != 200:
        yield "a ban is refused"
    for path in ("/", "/?route=" + _SCRIPT.replace(" ", "/"), "/login", "/metrics", "/api/recent"):
        page = to.ask(request("GET", path, AUTHORIZED, "Accept: text/html"))
        if page is None or page.status >= 500:
            yield f"{path} cannot be shown"
        elif "html" in page.headers.get("content-type", "") and (
            b"<script>alert" in page.body or b"<img src=x" in page.body
        ):
            yield f"{path} shows what a client has sent as it is"
        elif "script-src 'unsafe" in page.headers.get(
            "content-security-policy", "script-src 'unsafe"
        ):
            yield f"{path} lets scripts run that it does not bring"
    undo = request("POST", "/api/bans/remove", AUTHORIZED, _JSON, body=b'{"network":"192.0.2.77"}')
    to.status(undo)


def _paths(to: Endpoint) -> Iterator[str]:
    ways = (
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/static/../site.py",
    )
    more = (
        "/static/..%2f..%2fsite.py",
        "/static//etc/passwd",
        "/static/%00",
        "//etc/passwd",
        "/.git/config",
    )
    last = (
        "file:///etc/passwd",
        "http://169.254.169.254/",
        "/static/..\\..\\site.py",
        "/%c0%ae%c0%ae/x",
    )
    for path in (*ways, *more, *last):
        got = to.status(request("GET", path, AUTHORIZED))
        if got not in {400, 404}:
            yield f"{path} is answered with {got}"


def _smuggling(to: Endpoint) -> Iterator[str]:
    hidden = request("POST", "/api/reload", AUTHORIZED, _JSON)
    chunked = b"0\r\n\r\n" + hidden
    length = f"Content-Length: {len(chunked)}"
    heads = (
        (length, "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", length),
        (length, "Transfer-Encoding : chunked"),
        (length, "Transfer-Encoding: xchunked"),
        (length, "Transfer-Encoding:\x0bchunked"),
        (length, "X: y\r\n Transfer-Encoding: chunked"),
        (length, "Transfer-Encoding: identity, chunked"),
        (length, "Content-Length: 0"),
        ("Content-Length: 0", length),
        ("Content-Length: +0",),
        ("Content-Length: 0_0",),
        ("Content-Length: -1",),
        ("Content-Length: 0x0",),
        ("Content-Length: 0, 0",),
    )
    before = to.changes()
    for head in heads:
        outer = request("POST", "/api/explain", AUTHORIZED, _JSON, _STAY, *head)
        heard = to.send(outer + chunked, patience=_SOON)
        if to.changes() > before:
            yield f"a request in the body of another with {head} is obeyed: {heard[:200]!r}"
            before = to.changes()
    for bare in (hidden.replace(b"\r\n", b"\n"), hidden.replace(b"\r\n", b"\r"), b"\0" + hidden):
        to.send(bare, patience=_SOON)
    for size in (b"0x0", b"+0", b"0_0", b" 0", b"-0", b"0 ", b"ffffffffffffffffff"):
        outer = request(
            "POST", "/api/explain", AUTHORIZED, _JSON, _STAY, "Transfer-Encoding: chunked"
        )
        to.send(outer + size + b"\r\n\r\n", patience=_SOON)
    to.status(request("GET", "/healthz", AUTHORIZED))  # by now the log tells of all before it
    if to.changes() > before:
        yield "a request that was hidden in others is obeyed"


def _bombs(to: Endpoint) -> Iterator[str]:
    texts = [b"[" * 60_000, b'{"a":' * 10_000, b'{"seconds":' + b"9" * 60_000 + b"}"]
    texts += [
        b'{"network":"192.0.2.1","seconds":' + one + b"}"
        for one in (b"1e999", b"NaN", b"1e400", b"-1")
    ]
    texts += [
        b'{"network":"\\ud800"}',
        b'{"network":"192.0.2.1","reason":"\\ud800\\u0000\\u202e"}',
        b"\xff\xfe",
    ]
    texts += [
        b'{"\\ud800":1}',
        b'{"network":"192.0.2.1/0"}',
        b'{"network":{}}',
        b'{"hex":"' + b"0" * 60_001 + b'"}',
    ]
    texts += [
        b'{"text":"\\\\x"}',
        b'{"text":"' + b"\\\\u0000" * 8000 + b'"}',
        b'{"network":"fe80::1%\\u000a"}',
    ]
    texts += [
        b"1" * 60_000,
        b'"' + b"\\u0041" * 10_000 + b'"',
        b"{" + b'"a":1,' * 9000 + b'"a":1}',
        b"null",
    ]
    paths = ("/api/bans", "/api/explain", "/api/connections/close", "/api/listeners/plain")
    for path, text in product(paths, texts):
        got = to.status(request("POST", path, AUTHORIZED, _JSON, body=text))
        if not 400 <= got < 500:
            yield f"{path} answers {got} to {text[:60]!r}"
    for lines in (
        ["A: " + "b" * 60_000],
        [f"A{number}: b" for number in range(2000)],
        ["Cookie: " + "a=b;" * 5000],
    ):
        got = to.status(request("GET", "/api/status", AUTHORIZED, *lines))
        if got not in {0, 400, 413, 431}:
            yield f"a head of {len(lines)} fields is answered with {got}"
    if to.status(request("POST", "/api/bans", AUTHORIZED, _JSON, body=b" " * 300_000)) not in {
        0,
        413,
    }:
        yield "a body of 300 kB is taken"


def _injection(to: Endpoint) -> Iterator[str]:
    evil = "%0d%0aX-Evil:%201%0d%0a%0d%0a2026-01-01%20admin:%20forged%20line%1b[31m"
    for sent in (
        request("POST", f"/api/listeners/a{evil}", AUTHORIZED, _JSON, body=b'{"accepting":true}'),
        request("GET", f"/{evil}", AUTHORIZED),
        request("GET", f"/api/connections?route=a{evil}&limit=1", AUTHORIZED),
        request(
            "POST", "/api/bans", AUTHORIZED, _JSON, body=b'{"network":"a\\r\\nadmin: forged line"}'
        ),
        request("GET", "/api/status", AUTHORIZED, host="a\x1b[31madmin: forged line"),
    ):
        told = to.ask(sent)
        if told is not None and "x-evil" in told.headers:
            yield f"{sent[:60]!r} writes a header into its answer"
    said = to.victim.said()
    if "\x1b" in said or any(" forged line" in line[:60] for line in said.splitlines()):
        yield "a request writes a line into the log"


def _verbs(to: Endpoint) -> Iterator[str]:
    before = to.changes()
    for verb, path in product(
        (
            "TRACE",
            "CONNECT",
            "OPTIONS",
            "PUT",
            "DELETE",
            "PATCH",
            "PROPFIND",
            "get",
            "POST\x00",
            "GET",
        ),
        ("/api/stop", "/api/reload"),
    ):
        lines = (AUTHORIZED, _JSON, "X-HTTP-Method-Override: POST", "X-Canary: c4n4ry")
        told = to.ask(request(verb, path, *lines))
        if told is not None and (told.status < 400 or b"c4n4ry" in told.body):
            yield f"{verb} {path} is answered with {told.status}"
    if to.changes() != before:
        yield "a method that is not POST has changed something"


def _headers(to: Endpoint) -> Iterator[str]:
    for path, authorized in product(
        ("/", "/login", "/api/status", "/nowhere", "/metrics"), (True, False)
    ):
        lines = [AUTHORIZED] if authorized else []
        lines += ["Origin: http://evil.example", "Accept: text/html"]
        told = to.ask(request("GET", path, *lines), "127.0.0.6")
        if told is None:
            yield f"{path} is not answered"
            continue
        for name, value in _SAFE.items():
            if told.headers.get(name) != value and not (
                name == "cache-control" and "static" in path
            ):
                yield f"{path} ({told.status}) has {name} = {told.headers.get(name)}"
        if "frame-ancestors 'none'" not in told.headers.get("content-security-policy", ""):
            yield f"{path} ({told.status}) can be shown in a frame"
        for name in told.headers:
            if name.startswith("access-control-") or name in {"server", "x-powered-by"}:
                yield f"{path} ({told.status}) has {name}"


def _upgrades(to: Endpoint) -> Iterator[str]:
    """Ask for other protocols, which there are none of."""
    for path, wanted in product(
        ("/", "/api/status", "/ws", "/metrics"),
        (
            (
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==",
            ),
            ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        ),
    ):
        for who in ((), (AUTHORIZED,)):
            told = to.ask(request("GET", path, *who, "Connection: Upgrade, close", *wanted))
            if told is None or told.status < 200:
                yield f"{path} changes to what {wanted[0]!r} wants"


def _streams(to: Endpoint) -> Iterator[str]:
    """Have more event streams than there may be connections; when they have gone, others are answered again."""
    sent = request("GET", "/api/events", AUTHORIZED)
    clients = []
    try:
        for _ in range(200):
            client = socket.create_connection(("127.0.0.1", to.victim.ports["ADMIN"]), _PATIENCE)
            clients.append(client)
            with contextlib.suppress(OSError):
                client.sendall(sent)
    finally:
        for client in clients:
            client.close()
    for _ in range(100):
        with contextlib.suppress(OSError):
            if to.status(request("GET", "/healthz", AUTHORIZED)) == 200:
                return
    yield "after two hundred event streams nobody is answered any more"


CHECKS: tuple[Callable[[Endpoint], Iterator[str]], ...] = (
    _guessing,
    _foreign_pages,
    _rebinding,
    _scripts,
    _paths,
    _smuggling,
    _bombs,
    _injection,
    _verbs,
    _headers,
    _upgrades,
    _streams,
)


def wrong(victim: Victim) -> list[str]:
    """Check all, and give what was found wrong."""
    to = Endpoint(victim)
    found = [f"{check.__name__.strip('_')}: {one}" for check in CHECKS for one in check(to)]
    if to.status(request("GET", "/api/status", AUTHORIZED)) != 200:
        found.append("afterwards the endpoint does not answer")
    if "Traceback" in victim.said() or "Unhandled" in victim.said():
        found.append(f"the service's log has an exception:\n{victim.said()[-3000:]}")
    return found
