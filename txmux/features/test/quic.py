"""Sends QUIC's hello in one datagram or in several, in any order, and takes the answer."""

import logging
import select
import socket
import ssl
import time
from collections.abc import Sequence

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted

from txmux.errors import MuxError
from txmux.features.test.dialogues import Answer, fillers, of_certificate
from txmux.features.test.sending import Where, timed

_PAUSE = 0.02  # seconds between two datagrams
_CARRIED = 1100  # bytes of a hello in a datagram
_DATAGRAM = 65535

logging.getLogger("quic").addHandler(logging.NullHandler())  # else it writes to standard error


def exchange_datagrams(
    where: Where, name: str, count: int, order: Sequence[int], patience: float
) -> Answer:
    """Begin a connection of QUIC, and end it with the server's certificate; raises `OSError` if nothing can be sent.

    Args:
        where: The server's address.
        name: The server's name, for SNI; may be empty.
        count: In how many datagrams the hello comes.
        order: In which order they are sent: their numbers from 0; if one is left out, nothing follows.
        patience: Seconds until a server counts as silent.
    """
    alpn = ["h3", *(one.decode("ascii") for one in fillers(_CARRIED * (count - 1)))]
    sni, unverified = name or None, ssl.CERT_NONE
    settings = QuicConfiguration(alpn_protocols=alpn, server_name=sni, verify_mode=unverified)
    connection = QuicConnection(configuration=settings)
    with socket.socket(where[0], socket.SOCK_DGRAM) as sending:
        sending.connect(where[1])
        connection.connect(where[1], now=time.monotonic())
        first = [data for data, _ in connection.datagrams_to_send(now=time.monotonic())]
        parts = [*([data] for data in first[: count - 1]), first[count - 1 :]]

        def converse() -> Answer:
            for number in order:
                for data in parts[number]:
                    sending.send(data)
                time.sleep(_PAUSE if count > 1 else 0)
            until = time.monotonic() + patience
            return _converse(sending, connection, until, goes_on=len(order) == count)

        return timed(converse)


def _converse(
    sending: socket.socket, connection: QuicConnection, until: float, *, goes_on: bool
) -> Answer:
    while (now := time.monotonic()) < until:
        timer = min(connection.get_timer() or until, until)
        if select.select([sending], [], [], max(0.0, timer - now))[0]:
            data = sending.recv(_DATAGRAM)
            connection.receive_datagram(data, sending.getpeername(), now=time.monotonic())
        else:
            connection.handle_timer(now=time.monotonic())
        answer = None
        while (event := connection.next_event()) is not None:
            if isinstance(event, ConnectionTerminated):
                raise MuxError(event.reason_phrase or f"refused: error {event.error_code:#x}")
            if isinstance(event, HandshakeCompleted) and connection.tls._peer_certificate:
                answer = of_certificate(connection.tls._peer_certificate)
                connection.close()
        for data, _ in connection.datagrams_to_send(now=time.monotonic()) if goes_on else ():
            sending.send(data)
        if answer is not None:
            return answer
    raise TimeoutError
