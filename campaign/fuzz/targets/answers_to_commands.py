"""What answers ``txmux status`` and ``txmux top``, which may be anything: bytes of HTTP, the same for each question.

They are shown, or told of in a line.
"""

from __future__ import annotations

import io
import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection
from typing import Any
from unittest import mock

from typing_extensions import override

from campaign.fuzz.target import Target, see
from txmux.cli.remote import ask as asking
from txmux.cli.remote.errors import NoServiceError, ServiceRefusedError, of_txmux
from txmux.cli.remote.find import AdminEndpoint, TcpAddress
from txmux.cli.remote.reports import REPORTS
from txmux.features.top.polling import fetch_snapshot
from txmux.features.top.state import TopState, text_of
from txmux.features.top.view import screen

_PLACE = AdminEndpoint(TcpAddress("127.0.0.1", 1), "", "--admin")
_WIDTH, _HEIGHT = 80, 30


class _Socket:
    """Has been told something, and takes all."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BufferedReader:
        return io.BufferedReader(io.BytesIO(self._data))

    def sendall(self, data: bytes) -> None:
        """Take it."""

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def asked(data: bytes) -> Iterator[Any]:
    class Answering(HTTPConnection):
        @override
        def connect(self) -> None:
            self.sock = _Socket(data)

    with mock.patch.object(asking, "HTTPConnection", Answering):
        yield partial(asking.ask, _PLACE, warn=lambda _: None)


def _check(data: bytes) -> None:
    with asked(data) as ask:
        for show in (show_status, show_top):
            _try(show, ask)


def _try(show: Callable[[Any], object], ask: Any) -> None:
    try:
        with of_txmux():
            show(ask)
    except (NoServiceError, ServiceRefusedError) as problem:
        see(str(problem))


def show_status(ask: Any) -> None:
    found = ask("GET", "/api/status")
    with suppress(NoServiceError):
        backends = ask("GET", "/api/backends")  # the same bytes
        found = {**found, "backends": backends if isinstance(backends, list) else []}
    with mock.patch("builtins.print"):
        REPORTS["status"].write(found, Namespace(check=False))


def show_top(ask: Any) -> None:
    found = ask("GET", "/api/status")
    others = [found] if isinstance(found, dict) else []

    def answer(_: str, path: str, **__: Any) -> Any:
        return found if path == "/api/status" else others

    snapshot = fetch_snapshot(answer, {})
    [*text_of(snapshot)]
    see(len(screen(TopState(), snapshot, _WIDTH, _HEIGHT)) == _HEIGHT)


def _seeds() -> list[bytes]:
    told = {
        "version": "1",
        "pid": 5,
        "started": 1.0,
        "rules_sha256": "ab",
        "last_reload": {"time": 1.0, "ok": False, "changes": "", "errors": ["x"]},
        "connections": {"active": 1, "undecided": 1, "total": 5, "limit": 9},
        "rates": {"bytes_in": 1.5},
        "listeners": [{"name": "web", "accepting": True, "addresses": ["127.0.0.1:1"]}],
        "workers": [{"worker": 1, "pid": 5, "active": 1}],
        "servers": [],
        "name": "web",
        "id": "1-1",
        "state": "relaying",
    }
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    body = json.dumps(told).encode()
    return [
        head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        head + b"\r\n[]",
        b"HTTP/1.0 409 x\r\nTxmux-Missing: y\r\n\r\n" + b'{"ok": false, "errors": ["x"]}',
        b"SSH-2.0-x\r\n",
    ]


_WORDS = (
    b"HTTP/1.1 ", b"Content-Length: ", b"\r\n\r\n", b"null", b"1e999", b"-1", b"[]", b"{}",
    b"[[[[", b"9999999999999999999", b'"started": ', b'"workers": ', b'"rates": ', b'"errors": ',
    b"\\u001b",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=1500)
