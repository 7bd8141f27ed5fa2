"""Sends a client's first bytes in pieces, each in a packet of its own, and takes the answer."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from txmux.cli.test.dialogues import Answer, RefusedError, Sample

_AT_ONCE = 65536
_PAUSE = 0.02  # seconds, or two round trips: else the other side may read two pieces at once
_MANY, _SHORT_PAUSE = 64, 0.005  # what many pieces add up to would take too long

NO_ANSWER = "no answer"
Where = tuple[socket.AddressFamily, Any]


def resolve(host: str, port: int, patience: float, *, is_udp: bool) -> tuple[Where, int]:
    """Return the first address of a name that can be connected, and how many it has; raises `OSError`."""
    kind = socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM
    found = [(row[0], row[4]) for row in socket.getaddrinfo(host, port, type=kind)]
    for where in found[:-1]:
        with contextlib.suppress(OSError), _connected(where, patience, kind):
            return where, len(found)
    return found[-1], len(found)


def _connected(
    where: Where, patience: float, kind: socket.SocketKind = socket.SOCK_STREAM
) -> socket.socket:
    connection = socket.socket(where[0], kind)
    try:
        connection.settimeout(patience)
        connection.connect(where[1])
    except BaseException:
        connection.close()
        raise
    return connection


def timed(converse: Callable[[], Answer]) -> Answer:
    began = time.monotonic()
    try:
        answer = converse()
    except TimeoutError:
        answer = Answer(NO_ANSWER)
    except ConnectionError:
        answer = Answer("reset")
    except RefusedError as error:
        answer = Answer(str(error))
    answer.seconds = time.monotonic() - began
    return answer


def exchange(
    where: Where, make: Callable[[], Sample], cuts: Sequence[int], patience: float
) -> Answer:
    """Have a dialogue in a connection of its own; raises `OSError` if there is none.

    Args:
        where: The server's address.
        make: Makes the dialogue.
        cuts: Where the first bytes are cut: how many of them are before each cut.
        patience: Seconds until a server counts as silent.
    """
    dialogue, began = make(), time.monotonic()
    first = dialogue.to_send()
    with _connected(where, patience) as connection:
        pause = max(_PAUSE, 2 * (time.monotonic() - began)) if len(cuts) < _MANY else _SHORT_PAUSE
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def converse() -> Answer:
            for start, end in itertools.pairwise((0, *cuts, len(first))):
                time.sleep(pause if start else 0)
                connection.sendall(first[start:end])
            _converse(connection, dialogue, time.monotonic() + patience)
            return dialogue.answer()

        return timed(converse)


def _converse(connection: socket.socket, dialogue: Sample, until: float) -> None:
    ends = False
    while not dialogue.is_done:
        left = until - time.monotonic()
        connection.settimeout(max(0.001, min(left, dialogue.quiet) if ends else left))
        try:
            data = connection.recv(_AT_ONCE)
        except OSError:
            if not ends:
                raise
            return
        if not data and not ends:
            raise RefusedError("closed")
        if not data:
            return
        dialogue.receive(data)
        ends = dialogue.quiet > 0
        if more := dialogue.to_send():
            connection.sendall(more)
