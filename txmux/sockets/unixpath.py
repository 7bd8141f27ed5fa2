"""The files of listening UNIX sockets."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def clear(path: Path, kind: int = socket.SOCK_STREAM) -> None:
    """Remove a UNIX socket that nobody listens on any more, and only such a one.

    Args:
        path: Where somebody wants to listen.
        kind: The type of socket that is expected there.

    Raises:
        OSError: Something else is there.
    """
    if not path.exists():
        return
    if not path.is_socket():
        raise OSError(
            errno.EEXIST,
            "something other than a socket is there: move it away or choose another path",
        )
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as problem:
            # Its queue is full, or it is of another type.
            if problem.errno not in {errno.EAGAIN, errno.EPROTOTYPE}:
                raise
    raise OSError(
        errno.EADDRINUSE, "another program listens there: stop that one or choose another path"
    )
