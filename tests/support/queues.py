import fcntl
import os
import socket
import termios
from typing import Any

from tests.interop.children import eventually


def copy_of(listening: Any) -> socket.socket:
    return socket.socket(fileno=os.dup(listening.fileno()))


def until_queued(listening: Any, count: int) -> None:
    """Wait until this many clients are in the queue of a socket of TCP: tcpi_unacked of one that listens (tcp(7))."""

    def are_there() -> bool:
        info = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return int.from_bytes(info[24:28], "little") >= count

    with copy_of(listening) as copy:
        eventually(are_there, f"{count} clients are in the queue")


def until_taken(sender: socket.socket) -> None:
    """Wait until all that a socket has sent, its end too, is in the other one (tcp(7), SIOCOUTQ)."""

    def is_taken() -> bool:
        return fcntl.ioctl(sender.fileno(), termios.TIOCOUTQ, bytes(4)) == bytes(4)

    eventually(is_taken, "the other end has all")
