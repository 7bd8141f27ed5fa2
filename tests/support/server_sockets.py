"""Every socket that a backend has to its servers, as the system has it."""

import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest

from twisted.internet.defer import Deferred

from tests.support.datagrams import Talker, udp_listener
from tests.support.mux import MuxTestCase, backend_at
from tests.support.peers import close, reactor
from txmux.cli.tryout import try_servers
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Check, Listener
from txmux.rules.reading.endpoints import server

STREAMS = ("client", "name", "check", "try of one", "try of all")
"""What has sockets to servers of TCP."""
DATAGRAMS = ("flow", "check of datagrams")
"""What has sockets to servers of UDP."""
_CHECK = Check("expect=", send=b"ping", expect=b"pong", timeout=60)


def own_socket(name: tuple[str, int], kind: socket.SocketKind) -> socket.socket:
    """Return a duplicate of the socket of this process with that address."""
    for path in Path("/proc/self/fd").iterdir():
        if path.is_socket():
            found = socket.socket(fileno=os.dup(int(path.name)))
            if found.type == kind and found.getsockname() == name:
                return found
            found.close()
    raise LookupError(f"no socket of this process has the address {name}")


def tcp_backends(number: int, **keys: Any) -> Iterator[tuple[str, Backend]]:
    yield "client", backend_at(number, **keys)
    yield "name", Backend("name", (server(f"{{local}}:{number}"),), **keys)


class ServerSockets:
    """Makes all these sockets, and looks at them while they are connected.

    Args:
        backends: Yields backends whose server, or what is before it, has a port of this machine.
    """

    def __init__(
        self,
        test: MuxTestCase,
        backends: Callable[..., Iterator[tuple[str, Backend]]] = tcp_backends,
    ) -> None:
        if sys.platform != "linux":
            raise SkipTest("descriptors are found in /proc")
        self._test, self._backends = test, backends
        self._seen = 0

    async def assert_everywhere(self, level: int, name: int, value: int, **keys: Any) -> None:
        """Check that an option has this value on each socket of a backend with these keys."""
        found = {use: one.getsockopt(level, name) async for use, one in self.sockets(**keys)}
        self._test.assertEqual(found, dict.fromkeys((*STREAMS, *DATAGRAMS), value))

    async def sockets(self, **keys: Any) -> AsyncIterator[tuple[str, socket.socket]]:
        async for use, found in self.streams(**keys):
            yield use, found
        async for use, found in self.datagrams(**keys):
            yield use, found

    async def streams(self, **keys: Any) -> AsyncIterator[tuple[str, socket.socket]]:
        number = self._test.backend_port()
        for use, its in self._backends(number, **keys):
            client = await self._test.connect(self._test.mux([route("any", its)]), b"x")
            with closing(await self._next_stream()) as found:
                yield use, found
            close(client, self._test.backend.peers[-1])
        checked = backend_at(number, check=_CHECK, **keys)
        self._test.mux([route("any", checked)])
        self._test.time.advance(_CHECK.interval)
        with closing(await self._next_stream()) as found:
            yield "check", found
        [upstream] = self._test.factory.upstreams.all()
        attempt = self._test.factory.upstreams.try_member(
            upstream, upstream.pool.members[0], lambda _: None
        )
        with closing(await self._next_stream()) as found:
            yield "try of one", found
        attempt.abort()
        trying = self._try_all(checked)
        with closing(await self._next_stream()) as found:
            yield "try of all", found
        self._test.backend.peers[-1].send(b"pong")
        await trying

    async def datagrams(self, **keys: Any) -> AsyncIterator[tuple[str, socket.socket]]:
        talker = Talker.listening(self._test)
        backend = Backend("udp", (server(f"udp:127.0.0.1:{talker.port}"),), check=_CHECK, **keys)
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        bound.bind(("127.0.0.1", 0))
        settings = Listener("udp", endpoints=("udp:127.0.0.1:0",), default=backend)
        listener = udp_listener((), settings, reactor)
        port = listener.listen(bound)
        Talker.listening(self._test).say(b"x", bound.getsockname()[1])
        await talker.hears(1)
        with closing(own_socket(talker.senders[-1], socket.SOCK_DGRAM)) as found:
            yield "flow", found
        listener.abort("killed")
        port.stopListening()
        bound.close()
        listener.drop_idle_timers()
        trying = self._try_all(backend)
        await talker.hears(2)
        with closing(own_socket(talker.senders[-1], socket.SOCK_DGRAM)) as found:
            yield "check of datagrams", found
        talker.say(b"pong", talker.senders[-1][1], talker.senders[-1][0])
        await trying

    async def _next_stream(self) -> socket.socket:
        peer = await self._test.backend.peer(self._seen)
        self._seen += 1
        its = peer.transport.getPeer()
        return own_socket((its.host, its.port), socket.SOCK_STREAM)

    def _try_all(self, backend: Backend) -> Deferred[Any]:
        rules: Any = SimpleNamespace(every_backend=lambda: [backend])
        return Deferred.fromCoroutine(try_servers(rules, reactor))
