"""A socket without Python's layer over the system's, and options of TCP sockets."""

import contextlib
import errno
import ipaddress
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from txmux.net.sockets.descriptors import DESCRIPTORS

_RESET = struct.pack("ii", 1, 0)  # struct linger: for no time at all
SocketOption: TypeAlias = tuple[int, int, int | bytes]  # as setsockopt() takes its arguments
_CONGESTION = getattr(socket, "TCP_CONGESTION", None)
_SYSTEM_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # of Linux
_MOST_HOSTS, _REMEMBERED = 1000, 60.0  # seconds
_TCP_INFO = getattr(socket, "TCP_INFO", -1)
_HANGS_UP: int = getattr(select, "POLLRDHUP", 0)
_CLOSED = b"\7"  # TCP_CLOSE of Linux, with which `struct tcp_info` begins


class LeanSocket(socket.socket):
    """A socket made and closed by the system's module alone: a third cheaper, but a file made of it ends with it.

    Made of a descriptor, it asks for its address (getsockname(2)), whatever is given: CPython has no other way.
    """

    _io_refs = 0
    _closed = False

    if not TYPE_CHECKING:
        __init__ = socket.SocketType.__init__
        close = socket.SocketType.close
        family = socket.SocketType.family  # a number, not of an enumeration: that takes four calls


def open_socket(family: int, kind: int) -> socket.socket:
    try:
        return LeanSocket(family, kind)
    except OSError:
        DESCRIPTORS.close_cached()
        return LeanSocket(family, kind)


def has_interface(name: str) -> bool:
    try:
        return name.isdigit() or socket.if_nametoindex(name) > 0
    except OSError:
        return False


def host_of(name: tuple[Any, ...]) -> str:
    """Return the host of a socket address as `transport.sockaddr` takes it: a link-local IPv6 address has its zone, ``fe80::1%eth0``."""
    if len(name) < 4 or not name[3]:
        return str(name[0])
    return socket.getnameinfo(name, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]


_BIND_TO_INTERFACE = 62  # SO_BINDTOIFINDEX (asm-generic/socket.h)
_NO_INTERFACE = 2**31 - 1


def admit_none(listening: socket.socket) -> None:
    """Have the system refuse who comes to a TCP socket from now on, so that none is cut when it is shut down. This cannot be undone.

    It hears one interface alone then, which there is not (socket(7)); handshakes that have begun go on.
    """
    if sys.platform == "linux" and listening.family != socket.AF_UNIX:
        with contextlib.suppress(OSError):  # it has an interface already
            listening.setsockopt(socket.SOL_SOCKET, _BIND_TO_INTERFACE, _NO_INTERFACE)


def listen_again(shut: socket.socket, backlog: int) -> None:
    """Listen on a TCP socket that was shut down, maybe by several processes.

    Linux notes the second shutdown for the clients that come later: each would seem to have ended its side already. A connection to
    no family (connect(2), AF_UNSPEC) takes that back.
    """
    if sys.platform == "linux" and not shut.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        import ctypes  # noqa: PLC0415 - few processes need it

        ctypes.CDLL(None).connect(shut.fileno(), bytes(16), 16)
    shut.listen(backlog)


def is_shut(key: str, opened: socket.socket) -> bool:
    """Return whether a stream socket no longer listens. SO_ACCEPTCONN stays set for a UNIX socket that was shut down."""
    if key.startswith("udp:"):
        return False
    if not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return True
    if not key.startswith("unix:"):
        return False
    poll = select.poll()
    poll.register(opened, _HANGS_UP)
    return bool(poll.poll(0))


IPPROTO_MPTCP, _SOL_MPTCP, _MPTCP_INFO = 262, 284, 1  # linux/in.h, linux/socket.h, linux/mptcp.h
_NO_MPTCP = {errno.ENOPROTOOPT, errno.EPROTONOSUPPORT, errno.EINVAL}


