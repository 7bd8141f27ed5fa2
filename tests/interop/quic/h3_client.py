"""An HTTP/3 client on asyncio, whose first packets can be cut and shuffled."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
from aioquic._buffer import Buffer
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent
from aioquic.quic.packet import pull_quic_header
from aioquic.tls import Epoch

from tests.interop.quic.h3_server import have_no_more_ids
from tests.wire.quic_builder import cut, initial

PATIENCE = 60.0
"""Seconds that an answer may take; far more than it does take."""
_LONG_WINDOW = 16 * 1024 * 1024


@attrs.define
class Answer:
    server: str = ""
    body: bytearray = attrs.field(factory=bytearray)
    whole: asyncio.Future[None] = attrs.field(factory=asyncio.Future)


class H3Client(QuicConnectionProtocol):
    """A connection: what its handshake has come to, and how many bytes of bodies have come."""

    def __init__(self, connection: QuicConnection, stream_handler: Any) -> None:
        super().__init__(connection, stream_handler)
        self._http = H3Connection(connection)
        self._answers: dict[int, Answer] = {}
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.established: HandshakeCompleted | None = None
        self.got = 0

    @property
    def ids(self) -> set[bytes]:
        return {connection_id.cid for connection_id in self._quic._host_cids}

    @property
    def version(self) -> int:
        version = self._quic._version
        assert version is not None
        return version

    def ask(self, path: str) -> Answer:
        stream = self._quic.get_next_available_stream_id()
        answer = self._answers[stream] = Answer()
        name = "www.example.com"
        head = {":method": "GET", ":scheme": "https", ":authority": name, ":path": path}
        headers = [(key.encode(), value.encode()) for key, value in head.items()]
        self._http.send_headers(stream, headers, end_stream=True)
        self.transmit()
        return answer

    async def get(self, path: str) -> Answer:
        answer = self.ask(path)
        await asyncio.wait_for(answer.whole, PATIENCE)
        return answer

    async def has(self, count: int) -> None:
        waiting: asyncio.Future[None] = asyncio.Future()
        self._waiting.append((count, waiting))
        await asyncio.wait_for(waiting, PATIENCE)

    async def move(self, address: str = "::") -> None:
        """Take another port without knowing it, as behind a NAT, or another address."""
        before = self._transport
        assert before is not None
        await self._loop.create_datagram_endpoint(lambda: self, local_addr=(address, 0))
        before.close()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self.established = event
        elif isinstance(event, ConnectionTerminated):
            for answer in self._answers.values():
                if not answer.whole.done():
                    answer.whole.set_exception(ConnectionError(event.reason_phrase))
        for told in self._http.handle_event(event):
            self._told(told)
        for count, waiting in self._waiting:
            if self.got >= count and not waiting.done():
                waiting.set_result(None)

    def _told(self, told: Any) -> None:
        if isinstance(told, HeadersReceived):
            self._answers[told.stream_id].server = dict(told.headers)[b"server"].decode()
        elif isinstance(told, DataReceived):
            answer = self._answers[told.stream_id]
            answer.body += told.data
            self.got += len(told.data)
            if told.stream_ended:
                answer.whole.set_result(None)


def configuration(
    name: str, *, versions: Sequence[int] = (1,), begins: int = 0, protocols: int = 0, **more: Any
) -> QuicConfiguration:
    """Make the configuration of a client; with 36 `protocols` beside HTTP/3, its hello takes two datagrams."""
    more |= {"server_name": name, "verify_mode": ssl.CERT_NONE}
    more |= {"original_version": begins or versions[0], "supported_versions": [*versions]}
    more |= dict.fromkeys(("max_data", "max_stream_data"), _LONG_WINDOW)
    offered = ["h3", *(f"protocol-{n:030}" for n in range(protocols))]
    return QuicConfiguration(alpn_protocols=offered, **more)


@asynccontextmanager
async def client(
    port: int, settings: QuicConfiguration, *, host: str = "127.0.0.1", scramble: Any = None
) -> AsyncIterator[H3Client]:
    """Connect; `scramble` has the hello cut into pieces, which are shuffled over its packets."""
    how: Any = {"create_protocol": H3Client, "wait_connected": False}
    async with connect(host, port, configuration=settings, **how) as made:
        assert isinstance(made, H3Client)
        if scramble is not None:
            quic: Any = made._quic
            quic.datagrams_to_send = partial(_scrambled, quic, scramble, quic.datagrams_to_send)
        made.transmit()
        await asyncio.wait_for(made.wait_connected(), PATIENCE)
        yield made
    # The port that it has moved to; aioquic knows the first one only.
    if made._transport is not None:
        made._transport.close()


class OneSocket(asyncio.DatagramProtocol):
    """A UDP socket with several connections to a port, told apart by the IDs that they have chosen (RFC 9000, section 5.2)."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self.clients: list[H3Client] = []
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Give a datagram to its connection; the last one has what has no ID."""
        asked = pull_quic_header(Buffer(data=data), host_cid_length=8).destination_cid
        for one in reversed(self.clients):
            if {asked, b""} & one.ids:
                one.datagram_received(data, addr)
                return

    async def connect(
        self, settings: QuicConfiguration, *, tickets: Any = None, waits: bool = True
    ) -> H3Client:
        is_nameless, settings.connection_id_length = not settings.connection_id_length, 8
        keep = None if tickets is None else tickets.append
        connection: Any = QuicConnection(configuration=settings, session_ticket_handler=keep)
        if is_nameless:  # aioquic knows an end without IDs only by half
            connection.host_cid = connection._local_initial_source_connection_id = b""
            connection._host_cids[0].cid = b""
            connection._configuration.connection_id_length = 0
            have_no_more_ids(connection)
        made = H3Client(connection, None)
        self.clients.append(made)
        made.connection_made(self._transport)
        made.connect(self._to)
        if waits:
            await asyncio.wait_for(made.wait_connected(), PATIENCE)
        return made


@asynccontextmanager
async def one_socket(port: int) -> AsyncIterator[OneSocket]:
    loop = asyncio.get_running_loop()
    place = ("127.0.0.1", 0)
    transport, made = await loop.create_datagram_endpoint(partial(OneSocket, port), place)
    try:
        yield made
    finally:
        for one in made.clients:
            one.close()
            one.transmit()
        transport.close()


def _scrambled(quic: Any, chance: random.Random, send: Any, now: float) -> Any:
    """Make the first packets anew, with the same hello in other frames."""
    quic.datagrams_to_send = send
    hello = bytes(quic._crypto_streams[Epoch.INITIAL].sender._buffer)
    first = quic._packet_number
    datagrams = send(now)
    frames = cut(hello, *sorted(chance.sample(range(1, len(hello)), 12)))
    chance.shuffle(frames)
    count = len(datagrams)
    ends = {"destination": quic.original_destination_connection_id, "source": quic.host_cid}
    ends["version"] = quic._version
    made = (initial(b"\1", *frames[n::count], number=first + n, **ends) for n in range(count))
    return [(one, address) for one, (_, address) in zip(made, datagrams, strict=True)]
