"""Servers that stall, lie or leave: each way once, in the protocols that txmux speaks as a client."""

import math
import os
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self, TypeAlias

import attrs

from tests.interop.children import PATIENCE
from tests.support.ports import free_port

Respond: TypeAlias = Callable[[bytes], bytes]
"""Returns the answer to a request."""

_BLOCK = 1 << 16
_POLL = 0.05  # seconds
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER
SILENT, DRIP, RESET, FORGOTTEN = "silent", "drip", "reset", "forgotten connections"
NO_HANDSHAKE, ELSEWHERE = "no TLS handshake", "redirect to elsewhere"


@attrs.frozen
class Dialect:
    """How a peer is hostile in a protocol.

    Attributes:
        split: Returns the complete requests at the beginning of these bytes, and the rest.
        dripped: The answer of which a byte comes now and then.
        answers: By way: the answer to each request.
        endless: By way: how an answer begins, and what follows again and again.
        has_datagrams: Whether it is asked by UDP first.
    """

    split: Callable[[bytes], tuple[list[bytes], bytes]]
    dripped: bytes
    answers: Mapping[str, bytes]
    endless: Mapping[str, tuple[bytes, bytes]]
    has_datagrams: bool = False

    @property
    def ways(self) -> list[str]:
        return [SILENT, DRIP, RESET, FORGOTTEN, *self.answers, *self.endless]


# HTTP (RFC 9112)


