"""Flows while the service changes."""

from __future__ import annotations

import socket

from twisted.internet.defer import Deferred

from tests.datagrams.test_relaying import FlowCase
from tests.support.datagrams import Talker
from tests.support.ports import free_port
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse


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
        rules = parse(text % ("u", "allow = 127.0.0.0/8\n", new.port), self.folder / "rules.ini")
        report = await self.running.reload(rules)
        self.assertTrue(report.ok, report.changes)
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
        first = Talker.listening(self)
        port = first.port
        transport = first.transport
        assert transport is not None
        stopped = transport.stopListening()
        if isinstance(stopped, Deferred):
            await stopped
        text = "[listen %s]\nendpoint = udp:127.0.0.1:%d\ndefault = udp:127.0.0.1:%d\n"
        self.run_service(text % ("u", port, old.port))
        client, other = Talker.listening(self), Talker.listening(self)
        await client.asks(b"one", port)
        rules = parse(text % ("v", port, new.port), self.folder / "rules.ini")
        report = await self.running.reload(rules)
        self.assertTrue(report.ok, report.changes)
        await client.asks(b"two", port)
        await other.asks(b"three", port)
        self.assertEqual((old.heard, new.heard), ([b"one", b"two"], [b"three"]))

    async def test_listener_that_is_no_more(self) -> None:
        """When a listener is removed, its flows go on, and no new one begins."""
        server = Talker.listening(self, answer=lambda d: d)
        port = self.begin(server.port)
        client, other = Talker.listening(self), Talker.listening(self)
        await client.asks(b"one", port)
        rules = parse("[listen t]\nendpoint = 127.0.0.1:0\n", self.folder / "rules.ini")
        report = await self.running.reload(rules)
        self.assertTrue(report.ok, report.changes)
        other.say(b"two", port)
        await client.asks(b"three", port)
        self.assertEqual(server.heard, [b"one", b"three"])

    async def test_listener_that_comes_back(self) -> None:
        """A listener that was removed can be added again at once: its flows are those that have gone on, and new ones begin."""
        server = Talker.listening(self, answer=lambda d: d)
        client, other = Talker.listening(self), Talker.listening(self)
        free = free_port(kind=socket.SOCK_DGRAM)
        text = (
            f"[listen u]\nendpoint = udp:127.0.0.1:{free}\ndefault = udp:127.0.0.1:{server.port}\n"
        )
        taken = Talker.listening(self)
        taken_at = f"udp:127.0.0.1:{taken.port}"
        [port] = self.run_service(text)
        await client.asks(b"one", port)
        for number in range(2):
            await self.reload("[listen t]\nendpoint = 127.0.0.1:0\n")
            await client.asks(b"%d" % number, port)
            await self.reload(f"{text}[listen b]\nendpoint = {taken_at}\n", is_ok=False)
            await self.reload(text)
            await client.asks(b"again", port)
        await other.asks(b"two", port)
        self.assertEqual(len(set(server.senders)), 2)

    async def test_listener_that_comes_back_later(self) -> None:
        """When the last flow has ended, the port is free, whatever was reloaded meanwhile."""
        server = Talker.listening(self, answer=lambda d: d)
        client, free = Talker.listening(self), free_port(kind=socket.SOCK_DGRAM)
        text = (
            f"[listen u]\nendpoint = udp:127.0.0.1:{free}\ndefault = udp:127.0.0.1:{server.port}\n"
        )
        [port] = self.run_service(text)
        await client.asks(b"one", port)
        factory = self.running.factories[0]
        for number in range(2):
            await self.reload(
                f"[listen t]\nendpoint = 127.0.0.1:0\n[route r{number}]\nmatch = tls\nbackend = close\n"
            )
        factory.abort("killed")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
            another.bind(("127.0.0.1", port))
        await self.reload(text)
        await client.asks(b"two", port)

    async def reload(self, text: str, *, is_ok: bool = True) -> None:
        """Have other rules."""
        try:
            report = await self.running.reload(parse(text, self.folder / "rules.ini"))
        except RulesError:
            self.assertFalse(is_ok)
        else:
            self.assertEqual(report.ok, is_ok, report.changes)


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
