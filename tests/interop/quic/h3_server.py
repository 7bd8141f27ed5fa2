"""An HTTP/3 server, as a program, until it is ended: it gives `/COUNT` that many bytes, and prints of each connection that is closed how many peers it had."""

import argparse
import asyncio
import sys
from functools import partial
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from aioquic.tls import SessionTicket

from tests.interop.quic.content import content

_LONG_WINDOW = 16 * 1024 * 1024


def have_no_more_ids(connection: Any) -> None:
    """Have an end without connection IDs give no others, which aioquic would do."""
    connection._replenish_connection_ids = lambda: None


class _Served(QuicConnectionProtocol):
    def __init__(self, connection: QuicConnection, stream_handler: Any, name: str) -> None:
        super().__init__(connection, stream_handler)
        if not connection.configuration.connection_id_length:
            have_no_more_ids(connection)
        self._name = name
        self._http: H3Connection | None = None
        self._peers: set[Any] = set()

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        self._peers.add(addr)
        super().datagram_received(data, addr)

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            _say(f"closed, and had {len(self._peers)} peers")
            return
        if self._http is None:
            self._http = H3Connection(self._quic)
        for told in self._http.handle_event(event):
            if isinstance(told, HeadersReceived):
                self._answer(told.stream_id, dict(told.headers)[b":path"].decode())

    def _answer(self, stream: int, path: str) -> None:
        assert self._http is not None
        body = content(self._name, int(path[1:]) if path[1:].isdecimal() else 0)
        own = [(b"content-length", b"%d" % len(body)), (b"server", self._name.encode())]
        headers = [(b":status", b"200"), (b"content-type", b"text/plain"), *own]
        self._http.send_headers(stream, headers)
        self._http.send_data(stream, body, end_stream=True)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("certificate")
    parser.add_argument("key")
    parser.add_argument("--at", default="127.0.0.1:0")
    parser.add_argument("--retry", action="store_true")
    parser.add_argument("--nameless", action="store_true")
    parser.add_argument("--versions", default="1,6b3343cf")
    return parser.parse_args(arguments)


async def _main(wanted: argparse.Namespace) -> None:
    windows: Any = dict.fromkeys(("max_data", "max_stream_data"), _LONG_WINDOW)
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["h3"], **windows)
    configuration.supported_versions = [int(one, 16) for one in wanted.versions.split(",")]
    if wanted.nameless:
        configuration.connection_id_length = 0
    configuration.load_cert_chain(wanted.certificate, wanted.key)
    tickets: dict[bytes, SessionTicket] = {}
    host, _, port = wanted.at.rpartition(":")
    server = await serve(
        host,
        int(port),
        configuration=configuration,
        create_protocol=partial(_Served, name=wanted.name),
        session_ticket_fetcher=tickets.get,
        session_ticket_handler=lambda ticket: tickets.update({ticket.ticket: ticket}),
        retry=wanted.retry,
    )
    assert server._transport is not None
    _say(f"serving on {server._transport.get_extra_info('sockname')[1]}")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(_parsed(sys.argv[1:])))
