"""What the helper that opens files and ports is asked, by a worker that somebody has taken over, or by the service.

An input is a letter, ``w`` for a worker's way to it, and packets. Whatever they are, the next question of somebody else is answered,
no descriptor stays open, and a worker gets nothing but what rules name for it.
"""

from __future__ import annotations

import json
import os
import pwd
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from campaign.fuzz.descriptors import leaving_none_open
from campaign.fuzz.target import Target, joined, see, split
from txmux.processes.helper.opening_server import OpeningServer

_MOST_PACKETS = 8
_PACKET = 1 << 16
_RULES = """\
[txmux]
user = {user}
access_log = log
admin = 127.0.0.1:0
admin_token = token
crowdsec_key = crowdsec
[listen web]
endpoint = 127.0.0.1:0
    unix:{folder}/socket
deny = crowdsec:http://127.0.0.1:1
[route tls]
match = tls
terminate_tls = key.pem
"""
_HERE, _PID = b"@folder", b"@pid"
"""Stand for what is different each time."""
_FOR_WORKERS = frozenset({"rules.ini", "key.pem", "log"})


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="txmux-fuzz-helper-") as made:
        here = Path(made)
        for name in ("key.pem", "crowdsec", "other"):
            (here / name).write_text("x")
        user = pwd.getpwuid(os.geteuid()).pw_name
        (here / "rules.ini").write_text(_RULES.format(user=user, folder=here))
        yield here


@leaving_none_open
def _check(data: bytes) -> None:
    with _folder() as here:
        _ask(here, data[:1] != b"w", split(data[1:], _MOST_PACKETS))


def _ask(here: Path, may_all: bool, packets: list[bytes]) -> None:  # noqa: FBT001 - of an input's first letter
    helper = OpeningServer(here / "rules.ini", here / "txmux.pid", is_privileged=False)
    helper._read()
    with ExitStack() as closing:
        closing.callback(_close_all, helper)
        ends = [_way_to(helper, closing, may_all=one) for one in (may_all, True)]
        for told in packets:
            packet = told.replace(_HERE, os.fsencode(here)).replace(_PID, b"%d" % os.getpid())
            with suppress(ConnectionError):
                socket.send_fds(ends[0], [packet], [ends[1].fileno()])
            _serve(helper)
            for name in _got(ends[0]):
                see(may_all or name in _FOR_WORKERS, name)
        question = {"kind": "open", "path": str(here / "rules.ini"), "write": False}
        ends[1].send(json.dumps(question).encode())
        _serve(helper)
        see([*_got(ends[1])] == ["rules.ini"])


def _close_all(helper: OpeningServer) -> None:
    for one, _ in helper._connections.values():
        one.close()


def _way_to(helper: OpeningServer, closing: ExitStack, *, may_all: bool) -> socket.socket:
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    closing.enter_context(own)
    own.setblocking(False)  # noqa: FBT003 - the socket module's signature
    helper._add(other, may_all=may_all)
    return own


def _serve(helper: OpeningServer) -> None:
    for descriptor, _ in helper._poll.poll(0):
        asker, may_all = helper._connections[descriptor]
        helper.serve_one(asker, may_all=may_all)


def _got(end: socket.socket) -> Iterator[str]:
    """Give the names of what has come, which is closed."""
    with suppress(BlockingIOError, ConnectionError):
        while True:
            packet, descriptors, _, _ = socket.recv_fds(end, _PACKET, 4)
            for one in descriptors:
                name = Path(f"/proc/self/fd/{one}").readlink().name
                os.close(one)
                yield name
            if not packet:
                return


def _seeds() -> list[bytes]:
    here, pid = _HERE.decode(), _PID.decode()
    opens: list[dict[str, Any]] = [
        {"kind": "open", "path": f"{here}/{name}", "write": name == "log", "number": 1}
        for name in ("key.pem", "token", "log", "crowdsec", "other")
    ]
    others: list[dict[str, Any]] = [
        {"kind": "bind", "listener": "web", "text": f"unix:{here}/socket"},
        {"kind": "bind", "listener": "web", "text": "127.0.0.1:0"},
        {"kind": "remove", "path": f"{here}/socket", "device": 1, "inode": pid},
        {"kind": "rules"},
        {"kind": "commit"},
        {"kind": "another", "may_all": True},
        {"kind": "name", "pid": pid, "remove": False},
    ]
    packets = [json.dumps(one).encode().replace(b'"%b"' % _PID, _PID) for one in (*opens, *others)]
    return [who + joined(packets[start : start + 4]) for who in (b"w", b"s") for start in (0, 4, 8)]


_WORDS = (
    b'{"kind":"open",', b'"path":"', b'"write":true', b'"number":', b"[]", b"{}", b"null",
    b"1e999", b"/etc/hosts", b"/../", b"/proc/self/fd/3", b"\\u0000", b'"kind":"another"',
    b'"may_all":true', b'"pid":', b'"kind":"name"', b"[[[[",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=1500)
