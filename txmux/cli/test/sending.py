"""Sends a client's first bytes in pieces, each in a packet of its own, and takes the answer."""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs

from txmux.cli.test.dialogues import RefusedError, Sample

_AT_ONCE = 65536
_PAUSE = 0.02  # seconds between two pieces, or two round trips: else the other side may read both at once
_MANY, _SHORT_PAUSE = 64, 0.005  # what many pieces add up to would take too long

NO_ANSWER = "no answer"

Where: TypeAlias = tuple[socket.AddressFamily, Any]


@attrs.frozen
class Answer:
    """What came of one connection.

    Attributes:
        text: What it is, for people.
        seconds: From the first byte that was sent.
        keys: What it is compared by, from the finest on; nothing if there was no answer.
        noun: What kind of answer it is.
    """

    text: str
    seconds: float
    keys: Sequence[object] = ()
    noun: str = "answer"


def resolve(host: str, port: int, patience: float, *, is_udp: bool) -> tuple[Where, int]:
    """Return the first address of a name that can be connected, and how many it has; raises `OSError`."""
    kind = socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM
    found = [(row[0], row[4]) for row in socket.getaddrinfo(host, port, type=kind)]
    for where in found[:-1]:
        with contextlib.suppress(OSError), _connected(where, kind, patience):
            return where, len(found)
    return found[-1], len(found)


def _connected(where: Where, kind: socket.SocketKind, patience: float) -> socket.socket:
    connection = socket.socket(where[0], kind)
    try:
        connection.settimeout(patience)
        connection.connect(where[1])
    except BaseException:
        connection.close()
        raise
    return connection


def exchange(
    where: Where, make: Callable[[], Sample], cuts: Sequence[int], patience: float
) -> Answer:
    """Have a dialogue in a connection of its own.

    Args:
        where: The server's address.
        make: Makes the dialogue.
        cuts: Where the first bytes are cut: how many of them are before each cut.
        patience: Seconds until a server counts as silent.

    Raises:
        OSError: There is no connection.
    """
    dialogue, began = make(), time.monotonic()
    with _connected(where, socket.SOCK_STREAM, patience) as connection:
        pause = max(_PAUSE, 2 * (time.monotonic() - began)) if len(cuts) < _MANY else _SHORT_PAUSE
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first, began = dialogue.to_send(), time.monotonic()
        try:
            for start, end in itertools.pairwise((0, *cuts, len(first))):
                time.sleep(pause if start else 0)
                connection.sendall(first[start:end])
            _converse(connection, dialogue, time.monotonic() + patience)
            answer = dialogue.answer()
        except TimeoutError:
            answer = NO_ANSWER, (), ""
        except ConnectionError:
            answer = "reset", (), ""
        except RefusedError as error:
            answer = str(error), (), ""
    text, keys, noun = answer
    return Answer(text, time.monotonic() - began, keys, noun)


def _converse(connection: socket.socket, dialogue: Sample, until: float) -> None:
    has_begun = False
    while not dialogue.is_done:
        left = until - time.monotonic()
        connection.settimeout(max(0.001, min(left, dialogue.quiet) if has_begun else left))
        try:
            data = connection.recv(_AT_ONCE)
        except (TimeoutError, ConnectionError):
            if has_begun and dialogue.may_end:
                return
            raise
        if not data and has_begun and dialogue.may_end:
            return
        if not data:
            raise RefusedError("closed")
        has_begun = True
        dialogue.receive(data)
        if more := dialogue.to_send():
            connection.sendall(more)
