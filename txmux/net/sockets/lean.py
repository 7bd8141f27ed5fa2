"""Sockets without what Python puts around those of the system."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING


class LeanSocket(socket.socket):
    """A socket like any other, but made and closed by the system's module alone.

    What Python adds has ``makefile()`` keep a socket open, and costs a third of making and closing one. So a file that this
    one makes ends with it.
    """

    _io_refs = 0
    _closed = False

    if not TYPE_CHECKING:
        __init__ = socket.SocketType.__init__
        close = socket.SocketType.close
