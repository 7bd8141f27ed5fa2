from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.datagrams import Talker
from tests.udp.flow_case import FlowCase
from txmux.net.addresses import address_in
from txmux.telemetry.reasons import EndReason, LimitName
from txmux.udp.listener import Refusals


class LineTests(FlowCase):
    async def test_refused_source_has_one_line_and_no_flow(self) -> None:
        """So has one beyond its limit, and one without a header."""
        listen = "deny = 127.0.0.9\naccept_proxy_from = 127.0.0.8\nmax_flows_per_source = 1"
        server, client, port = self.served(listen=listen)
        for _ in range(3):
            Talker.listening(self, "127.0.0.9").say(b"abc", port)
        await client.asks(b"let in", port)
        line = await self.assert_ended(reason="denied", bytes_in=3, datagrams_in=1, route=None)
        self.assertTrue(str(line["client"]).startswith("127.0.0.9:"))
        Talker.listening(self).say(b"one too many", port)
        self.assertEqual((await self.ended(2))[1]["reason"], "limit")
        Talker.listening(self, "127.0.0.8").say(b"no header", port)
        line = (await self.ended(3))[2]
        self.assertEqual((line["reason"], line["datagrams_in"]), ("proxy-header", 1))
        self.assertEqual(server.heard, [b"let in"])

    async def test_refused_client_replaces_no_unanswered_flow(self) -> None:
        listen = "max_flows = 1\nmax_flows_per_source = 1\ndeny = 127.0.0.9"
        server, client, port = self.served(lambda _: b"", listen=listen)
        client.say(b"one", port)
        await server.hears(1)
        for host in ("127.0.0.9", "127.0.0.1"):
            Talker.listening(self, host).say(b"not let in", port)
        await self.ended(2)
        client.say(b"two", port)
        self.assertEqual(await server.hears(2), [b"one", b"two"])
        self.assertEqual(len(set(server.senders)), 1)
        self.assertEqual([line["reason"] for line in await self.ended(2)], ["denied", "limit"])


class RefusalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.refusals = Refusals(self.clock.seconds)
        counts = SimpleNamespace(refused=lambda _: None)
        self.configuration: Any = SimpleNamespace(counts=counts, settings=SimpleNamespace(name="x"))

    def count(
        self, client: str, reason: EndReason = "denied", limit: LimitName | None = None
    ) -> bool:
        address: Any = address_in(f"{client}:1")
        return self.refusals.count(self.configuration, reason, limit, address)

    def test_first_of_a_source_in_a_minute_has_a_line_up_to_a_thousand(self) -> None:
        self.assertEqual([self.count("192.0.2.1"), self.count("192.0.2.1")], [True, False])
        self.assertEqual([self.count("[2001:db8::1]"), self.count("[2001:db8::2]")], [True, False])
        self.assertFalse(self.count("192.0.2.2", "limit", "max_flows"))
        self.assertEqual(sum(self.count(f"198.51.{n // 250}.{n % 250}") for n in range(2000)), 998)
        self.clock.advance(60)
        self.assertTrue(self.count("192.0.2.1"))

    def test_service_log_has_all_at_once_and_then_once_a_minute(self) -> None:
        with capturedLogs() as reported:
            self.count("192.0.2.1")
            for _ in range(5):
                self.count("192.0.2.2")
            self.count("192.0.2.3", "limit", "max_flows")
            self.clock.advance(60)
            self.count("192.0.2.4", "proxy-header")
        later = "allow, deny or a ban: 5, max_flows: 1, no PROXY header: 1"
        self.assertEqual([one["why"] for one in reported], ["allow, deny or a ban: 1", later])
        self.assertEqual(reported[1]["whose"], ", the last one from 192.0.2.4")
