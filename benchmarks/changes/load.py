"""Clients while a proxy changes: short connections at a steady rate, and long streams that should live through it all."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine

RATE = 200
"""Short connections a second."""
PATIENCE = 5.0
"""Seconds that a short connection may take."""

_STREAM_PATIENCE = 60.0
_PAUSE = 0.25
_BLOCK = 1000
_GREETING = b"short   "


class Load:
    """Clients and the server behind the proxy, in a thread of their own. The server sends back whatever it gets.

    Args:
        patience: Seconds that a short connection may take.
        at_once: Short connections that there are at a time, at most: on a machine that is too slow for their rate, others wait.

    Attributes:
        server: The port to which the proxy should lead everybody.
        short: How short connections ended: ``served``, ``refused``, ``reset``, ``timed out`` or ``wrong bytes``.
        long: How streams ended: ``lived``, ``cut`` or ``wrong bytes``.
        slowest: Seconds that the slowest short connection took that was served.
    """

    def __init__(self, patience: float = PATIENCE, at_once: float = math.inf) -> None:
        self._patience, self._at_once = patience, at_once
        self.short: Counter[str] = Counter()
        self.long: Counter[str] = Counter()
        self.slowest = 0.0
        self.server = 0
        self._loop = asyncio.new_event_loop()
        self._finishing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait()

    def start(self, port: int) -> None:
        """Let short connections come to this port of the proxy."""
        self._port = port
        self._loop.call_soon_threadsafe(self._begin, self._arrive())

    def stream(self) -> None:
        """Let one more stream begin, and wait until it relays."""
        begun = threading.Event()
        self._loop.call_soon_threadsafe(self._begin, self._stream(begun))
        begun.wait(_STREAM_PATIENCE)

    def finish(self) -> None:
        """End all clients, and wait for them; the second time nothing is left to do."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._finishing.set)
            self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _main(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        self.server = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._finishing.wait()
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _begin(self, doing: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # cancelled at the end, when the proxy keeps it open that should not
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def _arrive(self) -> None:
        due = self._loop.time()
        while not self._finishing.is_set():
            if len(self._tasks) < self._at_once:
                self._begin(self._short())
            due += 1 / RATE
            await asyncio.sleep(max(0.0, due - self._loop.time()))

    async def _short(self) -> None:
        began = self._loop.time()
        outcome = "reset"
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            try:
                outcome = await asyncio.wait_for(self._answer(), self._patience)
            except ConnectionRefusedError:
                outcome = "refused"
            except TimeoutError:
                outcome = "timed out"
        self.short[outcome] += 1
        if outcome == "served":
            self.slowest = max(self.slowest, self._loop.time() - began)

    async def _answer(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        with contextlib.closing(writer):
            writer.write(_GREETING)
            answer = await reader.readexactly(len(_GREETING))
        return "served" if answer == _GREETING else "wrong bytes"

    async def _stream(self, begun: threading.Event) -> None:
        outcome = "cut"
        known = random.Random(id(begun))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            with contextlib.closing(writer):
                while outcome == "cut":
                    block = known.randbytes(_BLOCK)
                    writer.write(block)
                    answer = await asyncio.wait_for(reader.readexactly(_BLOCK), _STREAM_PATIENCE)
                    begun.set()
                    if answer != block:
                        outcome = "wrong bytes"
                    elif self._finishing.is_set():
                        outcome = "lived"
                    else:
                        await asyncio.sleep(_PAUSE)
        self.long[outcome] += 1