def http_answer(body: bytes, status: str = "200 OK", fields: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{fields}Connection: close\r\n\r\n"
    return head.encode() + body


def _http_requests(data: bytes) -> tuple[list[bytes], bytes]:
    found = []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            break
        found.append(head + b"\r\n\r\n" + rest[:size])
        data = rest[size:]
    return found, data


_OK = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Consul-Index: 7\r\nReplay-Nonce: x\r\n"
)
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_FIELD = b"X-Filling: " + b"a" * 1000 + b"\r\n"
_ITEMS = b'"aaaaaa",' * 1000
HTTP = Dialect(
    _http_requests,
    _OK + b"Content-Length: 1000\r\n\r\n[",
    {
        "wrong type": http_answer(b"<html>Not here</html>", fields="Content-Type: text/html\r\n"),
        "half an answer": _OK + b"Content-Length: 1000\r\n\r\n[",
        ELSEWHERE: b"",  # filled in
        "nested": http_answer(b"[" * 100_000),
        "very many values": http_answer(b"[" + b"[]," * 2_500_000 + b"[]]"),
    },
    {
        "endless head": (_OK, _FIELD),
        "endless field": (_OK + b"X-Filling: ", b"a" * 1000),
        "endless interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        "endless body": (_OK + b"\r\n[", _ITEMS),
        "endless chunks": (_CHUNKED, b"%x\r\n%s\r\n" % (len(_ITEMS), _ITEMS)),
        "endless trailers": (_CHUNKED + b"0\r\n", _FIELD),
    },
)

# RESP, the protocol of Redis


def _commands(data: bytes) -> tuple[list[bytes], bytes]:
    found = []
    while (end := _end_of_command(data)) is not None:
        found.append(data[:end])
        data = data[end:]
    return found, data


def _end_of_command(data: bytes) -> int | None:
    head = re.match(rb"\*(\d+)\r\n", data)
    if head is None:  # an inline command
        line = data.find(b"\r\n")
        return None if line < 0 or data.startswith(b"*") else line + 2
    at = head.end()
    for _ in range(int(head[1])):
        size = re.compile(rb"\$(\d+)\r\n").match(data, at)
        if size is None:
            return None
        at = size.end() + int(size[1]) + 2
    return at if at <= len(data) else None


RESP = Dialect(
    _commands,
    b"$1000\r\n" + b"a" * 1000,
    {
        "wrong type": b"+nonsense\r\n",
        "no RESP": http_answer(b"<html>Bad request</html>", "400 Bad Request"),
        "half an answer": b"*2\r\n$5\r\nab",
        "replica": b"-READONLY You can't write against a read only replica.\r\n",
        "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
        "nested": b"*1\r\n" * 10_000 + b":1\r\n",
    },
    {
        "endless head": (b"+", b"a" * 1000),
        "endless body": (b"$536870912\r\n", b"a" * 1000),
        "endless array": (b"*1000000000\r\n", b"$5\r\naaaaa\r\n" * 100),
        "endless answers": (b"", b"+OK\r\n" * 100),
        "endless nesting": (b"", b"*1\r\n" * 250),
    },
)

# DNS (RFC 1035); by UDP, what takes a connection is said to be too long.

_OTHER = b"\x05other\x04test\0\0\1\0\1"
_ADDRESS = b"\xc0\x0c\0\1\0\1" + struct.pack("!IH4s", 1, 4, b"\x7f\0\0\1")
_TYPE_A = b"\0\1"


def dns_answer(query: bytes, *, flags: int = 0x8180, question: bytes = b"") -> bytes:
    end = query.index(b"\0", 12) + 5
    asked = question or query[12:end]
    has_address = asked[-4:-2] == _TYPE_A and not flags & 0x0200
    head = query[:2] + struct.pack("!5H", flags, 1, int(has_address), 0, 0)
    return head + asked + _ADDRESS * has_address


def _messages(data: bytes) -> tuple[list[bytes], bytes]:
    found = []
    while len(data) >= 2 and len(data) >= (size := 2 + int.from_bytes(data[:2], "big")):
        found.append(data[2:size])
        data = data[size:]
    return found, data


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


_STRAY = framed(dns_answer(b"\0\0" + bytes(10) + _OTHER))
_NO_ANSWERS = {"wrong type": _STRAY, "half an answer": _STRAY[:20], "no DNS": b"\0\1a" * 9}
_MANY_ANSWERS = {"endless answers": (b"", _STRAY * 10)}
DNS = Dialect(_messages, _STRAY, _NO_ANSWERS, _MANY_ANSWERS, has_datagrams=True)
BY_UDP = (SILENT, "wrong type", "no DNS", "endless answers")

# Anything, for checks of servers

_MUCH = b"a" * 1000
_ANY_LENGTH = {"endless body": (b"", _MUCH)}
RAW = Dialect(lambda data: ([data], b""), _MUCH, {"wrong type": b"nonsense\r\n"}, _ANY_LENGTH)


class HostilePeer:
    """A server at a free port of 127.0.0.1, in threads, until the end of the ``with`` block.

    Args:
        good: What it does at first, and again after ``turn("")``: the port of a server that it forwards to, or what
            answers each request.
        way: How it is hostile, of the ways of its dialect; empty: it is not yet.
        context: For TLS; connections to a good server are forwarded as they are.
        interval: Seconds between two bytes that drip.
        rate: Bytes a second that it sends at most to each connection.
        limit: Bytes that it sends at most to each.

    Attributes:
        sent: Bytes that hostile connections were sent.
        most: Of these, the most of one connection.
        connections: How many it has accepted.
        flooded: How many of these it sends something without end.
        followed: How many were made to where it has redirected.
    """

    def __init__(
        self,
        dialect: Dialect,
        way: str = "",
        good: int | Respond | None = None,
        *,
        context: ssl.SSLContext | None = None,
        interval: float = 5.0,
        rate: float = 100e6,
        limit: float = math.inf,
    ) -> None:
        self._dialect, self._good, self._context = dialect, good, context
        self._interval, self._rate, self._limit = interval, rate, limit
        self._way, self._turns = way, 0
        self._over = threading.Event()
        self._opened: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.sent = self.most = self.connections = self.flooded = self.followed = 0
        listening: socket.socket | None = None
        while listening is None:
            port = self.port = free_port("127.0.0.1", kind=socket.SOCK_DGRAM)
            with suppress(OSError):  # somebody has it for TCP
                listening = socket.create_server(("127.0.0.1", port), backlog=256)
        self._listening = listening
        self._elsewhere = socket.create_server(("127.0.0.1", 0))
        self._opened += [self._listening, self._elsewhere]
        url = f"http://127.0.0.1:{self._elsewhere.getsockname()[1]}/"
        self._redirect = http_answer(b"", "302 Found", f"Location: {url}\r\n")
        if dialect.has_datagrams:
            self._datagrams = socket.socket(type=socket.SOCK_DGRAM)
            self._datagrams.bind(("127.0.0.1", port))
            self._opened.append(self._datagrams)

    def __enter__(self) -> Self:
        self._start(self._accept)
        self._start(self._await_followers)
        if self._dialect.has_datagrams:
            self._start(self._take_datagrams)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def turn(self, way: str) -> None:
        """Be hostile in this way from now on, to existing connections at their next request; or be good again, to new ones."""
        self._way = way
        self._turns += 1

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        for one in self._opened:
            one.close()

    def _start(self, target: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _readable(self, *ends: socket.socket) -> list[socket.socket]:
        return select.select(ends, (), (), _POLL)[0]

    def _accept(self) -> None:
        while not self._over.is_set():
            if self._readable(self._listening):
                with suppress(OSError):
                    end, _ = self._listening.accept()
                    self.connections += 1
                    self._start(self._serve, end, self._turns)
            self._threads = [one for one in self._threads if one.is_alive()]

    def _await_followers(self) -> None:
        while not self._over.is_set():
            if self._readable(self._elsewhere):
                with suppress(OSError):
                    self._elsewhere.accept()[0].close()
                    self.followed += 1

    def _serve(self, end: socket.socket, turn: int) -> None:
        with ExitStack() as stack, suppress(OSError, ValueError):
            stack.callback(end.close)
            way = self._way
            if way in {"", FORGOTTEN}:
                if isinstance(self._good, int):
                    self._forward(end, self._good, turn)
                    return
            elif way == NO_HANDSHAKE:
                self._hold(end)
                return
            elif self._context is not None:
                end.settimeout(PATIENCE)
                end = self._context.wrap_socket(end, server_side=True)
                stack.callback(end.close)
            end.settimeout(_POLL)
            self._converse(end, turn)

    def _requests(self, end: socket.socket, data: bytes = b"") -> Iterator[bytes]:
        while not self._over.is_set():
            requests, data = self._dialect.split(data)
            yield from requests
            received = None
            while received is None and not self._over.is_set():
                with suppress(TimeoutError):
                    received = end.recv(_BLOCK)
            if not received:
                return
            data += received

    def _converse(self, end: socket.socket, turn: int, data: bytes = b"") -> None:
        for request in self._requests(end, data):
            if self._way == FORGOTTEN and turn != self._turns:
                self._hold(end)
            elif self._way in {"", FORGOTTEN}:
                if callable(self._good):
                    answer = self._good(request)
                    end.sendall(framed(answer) if self._dialect.has_datagrams else answer)
            else:
                self._misbehave(end, self._way)

    def _misbehave(self, end: socket.socket, way: str) -> None:
        dialect = self._dialect
        if way == RESET:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            end.close()
        elif way == DRIP:
            count = 0
            while not self._over.wait(self._interval):
                at = count % len(dialect.dripped)
                count = self._send(end, dialect.dripped[at : at + 1], count)
        elif way in dialect.answers:
            self._send(end, self._redirect if way == ELSEWHERE else dialect.answers[way], 0)
        elif way in dialect.endless:
            begin, block = dialect.endless[way]
            with self._lock:
                self.flooded += 1
            try:
                self._flood(end, begin, block * (_BLOCK // len(block) or 1))
            finally:
                with self._lock:
                    self.flooded -= 1
        else:
            self._hold(end)

    def _flood(self, end: socket.socket, begin: bytes, block: bytes) -> None:
        started, count = time.monotonic(), self._send(end, begin, 0)
        while not self._over.is_set() and count < self._limit:
            count = self._send(end, block, count)
            early = count / self._rate - (time.monotonic() - started)
            if early > 0.01:
                self._over.wait(early)

    def _send(self, end: socket.socket, data: bytes, before: int) -> int:
        while data and not self._over.is_set():
            with suppress(TimeoutError, ssl.SSLWantWriteError):
                count = end.send(data)
                data, before = data[count:], before + count
                self.sent, self.most = self.sent + count, max(self.most, before)
        return before

    def _hold(self, end: socket.socket) -> None:
        end.settimeout(_POLL)
        while not self._over.is_set():
            with suppress(TimeoutError):
                if not end.recv(_BLOCK):
                    return

    def _forward(self, end: socket.socket, port: int, turn: int) -> None:
        with socket.create_connection(("127.0.0.1", port), 60) as good:
            other = {end: good, good: end}
            while not self._over.is_set():
                is_forgotten = self._turns > turn and self._way == FORGOTTEN
                for source in self._readable(end, good):
                    data = source.recv(_BLOCK)
                    if not data and not is_forgotten:
                        return
                    if not data:  # neither does it pass a close
                        self._hold(other[source])
                        return
                    if is_forgotten:
                        continue
                    if source is end and self._turns > turn and self._way:
                        if self._context is None:
                            end.settimeout(_POLL)
                            self._converse(end, turn, data)
                        return
                    other[source].sendall(data)

    def _take_datagrams(self) -> None:
        while not self._over.is_set():
            if not self._readable(self._datagrams):
                continue
            with suppress(OSError, ValueError):
                query, client = self._datagrams.recvfrom(_BLOCK)
                for answer in self._answers_by_udp(query):
                    self.sent += len(answer)
                    self._datagrams.sendto(answer, client)

    def _answers_by_udp(self, query: bytes) -> Iterator[bytes]:
        way = self._way
        if way in {"", FORGOTTEN}:
            assert callable(self._good)
            yield self._good(query)
        elif way not in BY_UDP:
            yield dns_answer(query, flags=0x8380)
        elif way != SILENT:
            wrong = b"a" * 100 if way == "no DNS" else dns_answer(query, question=_OTHER)
            until = time.monotonic() + 2 * (way == "endless answers")
            yield wrong
            while time.monotonic() < until and self._way == way and not self._over.wait(0.0001):
                yield wrong


FILE_WAYS = ("missing", "a pipe", "a folder", "endless", "huge", "nonsense")


def spoil(path: Path, way: str) -> None:
    """Replace a file by something that cannot be read as one."""
    new = path.with_suffix(".hostile")
    if way == "a folder":
        path.unlink()
        path.mkdir()
        return
    if way == "missing":
        path.unlink()
        return
    if way == "a pipe":
        os.mkfifo(new)
    elif way == "endless":
        new.symlink_to("/dev/zero")
    elif way == "huge":
        with new.open("wb") as file:
            file.truncate(1 << 40)
    else:
        new.write_bytes(b"\xff<html>\0" * 1000)
    new.rename(path)