def open_multipath(
    family: int, kind: int, make: Callable[[int, int, int], socket.socket] = LeanSocket
) -> socket.socket:
    """Open a socket of Multipath TCP (RFC 8684), or one of TCP if the system has none, or does not want it (``net.mptcp.enabled``)."""
    try:
        return make(family, kind, IPPROTO_MPTCP)
    except OSError as problem:
        if problem.errno in _NO_MPTCP:
            return make(family, kind, 0)
        DESCRIPTORS.close_cached()
        return make(family, kind, IPPROTO_MPTCP)


def multipath_info(connected: socket.socket, length: int) -> bytes | None:
    """Return so much of a connection's ``struct mptcp_info``; ``None`` if it is not of MPTCP, as after a fallback."""
    try:
        return connected.getsockopt(_SOL_MPTCP, _MPTCP_INFO, length)
    except OSError:
        return None


def is_multipath(connected: socket.socket) -> bool:
    return multipath_info(connected, 1) is not None


def is_reset(accepted: Any) -> bool:
    """Return whether the peer has reset an accepted connection of TCP; unlike SO_ERROR, this leaves the error to the next read."""
    try:
        return bool(accepted.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1) == _CLOSED)
    except (OSError, AttributeError):  # not of TCP
        return False


def reset_on_close(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def congestion_options(host: str) -> tuple[SocketOption, ...]:
    """Return the option by which a socket connected to `host` does not pace what crosses no network."""
    return _congestion_options(host, _SYSTEM_CONGESTION, time.monotonic() // _REMEMBERED)


@lru_cache(_MOST_HOSTS)  # it asks the system, which is too slow for each connection
def _congestion_options(host: str, default: Path, _period: float) -> tuple[SocketOption, ...]:
    # BBR sends by timers, which cost more than the sending where nothing needs to be kept from congestion.
    with contextlib.suppress(OSError):
        if _CONGESTION is not None and default.read_text().startswith("bbr"):
            return ((socket.IPPROTO_TCP, _CONGESTION, b"reno"),) * is_on_this_machine(host)
    return ()


def is_on_this_machine(host: str) -> bool:
    """Return whether an IP address is a loopback address or another one of this machine's own."""
    try:
        address = ipaddress.ip_address(host)
        if address.is_loopback:
            return True
        # A connection to an own address comes from the same one. Nothing is sent.
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            return bool(ipaddress.ip_address(probe.getsockname()[0]) == address)
    except (OSError, ValueError):
        return False


def set_options(its: socket.socket, options: Iterable[SocketOption]) -> None:
    """Set options of a socket, except those of IPv6 on a socket of IPv4.

    Raises:
        OSError: The system does not take one; the number is `errno.ENOPROTOOPT`, and the text names it.
    """
    for option in options:
        if option[0] != socket.IPPROTO_IPV6 or its.family == socket.AF_INET6:
            try:
                its.setsockopt(*option)
            except OSError as problem:
                why = f"this system does not take {_written(option)}: {problem.strerror}"
                raise OSError(errno.ENOPROTOOPT, why) from problem


_NODELAY: SocketOption = socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
# The acknowledgement that ends the handshake goes with the first bytes.
EAGER = (_NODELAY, *([] if _QUICKACK is None else [(socket.IPPROTO_TCP, _QUICKACK, 0)]))
"""The options of a TCP socket that is about to be connected, by a client that has bytes to send at once."""


def _written(option: SocketOption) -> str:
    level, number, value = option
    begin = _LEVELS.get(level, "SO_")
    names = (name for name, its in vars(socket).items() if name.startswith(begin) and its == number)
    return f"the socket option {next(names, number)} = {value!r}"


_LEVELS = {socket.IPPROTO_IP: "IP_", socket.IPPROTO_IPV6: "IPV6_", socket.IPPROTO_TCP: "TCP_"}
"""How the names of options begin."""
