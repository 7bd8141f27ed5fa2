from collections import Counter
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.held import held_by
from txmux.client.client_table import MOST_SOURCES, BusiestSources, ClientTable, Entry, rate_of
from txmux.telemetry.attention import OF_FEW
from txmux.telemetry.record import ConnectionRecord

_MOST = 4


def _ended(client: str, **fields: Any) -> Any:
    record = ConnectionRecord(1000.0, "5f-1", "x", client, **{"duration_ms": 1.0, **fields})
    return SimpleNamespace(record=record, unrecognised=None)


def _live(client: str, age: float = 0.0, first: bytes | None = None) -> Any:
    return SimpleNamespace(
        record=ConnectionRecord(1000.0, "5f-1", "x", client),
        unrecognised=first,
        relayed=lambda: SimpleNamespace(bytes_in=3, bytes_out=5),
        elapsed_ms=lambda: age * 1000,
    )


def rows_of(table: ClientTable, *live: Any) -> list[Any]:
    steps = table.rows(live)
    try:
        while True:
            next(steps)
    except StopIteration as end:
        rows: list[Any] = end.value
        return rows


class BusiestSourcesTests(SynchronousTestCase):
    @given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from((0, 0, 0, 1, 20)))))
    def test_heavy_sources_are_in_it_and_counts_are_exact_since_then(
        self, events: list[tuple[int, int]]
    ) -> None:
        clock = Clock()
        sources = BusiestSources(clock.seconds, _MOST)
        weights, counted = Counter[str](), dict[int, tuple[Entry, float]]()
        for number, pause in events:
            clock.advance(pause)
            before = sources.total
            entry = sources.add(str(number), 0.0, sources.weight())
            weight = sources.total - before
            weights[str(number)] += weight  # type: ignore[assignment]
            same, score = counted.get(number, (entry, 0.0))
            counted[number] = entry, weight + (score if same is entry else 0.0)
            self.assertAlmostEqual(entry.score / counted[number][1], 1)
            self.assertLessEqual(len(sources.entries), 2 * _MOST)
            heavy = {name for name, its in weights.items() if its > sources.total / _MOST * 1.0001}
            self.assertLessEqual(heavy, sources.entries.keys())

    def test_rates_after_hours_without_an_event(self) -> None:
        clock = Clock()
        sources = BusiestSources(clock.seconds)
        for _ in range(10):
            sources.add("192.0.2.1", 0.0, sources.weight())
        clock.advance(1_000_000)
        old, new = sources.entries["192.0.2.1"], sources.add("192.0.2.2", 0.0, sources.weight())
        self.assertEqual(
            (sources.recent(old.score), round(sources.recent(new.score), 3)), (0, 0.067)
        )

    def test_rate_of_a_source_that_is_new_or_old(self) -> None:
        self.assertAlmostEqual(rate_of(2.0, 0.0, 3600.0), 2)
        self.assertAlmostEqual(rate_of(1 / 15, 100.0, 100.0), 0.235, places=3)

    def of_few(self, *sources: int, backend: str | None = None, ended: int = 0) -> bool:
        table = ClientTable(Clock().seconds)
        for _ in range(ended):
            table.ended(_ended("192.0.2.200:1"))
        live = [_live(f"192.0.2.{n}:1") for n, count in enumerate(sources) for _ in range(count)]
        for one in live:
            one.record.backend = "web"
        return self.successResultOf(Deferred.fromCoroutine(table.of_few(live, backend))) == OF_FEW

    def test_few_sources_of_all_and_of_a_backend(self) -> None:
        for sources, of, expected in (
            ([9], {}, True), ([5, 5, 1], {}, True), ([3, *[1] * 10], {}, True),
            ([1] * 10, {}, False), ([3, *[1] * 20], {}, False),
            ([], {}, False),  # no client has them
            ([1] * 10, {"backend": "web"}, False), ([9], {"backend": "other"}, False),
            # The ports of connections that have just ended are taken, too.
            ([1] * 10, {"ended": 9}, False), ([1] * 10, {"backend": "web", "ended": 9}, True),
        ):  # fmt: skip
            self.assertEqual(self.of_few(*sources, **of), expected, (sources, of))


class ClientTableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.table = ClientTable(self.clock.seconds)

    def test_flood_of_addresses_hides_no_busy_client_and_is_bounded(self) -> None:
        for number in range(100_000):
            high, low = divmod(number, 256)
            self.table.ended(_ended(f"10.{high // 256}.{high % 256}.{low}:5000", reason="limit"))
            if not number % 500:
                self.table.ended(_ended("203.0.113.7:5000", bytes_in=7, bytes_out=9, reason="done"))
            self.clock.advance(0.0001)
        self.assertLessEqual(held_by(self.table), 20 * MOST_SOURCES)
        rows = {source: row for source, *row in rows_of(self.table)}
        self.assertEqual(len(rows), MOST_SOURCES)
        self.assertLessEqual(held_by(self.table), 10 * MOST_SOURCES)
        active, ended, recent, bytes_in, bytes_out, refused, *_ = rows["203.0.113.7"]
        self.assertEqual((active, ended, bytes_in, bytes_out, refused), (0, 200, 1400, 1800, 0))
        self.assertLess(abs(rate_of(recent, 0.0, 10.0) - 20), 1)

    def test_live_connections_come_first_and_old_floods_fall(self) -> None:
        for _ in range(10_000):
            self.table.ended(_ended("192.0.2.1:50000", reason="denied"))
        self.assertEqual([*self.table.refusing()], [])  # as is asked every few seconds
        self.clock.advance(120)
        for _ in range(5):
            self.table.ended(_ended("192.0.2.2:50000", reason="done"))
        live = (_live("192.0.2.3:50000"), _live("192.0.2.3:50001", 3600.0, b"x"))
        rows = rows_of(self.table, *live)
        self.assertEqual([source for source, *_ in rows], ["192.0.2.3", "192.0.2.2", "192.0.2.1"])
        _, active, ended, recent, bytes_in, bytes_out, refused, unrecognised, since = rows[0]
        self.assertEqual((active, ended, bytes_in, bytes_out), (2, 0, 6, 10))
        self.assertEqual((refused, unrecognised, since), (0, 1, 1000.0))
        self.assertAlmostEqual(recent, 1 / 15)
        self.assertEqual(rows[2][6], 10_000)

    def test_connection_that_lasted_long_is_no_new_one(self) -> None:
        self.table.ended(_ended("192.0.2.1:50000", duration_ms=3_600_000.0, reason="done"))
        self.assertAlmostEqual(rows_of(self.table)[0][3], 0)

    def test_connection_that_ends_while_the_rows_are_made(self) -> None:
        client = _live("192.0.2.1:50000")
        steps = self.table.rows([client])
        next(steps)
        client.record.reason, client.record.bytes_in, client.relayed = "done", 4, None
        with self.assertRaises(StopIteration) as ended:
            while True:
                next(steps)
        (row,) = ended.exception.value
        self.assertEqual((row[1:3], row[4:6]), ((1, 0), (4, 0)))

    def test_sources(self) -> None:
        for client, source in (
            ("192.0.2.1:50000", "192.0.2.1"), ("[2001:db8:0:7:1::2]:50000", "2001:db8:0:7::/64"),
            ("[fe80::1%eth0]:50000", "fe80::1"), ("unix:/run/a:b.sock", "unix"), ("unix", "unix"),
        ):  # fmt: skip
            table = ClientTable(self.clock.seconds)
            table.ended(_ended(client, reason="done"))
            table.turned_away(client, 1001.0)
            (row,) = rows_of(table, _live(client))
            self.assertEqual((row[0], row[1], row[2], row[6]), (source, 1, 2, 1))

    def test_whom_limits_refuse_until_that_is_long_ago(self) -> None:
        before = held_by(self.table)
        for number in range(30):
            client = f"192.0.2.{number if number > 20 else 1}:50000"
            self.table.limited("x", "max_connections", client)
        self.table.limited("y", "max_connections_per_source", "192.0.2.1:50000")
        rows = [*self.table.refusing()]
        self.assertEqual([(row[0], row[2]) for row in rows[:2]], [("x", ""), ("x", "192.0.2.1")])
        self.assertEqual((round(rows[0][3] * 15, 6), round(rows[1][3] * 15, 6)), (30, 21))
        self.assertEqual(
            [row[:3] for row in rows[-2:]][1], ("y", "max_connections_per_source", "192.0.2.1")
        )
        self.clock.advance(600)
        self.assertEqual(([*self.table.refusing()], held_by(self.table)), ([], before))

    def test_whom_no_route_takes(self) -> None:
        """They are reported as those that a limit refuses."""
        for number in range(9):
            client = _ended(f"192.0.2.{number % 2}:50000")
            client.unrecognised = b"x"
            self.table.ended(client)
        rows = [row[:3] for row in self.table.refusing()]
        self.assertEqual(
            rows,
            [("x", "no-route", ""), ("x", "no-route", "192.0.2.0"), ("x", "no-route", "192.0.2.1")],
        )
        counts = {source: more[6] for source, *more in rows_of(self.table)}
        self.assertEqual(counts, {"192.0.2.0": 5, "192.0.2.1": 4})

    def test_whose_connections_keep_the_process_busy(self) -> None:
        """They are reported from 80 % of the time on until it is less than 60 %, if they are many."""
        cpu = 0.0
        table = ClientTable(self.clock.seconds, lambda: cpu)
        found, is_flooded = [], []
        for load, many in ((1.0, 0), (0.5, 900), (0.9, 900), (0.7, 900), (0.5, 900)):
            for number in range(many):
                table.ended(_ended(f"192.0.2.{number % 3 or 9}:50000"))
            self.clock.advance(5)
            cpu += 5 * load
            is_flooded.append(table.is_flooded())
            self.assertEqual(table.is_flooded(), is_flooded[-1], "at once")
            found.append([*table.newest()])
        self.assertEqual(is_flooded, [False, False, True, True, False])
        self.assertEqual([bool(rows) for rows in found], [False, False, True, True, True])
        (everyone, of_all), (first, its) = found[2][:2]
        self.assertEqual((everyone, round(of_all / its)), ("", 3))
        self.assertIn(first, {"192.0.2.1", "192.0.2.2", "192.0.2.9"})
        before = dict(table.newest())[""]
        table.ended(_ended("192.0.2.1:50000"))
        self.assertGreater(dict(table.newest())[""], before)  # the last one is among them
