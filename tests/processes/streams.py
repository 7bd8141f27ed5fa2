"""Load: long streams whose bytes are checked, and short connections."""

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import attrs

from tests.interop.children import PATIENCE

KINDS = ("both", "client-finished", "server-finished", "stalled")
"""Bytes both ways with pauses; one end that sends a little and then no more; a client that reads nothing before the end."""

_BLOCK = 1000
_AT_ONCE = 50
_RATE = 1000
"""Blocks a second that all streams together send each way, more or less."""
_SMALL = 2**14  # bytes that the socket of a stalled client takes, more or less
_LARGE = 2**22  # the same, once it reads


@attrs.define
class Stream:
    """What one is to be, and how far it has come.

    Attributes:
        number: Its own, from which its bytes follow.
        kind: One of the kinds.
        client: The client's address, as the access log has it.
        sent: Bytes that the client has sent.
        answered: Bytes that the server has sent.
        received: Bytes that the client has received.
        arrived: Bytes that the server has received.
    """

    number: int
    kind: str
    client: str = ""
    sent: int = 0
    answered: int = 0
    received: int = 0
    arrived: int = 0


class _Bytes:
    """The bytes that one end sends, block by block."""

    def __init__(self, *seed: object) -> None:
        self._random = random.Random(repr(seed))

    def next(self) -> bytes:
        return self._random.randbytes(_BLOCK)


class Load:
    """Streams and short connections, in a thread of their own."""

    def __init__(self, streams: int, visitors: int = 4) -> None:
        self._visitors = visitors
        self._pause = max(0.05, streams / _RATE)
        self.streams = [Stream(number, KINDS[number % len(KINDS)]) for number in range(streams)]
        self.short = 0
        self.problems: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.server: int = self._listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._finishing = asyncio.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, port: int) -> None:
        self._port = port
        self._thread.start()
        if not self._begun.wait(PATIENCE):
            raise AssertionError(f"not all streams have begun: {self.problems}")

    def finish(self) -> None:
        self._loop.call_soon_threadsafe(self._finishing.set)
        self._thread.join(300)
        if self._thread.is_alive():
            raise AssertionError(f"not all streams have ended: {self.problems}")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        server = await asyncio.start_server(self._served, sock=self._listening, backlog=1024)
        self._there = {stream.number: asyncio.Event() for stream in self.streams}
        clients = []
        for one in self.streams:
            clients.append(asyncio.create_task(self._noted(self._client(one), one)))
            if len(clients) % _AT_ONCE == 0:
                await self._there[one.number].wait()
        await asyncio.gather(*(there.wait() for there in self._there.values()))
        self._begun.set()
        visitors = [asyncio.create_task(self._visit()) for _ in range(self._visitors)]
        await asyncio.gather(*clients, *visitors)
        server.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def _noted(self, doing: Coroutine[Any, Any, None], what: object) -> None:
        try:
            await doing
        except (OSError, AssertionError, asyncio.IncompleteReadError) as problem:
            self.problems.append(f"{what}: {problem!r}")

    # Short connections: a byte there and back.

    async def _visit(self) -> None:
        while not self._finishing.is_set():
            await self._noted(self._short(), "a short connection")
            await asyncio.sleep(0.01)

    async def _short(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(b"short   ")
        assert await reader.readexactly(8) == b"short   "
        writer.close()
        self.short += 1

    # Streams.

    async def _client(self, stream: Stream) -> None:
        client = socket.socket()
        if stream.kind == "stalled":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
        client.setblocking(False)  # noqa: FBT003 - the socket module's signature
        await self._loop.sock_connect(client, ("127.0.0.1", self._port))
        reader, writer = await asyncio.open_connection(sock=client, limit=_SMALL)
        stream.client = "{}:{}".format(*client.getsockname())
        writer.write(f"{stream.number:8}".encode())
        stream.sent += 8

        def sent(count: int) -> None:
            stream.sent += count

        def received(count: int) -> None:
            stream.received += count

        few = stream.kind == "client-finished"
        late = client if stream.kind == "stalled" else None
        await asyncio.gather(
            self._send(writer, _Bytes(stream.number, "client"), sent, few=few),
            self._receive(reader, _Bytes(stream.number, "server"), received, late=late),
        )
        assert stream.received == stream.answered, f"{stream}: the end is missing"
        writer.close()

    async def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # somebody who looks what listens
            head = await reader.readexactly(8)
            await self._spoken(head, reader, writer)
        with contextlib.suppress(OSError):
            writer.close()

    async def _spoken(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if head == b"short   ":
            writer.write(head)
            await reader.read()
        else:
            await self._noted(self._server(self.streams[int(head)], reader, writer), head)

    async def _server(
        self, stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._there[stream.number].set()
        stream.arrived += 8

        def sent(count: int) -> None:
            stream.answered += count

        def received(count: int) -> None:
            stream.arrived += count

        few = stream.kind == "server-finished"
        full = stream.kind == "stalled"
        await asyncio.gather(
            self._send(writer, _Bytes(stream.number, "server"), sent, few=few, full=full),
            self._receive(reader, _Bytes(stream.number, "client"), received),
        )
        assert stream.arrived == stream.sent, f"{stream}: the end is missing"

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        known: _Bytes,
        sent: Callable[[int], None],
        *,
        few: bool = False,
        full: bool = False,
    ) -> None:
        chance = random.Random(id(writer))
        count = 0
        while not self._finishing.is_set() and (not few or count < 3):
            writer.write(known.next())
            sent(_BLOCK)
            count += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._drained(writer)), 0.2)
            if full and writer.transport.get_write_buffer_size():
                await self._finishing.wait()
            elif not full:
                await asyncio.sleep(chance.random() * self._pause)
        writer.write_eof()

    async def _drained(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # who reads finds out
            await writer.drain()

    async def _receive(
        self,
        reader: asyncio.StreamReader,
        known: _Bytes,
        received: Callable[[int], None],
        *,
        late: socket.socket | None = None,
    ) -> None:
        if late is not None:
            await self._finishing.wait()
            # Into so little room a system sends a few packets a second.
            late.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LARGE)
        while block := await reader.read(_BLOCK):
            block += await reader.readexactly(_BLOCK - len(block))
            assert block == known.next(), "other bytes"
            received(_BLOCK)
