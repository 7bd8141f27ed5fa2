import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.client.client_table import Row
from txmux.control.clients import RefusedClients, clients_document, flooding
from txmux.control.gauges import Gauges
from txmux.rules.reading.parser import parse
from txmux.telemetry.attention import AttentionItem
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.record import ConnectionRecord

RULES = "[listen public]\nendpoint = 127.0.0.1:0\n[listen other]\nendpoint = 127.0.0.1:0\n"


class ClientsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.counters.extend(parse(RULES, Path("rules.ini")))
        self.counts = self.counters.column(0).listener("public")
        self.refused = RefusedClients(self.counters, self.clock.seconds)

    def attention(self, **by_source: float) -> list[AttentionItem]:
        rows = {("public", "max_connections", key): rate for key, rate in by_source.items()}
        rows["other", "max_connections", "192.0.2.9"] = 1e9
        return [*self.refused.attention(("public", "other"), rows)]

    def refuse(self, count: int) -> None:
        for _ in range(count):
            self.counts.refused("max_connections")

    def test_how_many_in_the_last_half_minute(self) -> None:
        self.refuse(1)
        self.assertEqual(self.attention(), [])
        for _ in range(4):
            self.refused.record(("public", "other"))
            self.assertEqual(self.attention(), [])
            self.clock.advance(5)
        self.refuse(1204)
        (item,) = self.attention()
        self.assertEqual((item.level, item.what), ("note", "limits"))
        self.assertEqual(item.text, "listener public refuses clients at max_connections")
        self.assertEqual(item.cause, "1,204 refused in 20 s")
        self.assertEqual(item.do, "see who they are: txmux clients")
        for _ in range(7):
            self.assertEqual(len(self.attention()), 1)
            self.refused.record(("public", "other"))
            self.clock.advance(5)
        self.assertEqual(self.attention(), [])

    def test_who_is_first(self) -> None:
        self.refused.record(("public", "other"))
        self.refuse(10)
        for rates, cause, do in (
            ({"": 10.0, "192.0.2.1": 9.0, "192.0.2.2": 1.0}, ", 90 % from 192.0.2.1",
             "txmux ban 192.0.2.1 1h"),
            ({"": 10.0, "2001:db8::/64": 10.0}, ", 100 % from 2001:db8::/64",
             "txmux ban 2001:db8::/64 1h"),
            ({"": 100.0, "192.0.2.1": 2.0}, ", 2 % from 192.0.2.1", "txmux clients"),
            ({"": 1000.0, "192.0.2.1": 2.0}, "", "txmux clients"),
            ({"": 1.0, "unix": 1.0}, ", 100 % from unix", "txmux clients"),
            ({"": 1.0, "x; reboot": 1.0}, ", 100 % from x; reboot", "txmux clients"),
            ({"192.0.2.1": 2.0}, "", "txmux clients"),
        ):  # fmt: skip
            (item,) = self.attention(**rates)
            self.assertEqual(item.cause, f"10 refused in 1 s{cause}")
            self.assertTrue(item.do.endswith(f": {do}"), item.do)
        # Two sources may do what they like: others do not wait for it.
        (item,) = flooding({"": 1000.0, "192.0.2.1": 500.0, "192.0.2.2": 460.0, "192.0.2.3": 40.0})
        self.assertEqual(item.level, "note")
        self.assertEqual([*flooding({})], [])  # who keeps a process busy
        for first, do in ((900.0, "txmux ban 192.0.2.1 1h"), (90.0, "connection_rate_per_source")):
            (item,) = flooding({"": 1000.0, "192.0.2.1": first, "192.0.2.2": 1.0})
            self.assertEqual((item.level, item.what), ("warning", "accept"))
            cause = f"1,000 connections and flows a second, {first / 10:.0f} % from 192.0.2.1"
            self.assertEqual(item.cause, cause)
            self.assertTrue(item.do.endswith(f": {do}"), item.do)

    def test_limits_that_are_no_keys_of_the_listener(self) -> None:
        self.refused.record(("public",))
        self.counts.refused("handshakes")
        self.counts.refused("txmux.max_connections")
        self.counts.refused("descriptors")
        at = {item.text.partition(" at ")[2]: item.do for item in self.attention()}
        self.assertEqual([*at][:-1], ["the limit of TLS handshakes", "max_connections of [txmux]"])
        self.assertRegex(at["the limit of open files"], "^raise the limit")
        # A proxy in front that sends none has all its clients closed, which is no limit's doing.
        self.setUp()
        self.refused.record(("public",))
        record = ConnectionRecord(1.0, "x", "public", "192.0.2.1:1")
        for _ in range(3):
            self.counts.connection_ended(self.counts.unrouted, record, "proxy-header")
        (item,) = self.attention()
        self.assertEqual(item.text, "listener public closes clients without a valid PROXY header")
        self.assertEqual((item.level, item.cause), ("note", "3 closed in 1 s"))
        self.assertIn("accept_proxy_from", item.do)

    def test_sum_over_workers_with_the_busiest_first(self) -> None:
        now = time.time()
        rows: list[list[Row]] = [
            [("192.0.2.1", 1, 2, 0.5, 3, 4, 5, 6, now - 100),
             ("192.0.2.2", 0, 9, 4.0, 0, 0, 0, 0, now - 9)],
            [("192.0.2.3", 0, 9, 5.0, 0, 0, 0, 0, now - 9),
             ("192.0.2.1", 10, 20, 1.5, 30, 40, 50, 60, now - 3600)],
        ]  # fmt: skip
        first, *others = clients_document(rows, 1000)
        self.assertEqual(
            first,
            {
                "source": "192.0.2.1", "active": 11, "connections": 33, "rate": 2.0,
                "bytes_in": 33, "bytes_out": 44, "refused": 55, "unrecognised": 66,
                "since": now - 3600,
            },
        )  # fmt: skip
        self.assertEqual([row["source"] for row in others], ["192.0.2.3", "192.0.2.2"])
        self.assertEqual(clients_document(rows, 1), [first])

    @given(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9)))
    def test_two_sources_alone_are_not_many(self, by_source: dict[str, int]) -> None:
        """However much they are refused; and what the others have does not depend on them."""
        rates = {("x", "no-route", source): float(rate) for source, rate in by_source.items()}
        of_all = {("x", "no-route", ""): float(sum(by_source.values())), ("x", "rate", ""): 7.0}
        found = Gauges(refusing={**of_all, **rates}).refused_by_many()
        others = sorted(by_source.values())[:-2]
        self.assertEqual(found, {("x", "no-route"): sum(others), ("x", "rate"): 7.0})
