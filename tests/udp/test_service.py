"""Flows while the service changes."""

from __future__ import annotations

import os
import signal
import socket

from tests.support.datagrams import Talker, turn
from tests.support.ports import free_port
from tests.support.supervised import SupervisedTestCase
from tests.udp.test_relaying import FlowCase
from txmux.errors import ListenError

_OTHER = "[listen t]\nendpoint = 127.0.0.1:0\n"
_AT_PORT = "[listen u]\nendpoint = udp:127.0.0.1:{}\ndefault = udp:127.0.0.1:{}\n"


class ReloadTests(FlowCase):
    """Rules that change."""

    async def test_flows_stay(self) -> None:
        """A reload keeps each flow with its server and its socket; a new flow goes where the new rules say."""
        old, new = (
            Talker.listening(self, answer=lambda d: d),
            Talker.listening(self, answer=lambda d: d),
        )
        text = "[listen %s]\nendpoint = udp:127.0.0.1:0\n%sdefault = udp:127.0.0.1:%d\n"
        [port] = self.run_service(text % ("u", "", old.port))
        client, other = Talker.listening(self), Talker.listening(self)
        await client.asks(b"one", port)
        self.reload(text % ("u", "allow = 127.0.0.0/8\n", new.port))
        await client.asks(b"two", port)
        await other.asks(b"three", port)
        self.assertEqual((old.heard, new.heard), ([b"one", b"two"], [b"three"]))
        self.assertEqual(len(set(old.senders)), 1)

    async def test_another_listener(self) -> None:
        """A listener that takes the place of another one serves new flows, and the old ones go on."""
        old, new = (
            Talker.listening(self, answer=lambda d: d),
            Talker.listening(self, answer=lambda d: d),
        )
        port = free_port(kind=socket.SOCK_DGRAM)
        text = "[listen %s]\nendpoint = udp:127.0.0.1:%d\ndefault = udp:127.0.0.1:%d\n"
        self.run_service(text % ("u", port, old.port))
        client, other = Talker.listening(self), Talker.listening(self)
        await client.asks(b"one", port)
        self.reload(text % ("v", port, new.port))
        await client.asks(b"two", port)
        await other.asks(b"three", port)
        self.assertEqual((old.heard, new.heard), ([b"one", b"two"], [b"three"]))

    async def test_listener_that_is_no_more(self) -> None:
        """When a listener is removed, its flows go on, and no new one begins."""
        server = Talker.listening(self, answer=lambda d: d)
        port = self.begin(server.port)
        client, other = Talker.listening(self), Talker.listening(self)
        await client.asks(b"one", port)
        self.reload(_OTHER)
        other.say(b"two", port)
        await client.asks(b"three", port)
        self.assertEqual(server.heard, [b"one", b"three"])

    async def test_listener_that_comes_back(self) -> None:
        """A listener that was removed can be added again at once: its flows are those that have gone on, and new ones begin."""
        server = Talker.listening(self, answer=lambda d: d)
        client, other = Talker.listening(self), Talker.listening(self)
        text = _AT_PORT.format(free_port(kind=socket.SOCK_DGRAM), server.port)
        taken = Talker.listening(self)
        [port] = self.run_service(text)
        await client.asks(b"one", port)
        for number in range(2):
            self.reload(_OTHER)
            await client.asks(b"%d" % number, port)
            with self.assertRaises(ListenError):
                self.reload(f"{text}[listen b]\nendpoint = udp:127.0.0.1:{taken.port}\n")
            self.reload(text)
            await client.asks(b"again", port)
        await other.asks(b"two", port)
        self.assertEqual(len(set(server.senders)), 2)

    async def test_listener_that_comes_back_later(self) -> None:
        """When the last flow has ended, the port is free, whatever was reloaded meanwhile."""
        server = Talker.listening(self, answer=lambda d: d)
        client = Talker.listening(self)
        text = _AT_PORT.format(free_port(kind=socket.SOCK_DGRAM), server.port)
        [port] = self.run_service(text)
        await client.asks(b"one", port)
        factory = self.running.factories[0]
        for number in range(2):
            self.reload(f"{_OTHER}[route r{number}]\nmatch = tls\nbackend = close\n")
        factory.abort("killed")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
            another.bind(("127.0.0.1", port))
        self.reload(text)
        await client.asks(b"two", port)


