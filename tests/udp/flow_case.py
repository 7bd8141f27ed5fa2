"""A test case with flows, that move, and with a second process that takes them over, as far as a test's own process can be one."""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from tests.support.datagrams import Talker, turn, udp_listener
from tests.support.kit import ServiceTestCase, change_constants, reactor
from tests.udp.test_migration import FIRST, answer
from txmux.net.channel import messages
from txmux.net.channel.message import Message
from txmux.rules.model import Route
from txmux.telemetry.counting.counter_groups import LISTENER
from txmux.udp import migration
from txmux.udp.handover import adopt_flows, end_flows, hand_over_flows
from txmux.udp.listener import UDPListener
from txmux.udp.port import DatagramPort

PROXIED = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c" + bytes([9, 9, 9, 9, 8, 8, 8, 8, 0, 7, 0, 8])
"""A header: 9.9.9.9:7 has asked 8.8.8.8:8."""
LISTEN = """
[txmux]
access_log = LOG
access_log_format = json
[listen u]
endpoint = udp:127.0.0.1:0
"""
"""Rules with one listener, to which more keys or sections are added."""
_RULES = f"""{LISTEN}default = b
%s
[backend b]
server = udp:127.0.0.1:%s
%s
"""


def reversed_bytes(data: bytes) -> bytes:
    return data[::-1]


class There:
    """Another process, which gets what goes through a channel: JSON, and duplicates of descriptors; without a listener it takes no flows."""

    def __init__(
        self,
        listener: UDPListener | None = None,
        port: DatagramPort | None = None,
        edit: Callable[[dict[str, Any]], object] = lambda _: None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self.taken = None if listener is None or port is None else (listener, port)
        self._edit = edit
        self._meanwhile = meanwhile

    def ask(
        self, message: Message, *, seconds: float, descriptors: Sequence[int], **values: Any
    ) -> Deferred[Any]:
        assert (message, seconds > 0) == (messages.ADOPT_FLOWS, True)
        flows = json.loads(json.dumps(values["flows"]))
        for reported in flows:
            self._edit(reported)
        answer = adopt_flows([*map(os.dup, descriptors)], flows, lambda *_: self.taken)
        self._meanwhile()
        return succeed(json.loads(json.dumps(answer)))

    def send(self, message: Message, **values: Any) -> None:
        assert (message, self.taken is None) == (messages.END_FLOWS, False)
        assert self.taken is not None
        end_flows(self.taken[0].connections, values["reasons"])


class FlowCase(ServiceTestCase):
    """A service with a listener of datagrams, and another process that can take its flows.

    Attributes:
        silence: After how many seconds a flow moves to another address of its client.
    """

    silence = migration.SILENCE

    def setUp(self) -> None:
        super().setUp()
        change_constants(self, migration, SILENCE=self.silence)

    def begin(self, *servers: int, listen: str = "", backend: str = "") -> int:
        lines = "\n    udp:127.0.0.1:".join(map(str, servers))
        [port] = self.run_service(_RULES % (listen, lines, backend))
        return port

    def datagrams(self, what: str) -> int:
        [listener] = self.running.listeners
        for flow in listener.connections:
            flow.count_bytes()
        return listener.configuration.counts.cells[LISTENER.names.index(f"datagrams {what}")]

    def served(
        self, answer: Callable[[bytes], bytes] = reversed_bytes, **rules: str
    ) -> tuple[Talker, Talker, int]:
        server, client = Talker.listening(self, answer=answer), Talker.listening(self)
        return server, client, self.begin(server.port, **rules)

    async def ended(self, count: int = 1) -> list[dict[str, object]]:
        while True:
            lines = self.log.read_text().splitlines() if self.log.exists() else []
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
            await turn()

    async def assert_ended(self, **wanted: object) -> dict[str, object]:
        [line] = await self.ended()
        self.assertEqual({name: line[name] for name in wanted}, wanted)
        return line

    async def assert_stopped(self, **wanted: object) -> dict[str, object]:
        await self._stop()
        return await self.assert_ended(**wanted)

    async def stopped(self, count: int = 1) -> list[dict[str, object]]:
        await self._stop()
        return await self.ended(count)

    def sharing(self, host: str = "127.0.0.66") -> socket.socket:
        """Make a client on this machine, which has to share its port with its flow."""
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setblocking(False)  # noqa: FBT003 - the socket module's signature
        client.bind((host, 0))
        return client

    async def heard_by(self, client: socket.socket) -> tuple[bytes, Any]:
        while True:
            with contextlib.suppress(BlockingIOError):
                return client.recvfrom(65535)
            await turn()

    def quic_service(
        self, host: str = "127.0.0.1", **rules: str
    ) -> tuple[Talker, Talker, Talker, int]:
        server = Talker.listening(self, answer=lambda data: answer() if data == FIRST else data)
        old, new = Talker.listening(self), Talker.listening(self, host)
        return server, old, new, self.begin(server.port, **rules)

    async def quic_begun(
        self, host: str = "127.0.0.1", **rules: str
    ) -> tuple[Talker, Talker, Talker, int]:
        server, old, new, port = self.quic_service(host, **rules)
        self.assertEqual(await old.asks(FIRST, port), answer())
        return server, old, new, port

    # Another process.

    @property
    def old(self) -> Any:
        return self.running.listeners[0]

    def there(
        self, routes: Sequence[Route] | None = None, settings: Any = None, **options: Any
    ) -> There:
        """Make the other process, with the same rules if no others are given. It reads from now on, and nobody here does."""
        old = self.old
        routes = self.running.rules.routes if routes is None else routes
        settings = settings or old.configuration.settings
        new = udp_listener(routes, settings, reactor, old._access_log)
        self.new: Any = new
        here: Any = self.running.ports[0]
        here.stopReading()
        port = self.port_there = new.listen(here.socket)
        port.place = here.place
        port.await_flows()
        self.addCleanup(self._end_there, new, port)
        return There(new, port, **options)

    async def _end_there(self, new: UDPListener, port: DatagramPort) -> None:
        new.abort("killed")
        port.stopListening()
        await new.stopped()

    async def hand_over(self, **options: Any) -> int:
        return await self.finish_handover(self.there(**options))

    async def finish_handover(self, there: There) -> int:
        count = await hand_over_flows([*self.old.connections], there)
        self.port_there.await_no_more()
        return count
