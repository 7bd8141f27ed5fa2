"""Connections to servers that turn out to be this very service."""

from collections.abc import Mapping
from typing import Any
from unittest import SkipTest

import attrs
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.mux import MuxTestCase, backend_at
from txmux.access.loops import MOST_HOPS, LoopDetector
from txmux.client.io_runtime import IORuntime
from txmux.rules.embedding import route
from txmux.rules.model import Listener, ServerTLS
from txmux.rules.model.section import NOTHING_MORE
from txmux.rules.optional import missing
from txmux.serving.listen_addresses import open_socket, socket_address
from txmux.tcp.listener import MuxFactory


@attrs.frozen
class _Ends:
    host: Any
    peer: Any

    def getHost(self) -> Any:
        return self.host

    def getPeer(self) -> Any:
        return self.peer


_ends: Any = _Ends


def _v4(port: int, host: str = "127.0.0.1") -> IPv4Address:
    return IPv4Address("TCP", host, port)


_OUTSIDE = _ends(_v4(443, "192.0.2.1"), _v4(5000, "192.0.2.9"))


class HopsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.loop_detector = LoopDetector()
        self.loop_detector.ports = {443}

    def test_each_return_of_a_connection_counts_until_it_ends(self) -> None:
        noted, client = [], _OUTSIDE
        for count in range(5):
            self.assertEqual(self.loop_detector.hops_of(client), count)
            noted.append(self.loop_detector.record(_ends(_v4(6000 + count), _v4(443)), client))
            client = _ends(_v4(443), _v4(6000 + count))
        self.loop_detector.forget(noted[-1])
        self.assertEqual(self.loop_detector.hops_of(client), 0)

    def test_which_connections_are_noted_and_found(self) -> None:
        self.loop_detector.record(_ends(_v4(6000), _v4(443)), _OUTSIDE)
        for other in (
            _ends(_v4(443), _v4(6001)), _ends(_v4(443), _v4(6000, "127.0.0.2")),
            _ends(_v4(443, "127.0.0.2"), _v4(6000)), _ends(_v4(444), _v4(6000)),
            _ends(UNIXAddress(b"/run/x.sock"), UNIXAddress(None)),
        ):  # fmt: skip
            self.assertEqual(self.loop_detector.hops_of(other), 0)
        host, peer = (IPv6Address("TCP", "::ffff:127.0.0.1", port) for port in (443, 6000))
        self.assertEqual(self.loop_detector.hops_of(_ends(host, peer)), 1)
        self.assertEqual(self.loop_detector.record(_ends(_v4(6000), _v4(80)), _OUTSIDE), 0)
        unix = _ends(UNIXAddress(None), UNIXAddress(b"/run/x.sock"))
        self.assertEqual(self.loop_detector.record(unix, _OUTSIDE), 0)

    def test_addresses_at_which_it_listens(self) -> None:
        loops = LoopDetector()
        loops.add_address("192.0.2.1", 443)
        for every in ("0.0.0.0", "::", ""):
            loops.add_address(every, 80)
        loops.ports.add(22)
        for host, port, here in (
            ("192.0.2.1", 443, True), ("127.0.0.1", 443, False), ("127.0.0.1", 80, True),
            ("192.0.2.1", 80, False), ("127.0.0.9", 22, True), ("192.0.2.1", 22, False),
            ("127.0.0.1", 23, False),
        ):  # fmt: skip
            self.assertIs(loops.is_own_address(host, port), here, (host, port))

    def test_processes_share_the_memory(self) -> None:
        memory = memoryview(bytearray(LoopDetector.SIZE))
        one, other = LoopDetector(memory), LoopDetector(memory)
        one.ports = {443}
        one.record(_ends(_v4(6000), _v4(443)), _OUTSIDE)
        self.assertEqual(other.hops_of(_ends(_v4(443), _v4(6000))), 1)


class LoopTests(MuxTestCase):
    def looping(
        self, relay: Any = "auto", more: Mapping[str, Any] = NOTHING_MORE, **backend: Any
    ) -> int:
        address = socket_address("127.0.0.1:0", 1024)
        assert address is not None
        with open_socket(address) as opened:
            number: int = opened.getsockname()[1]
            routes, of = (
                [route("any", backend_at(number, **backend))],
                Listener("public", more=more),
            )
            runtime = IORuntime(self.time, relay)
            self.factory = MuxFactory(routes, of, access_log=self.log, runtime=runtime)
            port: Any = self.factory.listen(opened)
        self.addCleanup(port.stopListening)
        return number

    async def test_loop_ends_after_a_number_of_hops(self) -> None:
        for relay in ("auto", "portable"):
            self.records.clear()
            client = await self.connect(self.looping(relay=relay))
            with capturedLogs() as events:
                client.send(b"x")
                await self.until_so(lambda c=client: c.lost and not self.factory.connections)  # type: ignore[misc]
            self.assertTrue(client.was_reset())
            await self.logged(MOST_HOPS + 1)
            reasons = [record.reason for record in self.records]
            self.assertEqual(reasons, ["limit", *["server-reset"] * MOST_HOPS])
            self.assertEqual(self.records[0].facts["hops"], str(MOST_HOPS))
            said = [event for event in events if "come back" in event["log_format"]]
            self.assertEqual(len(said), 1)
            self.assertFalse(any(self.factory.runtime.loop_detector.slots))

    async def test_listener_that_learns_its_banner_from_itself(self) -> None:
        if why := missing("starttls"):
            raise SkipTest(why)
        greeting = b"220 localhost ESMTP\r\n"
        client = await self.connect(self.looping(more={"starttls": "smtp"}))
        await client.has(len(greeting))
        self.assertEqual(client.received, greeting)
        client.close()
        await self.logged(2)

    async def test_loop_through_unanswered_tls_ends(self) -> None:
        await self.connect(self.looping(tls=ServerTLS("a.example")), b"x")
        await self.logged(MOST_HOPS + 1)
        reasons = [record.reason for record in self.records]
        self.assertEqual(reasons, ["limit", *["tls-failed"] * MOST_HOPS])