class WorkersTests(SupervisedTestCase):
    """Flows that are in a worker, while the supervisor opens the ports."""

    async def test_listener_that_comes_back(self) -> None:
        """A listener that was removed can be added again while its flows go on; when the last one has ended, its port is free."""
        server = Talker.listening(self, answer=lambda d: d)
        text = "[txmux]\nworkers = 2\n" + _AT_PORT.format(
            free_port(kind=socket.SOCK_DGRAM), server.port
        )
        [port] = await self.run_service(text)
        client, other, taken = (Talker.listening(self) for _ in range(3))
        await client.asks(b"one", port)
        for number in range(2):
            await self.reload("[txmux]\nworkers = 2\n" + _OTHER)
            other.say(b"nobody's", port)
            await client.asks(b"%d" % number, port)
            await self.reload(
                f"{text}[listen b]\nendpoint = udp:127.0.0.1:{taken.port}\n", is_ok=False
            )
            await self.reload(text)
            await client.asks(b"again", port)
        await other.asks(b"two", port)
        self.assertEqual(len(set(server.senders)), 2)
        await self.reload("[txmux]\nworkers = 2\n" + _OTHER)
        self.supervisor.end_all()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
            while not _binds(another, port):
                await turn()
        await self.reload(text)
        await other.insists(b"three", port)
        self.assertEqual(len(set(server.senders)), 3)

    async def test_worker_that_is_replaced(self) -> None:
        """While the flows of a removed listener go on in a worker that is about to end, the listener cannot be added again."""
        server = Talker.listening(self, answer=lambda d: d)
        client = Talker.listening(self)
        text = _AT_PORT.format(free_port(kind=socket.SOCK_DGRAM), server.port)
        [port] = await self.run_service(text)
        await client.asks(b"one", port)
        await self.reload(_OTHER)
        [worker] = self.supervisor.pool.workers
        os.kill(worker.pid, signal.SIGTERM)
        while worker not in self.supervisor.pool.retiring:
            await turn()
        await self.reload(text, is_ok=False)
        await client.asks(b"two", port)
        self.supervisor.end_all()
        while worker in self.supervisor.pool.retiring:
            await turn()
        await self.reload(text)
        await client.insists(b"three", port)
        self.assertEqual(len(set(server.senders)), 2)

    async def reload(self, text: str, *, is_ok: bool = True) -> None:
        """Have other rules."""
        self.write(text)
        report = await self.running.reload()
        self.assertEqual(report.ok, is_ok, report.errors)


def _binds(another: socket.socket, port: int) -> bool:
    """Tell whether a port is free; then this socket has it."""
    try:
        another.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


class StopTests(FlowCase):
    """A service that stops."""

    async def test_drain(self) -> None:
        """A service that stops begins no flow, lets those that there are go on, and ends them after `drain_timeout`."""
        server, client, other = (
            Talker.listening(self, answer=answer)
            for answer in (lambda d: d, lambda _: b"", lambda _: b"")
        )
        [port] = self.run_service(
            "[txmux]\ndrain_timeout = 2s\naccess_log = LOG\naccess_log_format = json\n"
            f"[listen u]\nendpoint = udp:127.0.0.1:0\ndefault = udp:127.0.0.1:{server.port}\n"
        )
        await client.asks(b"one", port)
        stopping = self.running.stopService()
        other.say(b"two", port)
        await client.asks(b"three", port)
        await stopping
        self.assertEqual(server.heard, [b"one", b"three"])
        [line] = await self.ended()
        self.assertEqual((line["reason"], line["datagrams_in"]), ("drained", 2))
