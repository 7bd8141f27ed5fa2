"""Bytes of an unknown client at the TCP port of the endpoint ``admin``: answered by HTTP, the same however they come, and never let in."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from typing_extensions import override

from campaign.fuzz.served import Reactor, serving
from campaign.fuzz.target import Target, cuttings, see
from campaign.fuzz.targets.api import administered
from txmux.admin.access import AdminAccess
from txmux.admin.guard import AdminGuard
from txmux.admin.http import AdminClients
from txmux.admin.site import ADMIN, Site
from txmux.rules.reading.tokens import AdminToken

_TOKEN = "a-secret-that-nobody-guesses"
_ANSWER = re.compile(rb"HTTP/\d\.\d (\d{3}) [^\r\n]*\r\n")
_TOLD = re.compile(rb"HTTP/\d\.\d 2[^\r\n]*\r\n([^\r\n]+\r\n)*Content-Type: application/json")
_TURNS = 60
_CONTINUE = b"100"


class _Transport(StringTransport):
    """May be paused at any time, as those of sockets."""

    @override
    def pauseProducing(self) -> None:
        self.producerState = "paused"

    @override
    def resumeProducing(self) -> None:
        self.producerState = "producing"


@functools.cache
def _control() -> tuple[Any, Reactor]:
    running, reactor = serving().__enter__()  # for as long as this process tries inputs
    return administered(running, reactor), reactor


def _check(data: bytes) -> None:
    *_, cuts = ([], *cuttings(data))
    whole, in_pieces = _asked(data, []), _asked(data, cuts)
    see(whole == in_pieces, whole, in_pieces)
    # The page asks for the token, and 404 and the like tell nothing.
    see(not {b"500", b"101"} & {*whole}, whole)


def _asked(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Give the status codes of the answers."""
    control, reactor = _control()
    guard = AdminGuard(frozenset(), reactor.seconds)
    guard.access = AdminAccess.of([AdminToken("admin", "all", _TOKEN)], ())
    clients = AdminClients(Site(control, ADMIN, guard, is_admin=True), reactor)
    channel: Any = clients.buildProtocol(None)
    transport = _Transport()
    channel.makeConnection(transport)
    start = 0
    for cut in (*cuts, len(data)):
        if not (transport.disconnected or transport.disconnecting):
            channel.dataReceived(data[start:cut])
            reactor.advance(0)
        start = cut
    for _ in range(_TURNS):
        reactor.advance(0)
    if not transport.disconnected:
        channel.connectionLost(Failure(ConnectionDone()))
    see(not clients._channels)
    told = transport.value()
    see(not told or _ANSWER.match(told), told)
    see(not _TOLD.search(told), told)
    see(_TOKEN.encode() not in told)
    return [code for code in _ANSWER.findall(told) if code != _CONTINUE]


def _seeds() -> list[bytes]:
    host = b"Host: 10.0.0.1:12345\r\n"
    post = b"POST /api/bans HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\n"
    return [
        b"GET /api/status HTTP/1.1\r\n" + host + b"\r\n",
        b"GET / HTTP/1.1\r\n" + host + b"Authorization: Bearer \xff\r\n\r\n",
        b"GET / HTTP/1.0\r\n" + host + b"Authorization: Basic dHhtdXg6eA==\r\n\r\n",
        post + b"Content-Length: 2\r\n\r\n{}",
        post + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nA: b\r\n\r\n",
        post + b"Expect: 100-continue\r\nContent-Length: 70000\r\n\r\n",
        b"GET /login HTTP/1.1\r\n" + host + b"\r\nGET /openapi.json HTTP/1.1\r\n" + host + b"\r\n",
        b"POST /login HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\n"
        b"Content-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"GET /api/events HTTP/1.1\r\n"
        + host
        + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    ]


_WORDS = (
    b"GET ", b"POST ", b"OPTIONS * ", b"/api/", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n\r\n",
    b"Host: localhost\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n ",
    b"Authorization: Bearer ", b"Authorization: Basic ", b"Cookie: ", b"Connection: close\r\n",
    b"Expect: 100-continue\r\n", b"Origin: http://x\r\n", b"-1", b"+5", b"0x5", b"%2e%2e/", b"%00",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=1500)
