"""Ports that nobody has, and the end of those that somebody has."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket

_PORTS = 1000
_FIRST_PORT = 10_000 + _PORTS * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 20)
_ports = (_FIRST_PORT + number % _PORTS for number in itertools.count(os.getpid()))
"""Those of this process of the tests. Nobody gets one of them who asks for any: Linux takes these above 32767."""


def free_port(host: str = "", family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> int:
    """Give a port that nobody has, for who cannot be told to choose one, or where nobody shall be."""
    while True:
        port = next(_ports)
        with socket.socket(family, kind) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port


def free_ports(count: int, host: str = "") -> range:
    """Give ports in a row that nobody has."""
    while True:
        found = [free_port(host) for _ in range(count)]
        if found[-1] - found[0] == count - 1 and found == sorted(found):
            return range(found[0], found[-1] + 1)


def stop_listening(listening: socket.socket) -> None:
    """Close a socket, and wake the threads that accept connections at it: a mere close would leave them waiting."""
    with contextlib.suppress(OSError):  # it may have been closed already
        listening.shutdown(socket.SHUT_RDWR)
    listening.close()
