"""Sends a client's first bytes in pieces, each in a packet of its own, and takes the answer."""

import contextlib
import errno
import itertools
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from txmux.errors import MuxError
from txmux.features.test.dialogues import Answer, FirstBytes

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
        with contextlib.suppress(OSError), socket.socket(where[0], kind) as trying:
            trying.settimeout(patience)
            trying.connect(where[1])
            return where, len(found)
    return found[-1], len(found)


def timed(converse: Callable[[], Answer]) -> Answer:
    began = time.monotonic()
    try:
        answer = converse()
    except (TimeoutError, BlockingIOError):
        answer = Answer(NO_ANSWER)
    except (BrokenPipeError, ConnectionAbortedError, ConnectionResetError):
        answer = Answer("reset")
    except MuxError as error:
        answer = Answer(str(error))
    answer.seconds = time.monotonic() - began
    return answer


def exchange_bytes(
    where: Where, make: Callable[[], FirstBytes], cuts: Sequence[int], patience: float
) -> Answer:
    """Exchange bytes in a new connection; raises `OSError` if there is none.

    Args:
        where: The server's address.
        make: Makes the dialogue.
        cuts: Where the first bytes are cut: how many of them are before each cut.
        patience: Seconds until a server counts as silent.
    """
    dialogue = make()
    first = dialogue.to_send()
    pieces = [first[start:end] for start, end in itertools.pairwise((0, *cuts, len(first)))]
    with socket.socket(where[0], socket.SOCK_STREAM) as connection:

        def converse() -> Answer:
            pause = max(_PAUSE, 2 * _connect(connection, where, pieces[0], patience))
            with contextlib.suppress(ConnectionError):  # its answer may have come before that
                for piece in pieces[1:]:
                    time.sleep(pause if len(pieces) < _MANY else _SHORT_PAUSE)
                    connection.sendall(piece)
            _converse(connection, dialogue, time.monotonic() + patience)
            return dialogue.answer()

        return timed(converse)


def _connect(connection: socket.socket, where: Where, piece: bytes, patience: float) -> float:
    """Connect and send the first piece; returns the seconds that it took."""
    limit = struct.pack("@ll", int(patience), int(patience % 1 * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    began, sent = time.monotonic(), 0
    # Linux sends it with the last packet of TCP's handshake: the whole is then there at once for a port that looks only at
    # what has come with the client.
    try:
        sent = connection.sendto(piece, socket.MSG_FASTOPEN, where[1])
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", errno.EOPNOTSUPP) != errno.EOPNOTSUPP:
            raise
        connection.connect(where[1])
    if sent < len(piece):  # to send nothing would fail where the answer came with a reset
        connection.sendall(piece[sent:])
    return time.monotonic() - began


def _converse(connection: socket.socket, dialogue: FirstBytes, until: float) -> None:
    ends = False
    while not dialogue.is_done and (left := until - time.monotonic()) > 0:
        connection.settimeout(min(left, dialogue.quiet) if ends else left)
        try:
            data = connection.recv(_AT_ONCE)
            if not data:
                raise MuxError("closed")  # noqa: TRY301 - as an error of the connection
        except (OSError, MuxError):
            if not ends:
                raise
            return
        dialogue.receive(data)
        ends = dialogue.quiet > 0
        if more := dialogue.to_send():
            connection.sendall(more)
    if not (dialogue.is_done or ends):
        raise TimeoutError
