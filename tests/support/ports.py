import contextlib
import errno
import itertools
import os
import socket
from typing import Any

from twisted.internet.error import CannotListenError

_PORTS = 500
_RANGES = 40
_held: list[socket.socket] = []


def _range() -> int:
    """Choose a range of ports, on Linux one that no other process of tests has as long as this one runs.

    A client that tries again and again to reach a server that has gone comes to whoever listens at its port next.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    for number in range(worker, worker + _RANGES):
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0txmux-tests-ports-{number % _RANGES}")
        except OSError:
            name.close()
        else:
            _held.append(name)
            return number % _RANGES
    return worker % _RANGES


_FIRST_PORT = 10_000 + _PORTS * _range()
_ports = (_FIRST_PORT + number % _PORTS for number in itertools.count(os.getpid()))
"""Those of this process of the tests. Nobody gets one of them who asks for any: Linux takes these above 32767."""


def listen_tcp(reactor: Any, factory: Any, **options: Any) -> Any:
    while True:
        try:
            return reactor.listenTCP(next(_ports), factory, **options)
        except CannotListenError as error:
            if error.socketError.errno != errno.EADDRINUSE:
                raise


def free_port(host: str = "", family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> int:
    """Give a port that nobody has, for who cannot be told to choose one, or where nobody shall be."""
    while True:
        port = next(_ports)
        with socket.socket(family, kind) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port


def free_ports(count: int, host: str = "") -> range:
    while True:
        found = [free_port(host) for _ in range(count)]
        if found[-1] - found[0] == count - 1 and found == sorted(found):
            return range(found[0], found[-1] + 1)


def stop_listening(listening: socket.socket) -> None:
    """Close a socket, and wake the threads that accept connections at it: a mere close would leave them waiting."""
    with contextlib.suppress(OSError):  # it may have been closed already
        listening.shutdown(socket.SHUT_RDWR)
    listening.close()
