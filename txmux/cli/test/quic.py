"""Sends QUIC's hello in one datagram or in several, in any order, and takes the answer."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted

from txmux.cli.test.dialogues import Described, RefusedError, described, fillers
from txmux.cli.test.sending import NO_ANSWER, Answer, Where

_PAUSE = 0.02  # seconds between two datagrams
_CARRIED = 1100  # bytes of a hello in a datagram
_DATAGRAM = 65535


def exchange(where: Where, name: str, count: int, order: Sequence[int], patience: float) -> Answer:
    """Begin a connection of QUIC, and end it with the server's certificate.

    Args:
        where: The server's address.
        name: The server's name, for SNI; may be empty.
        count: In how many datagrams the hello comes: it is filled up with names of ALPN that nobody knows.
        order: In which order they are sent: their numbers from 0.
        patience: Seconds until a server counts as silent.

    Raises:
        OSError: Nothing can be sent.
    """
    more = [one.decode("ascii") for one in fillers(_CARRIED * (count - 1))]
    connection = QuicConnection(
        configuration=QuicConfiguration(
            alpn_protocols=["h3", *more], server_name=name or None, verify_mode=ssl.CERT_NONE
        )
    )
    family, address = where
    with socket.socket(family, socket.SOCK_DGRAM) as sending:
        sending.connect(address)
        began = time.monotonic()
        connection.connect(address, now=began)
        first = [data for data, _ in connection.datagrams_to_send(now=began)]
        for number in order:
            sending.send(first[number])
            time.sleep(_PAUSE if len(order) > 1 else 0)
        try:
            text, keys, noun = _converse(sending, connection, address, time.monotonic() + patience)
        except ConnectionError:
            text, keys, noun = "refused: port unreachable", (), ""
        except RefusedError as error:
            text, keys, noun = str(error), (), ""
        return Answer(text, time.monotonic() - began, keys, noun)


def _converse(
    sending: socket.socket, connection: QuicConnection, address: Any, until: float
) -> Described:
    while (now := time.monotonic()) < until:
        timer = min(connection.get_timer() or until, until)
        if select.select([sending], [], [], max(0.0, timer - now))[0]:
            connection.receive_datagram(sending.recv(_DATAGRAM), address, now=time.monotonic())
        else:
            connection.handle_timer(now=time.monotonic())
        certificate = None
        while (event := connection.next_event()) is not None:
            if isinstance(event, ConnectionTerminated):
                raise RefusedError(f"refused: {event.reason_phrase or hex(event.error_code)}")
            if isinstance(event, HandshakeCompleted):
                certificate = connection.tls._peer_certificate
                connection.close()
        for data, _ in connection.datagrams_to_send(now=time.monotonic()):
            sending.send(data)
        if certificate is not None:
            return described(certificate)
    raise RefusedError(NO_ANSWER)
