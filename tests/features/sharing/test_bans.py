import json
import math
from ipaddress import ip_network
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.features.sharing.machine import Machine
from tests.support.changes import change_constants
from txmux.access import bans
from txmux.access.bans import Ban
from txmux.control.attention import problems
from txmux.features.sharing import bans as shared_bans
from txmux.features.sharing.bans import SharedBans
from txmux.features.sharing.client import SHARING_TIMES, RedisError
from txmux.features.sharing.rows import BANS_WITHOUT_ROOM
from txmux.features.sharing.store import Store

_NETWORK = ip_network("192.0.2.7")
_STORE = Store("redis://192.0.2.1", "192.0.2.1")
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
    max_leaves=4,
)
_RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "network": st.just("192.0.2.9") | _VALUES, "since": st.floats() | _VALUES,
        "until": st.floats() | _VALUES, "ban": st.booleans() | _VALUES, "reason": _VALUES,
    },
)  # fmt: skip


def record(at: float, *, ban: bool = True, **others: Any) -> str:
    usual = {"network": "192.0.2.7", "since": at, "until": None, "ban": ban, "reason": ""}
    return json.dumps({**usual, **others})


def redis_of(execute: Any) -> Any:
    """Play Redis by a function that answers to words."""

    class Redis:
        async def execute(self, *words: Any) -> Any:
            answer = execute(*words)
            return await answer if isinstance(answer, Deferred) else answer

    return Redis()


class ReadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.machine = Machine()
        self.shared = SharedBans(Clock(), _STORE, self.machine.bans)

    def hear(self, *texts: str | None) -> list[str]:
        self.machine.kept.change(self.shared.read_changes(texts))
        return self.machine.banned()

    @given(st.text() | (_RECORDS | _VALUES).map(json.dumps) | st.none())
    @example("[" * 100_000)
    @example(json.dumps({"network": 7, "since": 1, "ban": False}))
    @example(json.dumps({"network": "192.0.2.9", "since": 10**400, "ban": True}))
    def test_any_record_leaves_those_beside_it(self, text: str | None) -> None:
        shared = SharedBans(Clock(), _STORE, Machine().bans)
        changes = dict(shared.read_changes([text, record(5.0)]))
        self.assertEqual(changes[_NETWORK], Ban(_NETWORK, 5.0))
        self.assertLessEqual(len(changes), 2)

    def test_records_that_change_nothing(self) -> None:
        for network in ("0.0.0.0/0", "::/0"):
            self.assertEqual(self.hear(record(5.0, network=network)), [])
        for wrong in (math.nan, math.inf, -math.inf):
            self.assertEqual(self.hear(record(wrong), record(5.0, until=wrong)), [])
        self.assertEqual(self.hear(record(1.0), record(math.inf, ban=False)), ["192.0.2.7"])
        for text, is_new in (
            (record(5.0, reason="a"), True),
            (record(6.0, reason="a"), False),
            (record(7.0, reason="b"), True),
            (record(8.0, reason="b", until=1e12), True),
            (record(9.0, reason="b", until=1e12 + 0.9), False),
            (record(10.0, reason="b", until=1e12 + 1.0), True),
        ):
            changes = self.shared.read_changes([text])
            self.machine.kept.change(changes)
            self.assertEqual(bool(changes), is_new, text)

    def test_later_record_counts_in_any_order(self) -> None:
        for texts in (
            [record(5.0), record(7.0, ban=False)],
            [record(7.0, ban=False), record(5.0)],
            [record(5.0), record(7.0, ban=False), record(6.0)],
        ):
            for pieces in ([texts], [[text] for text in texts]):
                self.setUp()
                for piece in pieces:
                    found = self.hear(*piece)
                self.assertEqual(found, [])
        self.assertEqual(self.hear(record(8.0), record(7.0, ban=False)), ["192.0.2.7"])
        self.setUp()
        change_constants(self, shared_bans, _MOST_NETWORKS=3)
        for number in range(9):
            self.hear(record(5.0, network=f"192.0.2.{number}"))
        self.assertEqual((len(self.shared.latest), len(self.machine.banned())), (3, 3))
        lifted = record(6.0, network="192.0.2.0", ban=False)
        self.assertEqual(self.hear(lifted), ["192.0.2.1", "192.0.2.2"])
        self.shared.announce(_NETWORK, None)
        for at in range(99):
            self.hear(record(float(at)))
        (unconfirmed,) = self.shared.unconfirmed.values()
        self.assertLess(len(unconfirmed.received), 20)
        self.assertEqual(unconfirmed.received[-1], record(98.0))


class ConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.machine = Clock(), Machine()
        self.shared = SharedBans(self.clock, _STORE, self.machine.bans)

    def test_connects_until_it_is_stopped(self) -> None:
        SharedBans(Clock(), _STORE, Machine().bans).stop()  # before it is started
        clock, shared, done = self.clock, self.shared, list[str]()
        for name in ("start", "stop"):
            self.patch(shared.client, name, lambda name=name: done.append(name))
        shared.start()
        shared.receive(record(5.0).encode())
        self.assertEqual((done, len(clock.getDelayedCalls())), (["start"], 2))
        clock.advance(61.0)
        self.assertTrue(shared.source.state().is_overdue)
        shared.receive(record(5.0).encode())
        self.patch(self.machine.bans.recurring, "forget", done.append)
        shared.stop()
        self.assertEqual(done, ["start", "compare bans with Redis", "stop"])
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_outage_is_logged_once_and_overdue_after_seconds(self) -> None:
        clock, shared = self.clock, self.shared
        with capturedLogs() as events:
            for second in range(7):
                shared.connection_failed("refused")
                self.assertEqual(shared.source.state().is_overdue, second > 0)
                clock.advance(4.0)
        sentence = shared.source.state().sentence
        self.assertIn("bans redis://192.0.2.1: no good answer for 28 s: refused; bans", sentence)
        self.assertEqual((len(events), shared.state), (1, "lost"))

    def test_sharing_is_logged_once(self) -> None:
        shared = self.shared
        redis = redis_of(lambda *its: [b"1", b"0"] if its[0] == "TIME" else [b"0", b""])
        with capturedLogs() as events:
            for _ in range(2):
                shared.connection_failed("away")
                self.successResultOf(Deferred.fromCoroutine(shared.share(redis)))
                self.assertEqual(shared.state, "complete")
        self.assertEqual([event["count"] for event in events], [0])
        self.clock.advance(3600)
        self.assertFalse(shared.source.state().is_overdue)

    def test_one_comparison_at_a_time(self) -> None:
        """Redis that has not sent all bans by the next one counts as lost; a later one goes on."""
        coming = iter(answers := [Deferred[Any]() for _ in range(4)])
        redis = redis_of(lambda *_: next(coming))

        def compare() -> Deferred[None]:
            return Deferred.fromCoroutine(self.shared.compare(redis))

        first = compare()
        failed = self.failureResultOf(compare(), RedisError)
        self.assertIn("has not sent all bans", failed.getErrorMessage())
        answers[0].callback([b"7", b""])
        self.assertNoResult(first)
        answers[1].callback([b"0", b""])
        self.successResultOf(first)
        again = compare()
        answers[2].errback(RedisError("away"))
        self.failureResultOf(again, RedisError)
        self.assertNoResult(compare())

    def test_redis_gets_what_it_lacks(self) -> None:
        written = list[str]()
        self.successResultOf(Deferred.fromCoroutine(self.machine.ban("192.0.2.8")))

        def answer(*words: Any) -> Any:
            written.extend(words[3:4] if words[2] else ())
            return [b"0", record(5.0).encode()]

        self.successResultOf(Deferred.fromCoroutine(self.shared.compare(redis_of(answer))))
        self.assertCountEqual(self.machine.banned(), ["192.0.2.7", "192.0.2.8"])
        self.assertEqual([key.rpartition(":")[2] for key in written], ["192.0.2.8"])

    def test_now_and_then(self) -> None:
        """The time of Redis is asked for at each look, all bans by far not as often."""
        clock, shared, ran = self.clock, self.shared, list[str]()

        class Client:
            redis = object()

            def run(self, work: Any) -> None:
                ran.append(work.__name__)
                work.close()

        redis = redis_of(lambda *its: [b"1", b"0"] if its[0] == "TIME" else [b"0", b""])
        self.successResultOf(Deferred.fromCoroutine(shared.share(redis)))
        shared.client = Client()  # type: ignore[assignment]
        shared.check_connection()
        clock.advance(SHARING_TIMES.compared - 0.1)
        shared.check_connection()
        self.assertEqual(ran, ["_ask_time"] * 2)
        clock.advance(0.1)
        shared.check_connection()
        self.assertEqual(ran[2:], ["_ask_time", "compare"])

    def test_bans_without_room_are_counted_and_logged_once(self) -> None:
        change_constants(self, bans, _MOST=2)
        shared = self.shared
        with capturedLogs() as events:
            for _ in range(2):
                for number in range(5):
                    shared.receive(record(5.0, network=f"192.0.2.{number}").encode())
                self.clock.pump([1.0, 10.0])
                shared.check_connection()
        self.assertEqual(self.machine.banned(), ["192.0.2.0", "192.0.2.1"])
        (told,) = shared.troubles()
        self.assertIn("do not apply here: 3; there are 100000 bans already", told)
        self.assertEqual([event["problem"] for event in events], [told])
        [item] = problems(BANS_WITHOUT_ROOM, [told])
        self.assertEqual((item.what, item.level, item.subject), ("bans", "warning", "room"))
        self.assertTrue(item.do)
