"""Receives one socket with the facts about its client, and refuses anything else."""

import array
import os
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from txmux.classes import frozen
from txmux.errors import MuxError, printable
from txmux.net.namespaces import UNKNOWN, user_text
from txmux.net.sockets.handoff import MOST
from txmux.net.sockets.unixpath import credentials_of
from txmux.wire.jsontext import MISSHAPEN, parse_json, time_of

_MOST_DESCRIPTORS = 253  # of one message (unix(7)), so that none stays in the system unseen
_LONGEST_WHY = 200  # characters
_VERSION = 1
_INTERNET = {socket.AF_INET, socket.AF_INET6}


class NotGivenError(MuxError):
    """The message is not a client's socket with its facts, or its sender may not send it; its descriptors have been closed."""


@frozen
class HandedOver:
    """The facts that txmux sends with a client's socket.

    Attributes:
        id: Identifies the connection in the access log of txmux.
        time: When the client was accepted, in seconds since the epoch.
        listener: The name of the ``[listen]`` section.
        route: The name of the route; ``None`` if the client came by ``default``, and ``silent`` by that key.
        client: The client's address and port, those in the PROXY protocol header if there was one.
        local: The address and port that it connected to.
        facts: What was learnt of it: ``sni``, ``host`` …
    """

    id: str
    time: float
    listener: str
    route: str | None
    client: tuple[str, int]
    local: tuple[str, int]
    facts: Mapping[str, str]


def receive(
    sender: socket.socket, users: Collection[int] | None = None
) -> tuple[socket.socket, HandedOver]:
    """Receive a client's socket. The caller then answers ``taken`` to the sender, and closes it.

    Args:
        sender: A connection that was accepted on a UNIX socket of the type ``SOCK_SEQPACKET``.
        users: The users whose processes may send, txmux's among them; by default root and the user of this process.

    Returns:
        The client's socket, not blocking, and its facts.

    Raises:
        BlockingIOError: The sender is not blocking, and has not sent anything yet.
        NotGivenError: It has sent something else.
        OSError: The sender is gone.
    """
    _check_sender(sender, {0, os.geteuid()} if users is None else users)
    space = socket.CMSG_SPACE(_MOST_DESCRIPTORS * array.array("i").itemsize)
    data, ancillary, flags, _ = sender.recvmsg(MOST, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    try:
        _check_message(data, descriptors, flags)
        message = read(data)
        client = _client_socket(descriptors[0])
    except BaseException:
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)
        raise
    return client, message


def _check_message(data: bytes, descriptors: Collection[int], flags: int) -> None:
    if flags & socket.MSG_TRUNC:
        raise NotGivenError(f"the message has more than {MOST} bytes")
    if flags & socket.MSG_CTRUNC:
        message = "not all descriptors could be received: is the limit of open files reached?"
        raise NotGivenError(message)
    if not data and not descriptors:
        raise NotGivenError("the connection was closed without a message")
    if len(descriptors) != 1:
        raise NotGivenError(f"the message has {len(descriptors)} descriptors, not one")


def read(data: bytes) -> HandedOver:
    """Read a message.

    Raises:
        NotGivenError: It is not one.
    """
    try:
        message = parse_json(data)
        if message["version"] != _VERSION:
            raise ValueError(message["version"])
        return HandedOver(
            id=_of(str, message["id"]),
            time=time_of(_of((int, float), message["time"])),
            listener=_of(str, message["listener"]),
            route=None if message["route"] is None else _of(str, message["route"]),
            client=_address(message["client"]),
            local=_address(message["local"]),
            facts={
                _of(str, name): _of(str, fact) for name, fact in _of(dict, message["facts"]).items()
            },
        )
    except MISSHAPEN as problem:
        why = printable(repr(problem), _LONGEST_WHY)
        raise NotGivenError(f"the message cannot be read: {why}") from None


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _address(value: Any) -> tuple[str, int]:
    host, port = _of(list, value)
    if not 0 <= _of(int, port) <= 0xFFFF:
        raise ValueError(port)
    return str(ip_address(_of(str, host))), port


def _check_sender(sender: socket.socket, users: Collection[int]) -> None:
    process, user, _ = credentials_of(sender) or (0, UNKNOWN, 0)
    if user not in users:
        message = f"process {process} of {user_text(user)} may not send sockets here; if it may, name the user"
        raise NotGivenError(message)


def _client_socket(descriptor: int) -> socket.socket:
    """Make a socket of a descriptor, which is the socket's from then on."""
    try:
        client = socket.socket(fileno=descriptor)
    except OSError:
        raise NotGivenError("the descriptor is not a socket") from None
    is_listening = client.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if client.family not in _INTERNET or client.type != socket.SOCK_STREAM or is_listening:
        client.detach()
        raise NotGivenError("the descriptor is not a connected TCP socket")
    client.settimeout(0)
    return client
