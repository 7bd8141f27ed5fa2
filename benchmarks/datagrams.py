"""Load of datagrams: much data of one flow, and questions of many."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import select
import socket
import time
from typing import TYPE_CHECKING

import attrs

from benchmarks.children import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIZE = 1200
"""Bytes of a datagram, as QUIC has it."""
QUESTION = b"\0\1\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1"
"""Asks for the address of www.example.com (RFC 1035, section 4.1)."""

_IS_ANSWER = 0x80
_numbers, _SPREAD = itertools.count(), 40_503
_SOL_UDP, _SEGMENT, _GRO = 17, 103, 104  # linux/udp.h
_CUT = ((_SOL_UDP, _SEGMENT, SIZE.to_bytes(2, "little")),)
_AT_ONCE = 40  # datagrams that a sender gives to the system at once
_AHEAD = (
    2 * _AT_ONCE
)  # datagrams that it is ahead of the receiver at most: the default buffer of a socket has room for 90
_LATE = 0.02  # seconds after which what has not come is lost
_PATIENCE = 20.0  # seconds until a question counts as not answered
_BUFFER = 4 * 1024 * 1024


@attrs.frozen
class Pumped:
    """What came through.

    Attributes:
        datagrams: How many have come.
        lost: How many have not.
        seconds: For how long.
    """

    datagrams: int
    lost: int
    seconds: float


def bound() -> socket.socket:
    """Make a socket with a port of 127.0.0.1 and a large buffer."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    made.bind(("127.0.0.1", 0))
    return made


def pumped(
    sender: socket.socket, receiver: socket.socket, seconds: float, *, together: bool = True
) -> Pumped:
    """Send datagrams of one length from one socket to another, as fast as they come there.

    Args:
        sender: It is connected.
        receiver: Where they come.
        seconds: For how long.
        together: Whether the system is given many at once, and may give them so; else each is given by itself.
    """
    receiver.setsockopt(_SOL_UDP, _GRO, 1)
    receiver.settimeout(_LATE)
    batch = bytes(SIZE * _AT_ONCE)
    buffer = bytearray(2**16)
    ahead = came = sent = 0
    began = time.perf_counter()
    while time.perf_counter() < began + seconds:
        while ahead <= _AHEAD - _AT_ONCE:
            if together:
                sender.sendmsg((batch,), _CUT)
            else:
                for _ in range(_AT_ONCE):
                    sender.send(batch[:SIZE])
            ahead += _AT_ONCE
            sent += _AT_ONCE
        try:
            while ahead > _AHEAD - _AT_ONCE:
                count = receiver.recv_into(buffer) // SIZE
                came += count
                ahead -= count
        except TimeoutError:
            ahead = 0
    return Pumped(came, max(0, sent - came - ahead), time.perf_counter() - began)


@contextlib.contextmanager
def responding() -> Iterator[int]:
    """Have a process answer all questions of DNS; give its port on 127.0.0.1."""
    with bound() as server:
        port: int = server.getsockname()[1]
        process = multiprocessing.get_context("fork").Process(
            target=_respond, args=(server,), daemon=True
        )
        process.start()
    try:
        yield port
    finally:
        process.kill()
        process.join()


def _respond(server: socket.socket) -> None:
    buffer = bytearray(2048)
    view = memoryview(buffer)
    while True:
        length, client = server.recvfrom_into(buffer)
        buffer[2] |= _IS_ANSWER
        with contextlib.suppress(OSError):
            server.sendto(view[:length], client)


def asked_anew(port: int, count: int, at_once: int = 20) -> None:
    """Ask questions, each from a port of its own.

    Args:
        port: Where to ask on 127.0.0.1.
        count: How many.
        at_once: How many there are at a time.

    Raises:
        BenchmarkError: Some were not answered.
    """
    poll = select.epoll()
    clients: dict[int, socket.socket] = {}
    left = count
    try:
        while left or clients:
            for _ in range(min(left, at_once - len(clients))):
                client = asking(port)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
                left -= 1
            ready = poll.poll(_PATIENCE)
            if not ready:
                raise BenchmarkError(f"{len(clients)} of the last questions were not answered")
            for descriptor, _ in ready:
                with clients.pop(descriptor) as client:
                    try:
                        client.recv(2048)
                    except OSError as problem:
                        raise BenchmarkError(f"a question was refused: {problem}") from problem
    finally:
        poll.close()
        for client in clients.values():
            client.close()


def asking(port: int) -> socket.socket:
    """Make a client that has asked a question."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.connect(("127.0.0.1", port))
    # Identifiers are random, and decide which protocols a question may be of.
    client.send((next(_numbers) * _SPREAD & 0xFFFF).to_bytes(2, "big") + QUESTION[2:])
    return client


def answered(clients: Sequence[socket.socket]) -> int:
    """Count the clients that get an answer to what they have asked."""
    count, deadline = 0, time.monotonic() + _PATIENCE
    for client in clients:
        client.settimeout(max(0.001, deadline - time.monotonic()))
        with contextlib.suppress(OSError):
            count += len(client.recv(2048)) == len(QUESTION)
    return count
