"""Listening UNIX sockets, opened without a reactor."""

from __future__ import annotations

import socket
from pathlib import Path

from txmux.net.sockets.unixpath import bind
from txmux.rules.reading.endpointstrings import SERVER, Arguments

_MODE = "666"


def unix_path(arguments: Arguments) -> Path:
    """Return where a ``unix:`` endpoint listens."""
    return Path(SERVER["unix"].check(arguments)["address"])


def open_unix_socket(arguments: Arguments, backlog: int) -> socket.socket:
    """Open the socket of a ``unix:`` endpoint; a file that nobody listens on any more is replaced.

    Args:
        arguments: Those of the endpoint. ``lockfile`` means nothing: the socket itself tells whether it is in use.
        backlog: Connections that may wait to be accepted, unless the arguments say otherwise.

    Raises:
        OSError: It cannot be opened, since something else is in the way, for one.
    """
    named = SERVER["unix"].check(arguments)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)  # noqa: FBT003 - the socket module's signature
        bind(opened, Path(named["address"]), int(named.get("mode", _MODE), 8))
        opened.listen(int(named.get("backlog", backlog)))
    except OSError:
        opened.close()
        raise
    return opened


def is_in_use(path: Path) -> bool:
    """Return whether somebody listens at a UNIX socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # noqa: FBT003 - the socket module's signature
        try:
            probe.connect(str(path))
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
    return True
