import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.health.test_checks import Dialled
from tests.backends.pool.pools import servers
from tests.support.dialler import played
from txmux.backends.health.observer import Activity, ServerObservation, ServerObserver, usual_wait
from txmux.backends.pool.member import ResolvedAddress
from txmux.backends.pool.server_health import ServerOverride
from txmux.backends.upstream import ServerLines
from txmux.backends.upstreams import Upstreams
from txmux.rules.model import Backend, Ejection
from txmux.telemetry.counting.counter_groups import SERVER, ServerCounts
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.reasons import ServerFailure

_FEW = st.integers(0, 3)
_SECONDS = st.lists(st.tuples(_FEW, _FEW, st.sampled_from((0, 0, 0, 1)), st.integers(1, 6)))
"""Of each reading: failures, clients that asked, first bytes, and seconds to the next reading."""


def _refused(count: int = 1) -> Activity:
    return Activity(failed={"connect-refused": count})


def _reset(count: int = 1, sources: int = 3) -> Activity:
    return Activity(connected=count, failed={"reset": count}, reset=range(sources))


def _asked(*sources: int, times: int = 1) -> Activity:
    return Activity(asked=times * len(sources), waiting=sources)


def _answers(*seconds: float) -> list[int]:
    cells = [0] * len(SERVER.names)
    cells[SERVER.names.index("answered")] = len(seconds)
    cells[SERVER.names.index("answer time")] = int(1e6 * sum(seconds))
    return cells


class ObservingTest(SynchronousTestCase):
    @given(_SECONDS)
    def test_as_a_list_of_all_events_says(self, readings: list[tuple[int, int, int, int]]) -> None:
        observation, now = ServerObservation(), 100.0
        failures: list[float] = []
        asked: list[float] = []
        for failed, new, answered, seconds in readings:
            # Each client is of another source.
            sources = [len(asked) + number for number in range(new)][-3:]
            failures_now: dict[ServerFailure, int] = {"connect-timeout": failed}
            observation.record(now, Activity(0, new, answered, 0, failures_now, sources))
            failures = [] if answered else [*failures, *[now] * failed]
            asked = [] if answered else [*asked, *[now] * new]
            for moment in (now, now + seconds):
                is_failing = len(failures) >= 3 and moment - failures[0] >= 2
                is_silent = len(asked) >= 5 and moment >= max(asked[0] + 15, asked[4] + 3)
                expected = "failing" if is_failing else "silent" if is_silent else None
                self.assertEqual(observation.state(moment), expected)
            self.assertEqual(observation.is_idle, not (failures or asked))
            now += seconds

    def test_cause_is_the_newest(self) -> None:
        observation = ServerObservation()
        observation.record(0, _refused(30))
        observation.record(12, Activity(failed={"connect-timeout": 6, "connect-refused": 1}))
        self.assertEqual(observation.why("failing", 13), "no connection in time, 37 of 37 in 12 s")
        observation.tried(13, ok=False, why="no route to host")
        self.assertEqual(observation.why("failing", 13), "no route to host, 38 of 38 in 13 s")
        observation = ServerObservation()  # one way server is not failing
        observation.record(0, Activity(connected=1))
        observation.record(0, _refused(3))
        observation.record(9, Activity(connected=1, asked=1))
        self.assertEqual(observation.state(18), "failing")
        self.assertIsNone(observation.state(19))
        observation.record(20, _refused(3))
        observation.record(23, Activity(unanswered=1))
        self.assertIsNone(observation.state(23))
        cells = [0] * len(SERVER.names)  # causes of this machine and of clients say nothing
        for name in ("no-name", "name-denied", "address-denied", "limit", "no-server"):
            cells[SERVER.names.index(f"failed {name}")] = 1
        cells[SERVER.names.index("failed error")], cells[SERVER.names.index("local faults")] = 7, 5
        self.assertEqual(Activity.of(cells).failed, {"error": 2})

    def test_failures_count_on_while_no_client_comes(self) -> None:
        """Those of txmux itself, also in a process that replaces this one, and from none after a success."""
        observation = ServerObservation()
        observation.record(0, _refused(3))
        observation.record(2, _refused(3))
        for second in range(7, 127, 5):
            observation.tried(second, ok=False, why="connection refused")
        why = observation.why("failing", 127)
        self.assertEqual(why, "connection refused, 30 of 30 in 2 min 2 s")
        other = ServerObservation()
        other.restore(observation.as_json(127), 1127)
        self.assertEqual(other.why("failing", 1127), why)
        other.tried(1132, ok=False, why="connection refused")
        self.assertEqual(other.why("failing", 1132), "connection refused, 31 of 31 in 2 min 12 s")
        observation.tried(200, ok=True, has_answered=True)
        observation.record(300, _refused(3))
        self.assertEqual(observation.why("failing", 300), "connection refused, 3 of 3 in 1 s")
        # Another process goes on with what this one knows.
        observation, other = ServerObservation(), ServerObservation()
        failures: dict[ServerFailure, int] = {"tls-failed": 2, "reset": 2}
        observation.record(3, Activity(asked=6, failed=failures, waiting=range(3), reset=range(3)))
        other.restore(observation.as_json(20), 1020)
        both = (other, 1020), (observation, 20)
        now, then = (
            [one.state(at), one.why("failing", at), one.why("silent", at)] for one, at in both
        )
        self.assertEqual((now, now[0]), (then, "failing"))
        other.record(1021, Activity(answered=1))
        self.assertIsNone(other.state(1021))

    def test_server_that_resets_every_client(self) -> None:
        """Its connections are no successes, but one that stays open for some seconds is."""
        observation = ServerObservation()
        for second in range(10):
            observation.record(second, _reset())
            self.assertEqual(observation.state(second), "failing" if second >= 2 else None)
        observation.record(10, Activity(connected=1))
        self.assertEqual(observation.state(19), "failing")
        self.assertIsNone(observation.state(20))
        # Systems refuse only so many datagrams a second, so it counts only if clients are refused no more.
        observation = ServerObservation(is_udp=True)
        observation.record(0, _refused(3))
        observation.record(4, _refused())
        observation.tried(6, ok=True)
        observation.record(6, Activity(unanswered=1))
        self.assertEqual(observation.state(6), "failing")
        observation.tried(11, ok=True)
        self.assertIsNone(observation.state(11))
        # A quiet try says less than clients that were just reset.
        observation = ServerObservation()
        observation.record(0, _reset(3))
        observation.record(10, _reset(1))
        observation.tried(39, ok=True)
        self.assertEqual(observation.state(39), "failing")
        observation.tried(40, ok=True)
        self.assertIsNone(observation.state(40))
        observation.record(41, _reset(3))
        observation.tried(44, ok=True, has_answered=True)
        self.assertIsNone(observation.state(44))
        observation = ServerObservation()  # quiet try of one that refused is a success
        observation.record(0, _refused(3))
        observation.tried(1, ok=True)
        self.assertIsNone(observation.state(5))

    def test_one_source_neither_makes_nor_keeps_it_silent(self) -> None:
        """Nor do two, however often they come: not even if others have shown before that it was."""
        observation = ServerObservation()
        for second in range(100):
            observation.record(second, _asked(1, 2))
            self.assertIsNone(observation.state(second))
        observation.record(100, _asked(3))
        self.assertEqual(observation.state(103), "silent")
        for second in range(104, 400):
            observation.record(second, _asked(1, 2))
            expected = "silent" if second < 160 else None
            self.assertEqual(observation.state(second), expected, second)
        # A balancer in front may send none for it; the next one that gets no byte shows that it is still so.
        observation = ServerObservation()
        observation.record(0, _asked(1, 2, 3, times=2))
        self.assertEqual(observation.state(59), "silent")
        expected = "no byte from it to 6 clients in a row for 59 s"
        self.assertEqual(observation.why("silent", 59), expected)
        self.assertFalse(observation.is_stale)
        self.assertIsNone(observation.state(60))
        self.assertTrue(observation.is_stale)
        observation.record(400, _asked(1, 1))
        self.assertIsNone(observation.state(404))
        observation.record(404, _asked(2, 3))
        self.assertIsNone(observation.state(406))
        self.assertEqual(observation.state(407), "silent")

    def test_one_source_that_is_reset_does_not_make_it_failing(self) -> None:
        """A server may reset who sends nonsense; but it is failing if txmux's own attempt fails, too."""
        observation = ServerObservation()
        for second in range(100):
            observation.record(second, _reset(9, sources=2))
            self.assertIsNone(observation.state(second))
        observation.record(100, Activity(failed={"connect-refused": 2}))
        self.assertIsNone(observation.state(102))
        observation.tried(103, ok=False, why="connection closed without an answer")
        self.assertEqual(observation.state(103), "failing")
        observation.record(104, Activity(answered=1))
        observation.record(105, _reset(9, sources=2))
        self.assertIsNone(observation.state(110))
        # Nor do handshakes that fail for one source, or STARTTLS that is refused, unless txmux's own handshake fails, too.
        for tries_tls in (True, False):
            observation = ServerObservation(tries_tls=tries_tls)
            for second in range(10):
                observation.record(second, Activity(failed={"tls-failed": 3}, reset=(second % 2,)))
                self.assertIsNone(observation.state(second))
            other = ServerObservation()
            other.restore(observation.as_json(10), 10)
            self.assertIsNone(other.state(10))
            other.tried(10, ok=False, why="it has expired")
            self.assertEqual(other.state(10), "failing")
            observation.record(10, Activity(failed={"tls-failed": 1}, reset=(2,)))
            self.assertEqual(observation.state(10), "failing")
            observation.tried(11, ok=True)
            self.assertEqual(observation.state(11), None if tries_tls else "failing")

    def test_server_that_takes_its_time(self) -> None:
        """A long poll is answered after 20 seconds, so nobody is told anything before a minute."""
        observation = ServerObservation(usual=usual_wait(_answers(20.0), 0.0))
        observation.record(0, _asked(1, 2, 3, times=2))
        self.assertIsNone(observation.state(59))
        self.assertEqual(observation.state(60), "silent")
        # It is that of slow answers, fades with faster ones of them, and one very late answer does not make it endless.
        self.assertEqual(usual_wait(_answers(0.5, 0.1), 0.0), 0.0)
        self.assertEqual(usual_wait(_answers(0.5), 20.0), 20.0)
        self.assertEqual(usual_wait(_answers(30.0), 20.0), 30.0)
        self.assertEqual(usual_wait(_answers(4.0), 20.0), 18.0)
        self.assertEqual(usual_wait(_answers(86400.0), 20.0), 200.0)
        self.assertEqual(usual_wait([0] * len(SERVER.names), 20.0), 20.0)

    def test_clients_of_one_source_are_a_doubt(self) -> None:
        """A server may reset one stranger rightly, so it has no state; that it resets all it gets is said, until it answers one."""
        observation = ServerObservation()
        observation.record(0, _reset(3, sources=1))
        self.assertEqual((observation.state(1), observation.doubt(1)), (None, ""))
        self.assertIsNone(observation.state(2))
        self.assertEqual(observation.doubt(2), "reset before its first byte, 3 of 3 in 1 s")
        observation.record(3, Activity(answered=1))
        self.assertEqual(observation.doubt(3), "")
        may_be, may_not_be = ServerObservation(), ServerObservation(may_be_silent=False)
        closed = "closed without a byte, 4 of 4 in 2 s"
        for observation, doubt in ((may_be, closed), (may_not_be, "")):
            for second in (4, 6):
                observation.record(second, Activity(unanswered=2, closed=2))
            self.assertFalse(observation.is_idle)
            self.assertEqual([observation.doubt(when) for when in (7, 66)], [doubt, ""])
            self.assertTrue(observation.is_idle)
            observation.record(7, Activity(answered=1))
            self.assertEqual((observation.doubt(7), observation.state(7)), ("", None))
        # As those of a server of logs, to which they only send.
        observation = ServerObservation()
        for second in range(100):
            observation.record(second, Activity(asked=3, unanswered=3))
            self.assertEqual((observation.doubt(second), observation.state(second)), ("", None))

    def test_header_that_each_client_gets_400_for(self) -> None:
        """It is a doubt if an attempt with the header alone fails, too: others may get it for what they ask."""
        observation = ServerObservation()
        for second in (4, 6):
            self.assertFalse(observation.shall_be_tried(second))
            observation.record(second, Activity(answered=2, bad_requests=2))
        self.assertTrue(observation.shall_be_tried(6))
        self.assertEqual(observation.doubt(6), "")
        observation.tried(7, ok=False, why="no open connection: HTTP/1.1 400 Bad Request")
        found = (observation.doubt(7), observation.state(7))
        self.assertEqual(found, ("HTTP 400, 4 of 4 in 2 s", None))
        observation.record(8, Activity(answered=1, bad_requests=1))
        self.assertEqual(observation.doubt(8), "HTTP 400, 5 of 5 in 4 s")
        observation.record(9, Activity(answered=2, bad_requests=1))
        self.assertEqual((observation.doubt(9), observation.is_idle), ("", True))
        observation.record(10, Activity(answered=3, bad_requests=3))
        self.assertEqual(observation.doubt(10), "")
        observation.tried(11, ok=True)
        self.assertEqual((observation.doubt(11), observation.is_idle), ("", True))
        observation.record(12, Activity(answered=3, bad_requests=3))
        observation.tried(13, ok=False, why="x")
        seen = [observation.doubt(when) for when in (71, 72)]
        self.assertEqual(seen, ["HTTP 400, 3 of 3 in 1 s", ""])
        self.assertTrue(observation.is_idle)


class ObserverTest(SynchronousTestCase):
    def observe(self, text: str, *others: str, **keys: Any) -> ServerCounts:
        self.clock = Clock()
        self.clock.advance(1000)
        self.dialled: list[Dialled] = []
        self.upstreams = Upstreams(self.clock, self.clock, played(self.dial), checking=False)
        several = servers(text, *others)
        self.server = several[0]
        self.pool = self.upstreams.upstream_of(Backend("b", several, **keys)).pool
        counters = Counters()
        counters.layout.extend([SERVER.key("b", text)])
        self.observer = ServerObserver(self.upstreams, counters, self.clock)
        return counters.column(1).server("b", text)

    def dial(self, server: Any, factory: Any, *_: Any, **__: Any) -> Callable[[], None]:
        self.dialled.append(Dialled(server, factory, self.clock.seconds()))
        return self.dialled[-1].cancel

    def observe_silent(self, *texts: str) -> None:
        counts = self.observe(*texts)
        for number in range(6):
            counts.asked(number % 3)
        self.assertEqual(self.state_after(20), "silent")

    def state_after(self, seconds: float) -> str:
        self.observer.tick()
        self.clock.advance(seconds)
        self.observer.tick()
        return "".join(one.state for one in self.observer.observed().values())

    def test_since(self) -> None:
        """It is when its first client asked, also after the clock of the machine has been set."""
        self.observe_silent("10.0.0.1:80")
        for seconds in (20, 30):
            (shown,) = self.observer.observed().values()
            self.assertLess(abs(time.time() - seconds - shown.since), 5)
            self.assertEqual(self.state_after(10), "silent")
        self.assertEqual(self.observer.doubts(), {})
        counts = self.observe("10.0.0.1:80")  # doubt
        for _ in range(3):
            counts.closed()
        self.assertEqual(self.state_after(5), "")
        ((key, why),) = self.observer.doubts().items()
        self.assertEqual(key, ("b", "10.0.0.1:80"))
        told = "closed without a byte, 3 of 3 in 1 s; it may expect a PROXY header"
        self.assertTrue(why.startswith(told), why)
        self.observe_silent("10.0.0.1:80", "10.0.0.2:80")  # backend of which none serves
        rules: Any = SimpleNamespace(used_backends=lambda: {"b": self.pool.backend})
        self.assertEqual(self.observer.idle(rules), [])
        self.upstreams.apply_overrides({("b", "10.0.0.2:80"): ServerOverride("drain")})
        self.assertEqual(self.observer.idle(rules), ["b"])
        # An attempt fails only once all addresses of a server have failed.
        counts = self.observe("a.example:80")
        hosts = "10.0.0.1", "10.0.0.2"
        self.pool.set_addresses(self.server, [ResolvedAddress(host, 80) for host in hosts])
        for _ in range(3):
            counts.failed("reset", source=1)
        self.assertEqual(self.state_after(0), "")
        first, second = self.dialled
        first.refuse()
        self.assertEqual(self.state_after(3), "")
        second.refuse()
        self.assertEqual(self.state_after(0), "failing")

    def test_state_of_another_process_is_known_at_once(self) -> None:
        self.observe_silent("10.0.0.1:80")
        rows = self.observer.as_json()
        for out in (False, True):
            self.observe("10.0.0.1:80")
            if out:
                self.upstreams.apply_overrides({("b", "10.0.0.1:80"): ServerOverride("drain")})
            self.observer.restore(rows)
            states = [one.state for one in self.observer.observed().values()]
            self.assertEqual(states, [] if out else ["silent"])

    def test_server_that_is_taken_out_of_use(self) -> None:
        """The log says the end of a state that it has said, and nothing of a doubt."""
        for note, lines in (
            (ServerCounts.asked, ["is silent: no byte", "is drained", "is no longer silent, after 20 s; it has been taken out of use$"]),
            (lambda counts, _: counts.closed(), ["is drained"]),
        ):  # fmt: skip
            counts = self.observe("10.0.0.1:80")
            for number in range(6):
                note(counts, number % 3)
            with capturedLogs() as events:
                self.state_after(20)
                self.upstreams.apply_overrides({("b", "10.0.0.1:80"): ServerOverride("drain")})
                self.assertEqual(self.state_after(0), "")
            self.assertEqual(len(events), len(lines))
            for event, line in zip(events, lines, strict=True):
                self.assertRegex(formatEvent(event), line)

    def test_few_lines_of_another_user(self) -> None:
        counts = self.observe("10.0.0.1:80")
        self.upstreams.server_lines = ServerLines(self.clock, lambda _: 12345)
        with capturedLogs() as events:
            for _ in range(4):
                for _ in range(3):
                    counts.failed("connect-refused")
                self.assertEqual(self.state_after(3), "failing")
                counts.answered(self.upstreams.find("b").counts, 0.1)
                self.assertEqual(self.state_after(0), "")
            self.assertEqual(len(events), 5)
            self.clock.advance(60)
        found = formatEvent(events[5])
        self.assertRegex(found, "^user 12345: 3 more lines about servers in 60 s; ")

    def test_failures_while_it_is_out_of_use(self) -> None:
        """They say nothing of a server that is in use again."""
        rows = (ServerOverride("ready"), "failing"), (ServerOverride("drain"), "")
        for override, state in rows:
            counts = self.observe("10.0.0.1:80")
            self.upstreams.apply_overrides({("b", "10.0.0.1:80"): override})
            for _ in range(3):
                counts.failed("connect-refused")
            self.assertEqual(self.state_after(9), state)
        self.upstreams.apply_overrides({})
        self.assertEqual(self.state_after(9), "")

    def test_who_may_be_silent(self) -> None:
        """None that need not answer by the rules, and no server of datagrams that never has."""
        stream, flow = "10.0.0.1:80", "udp:10.0.0.1:80"
        for text, unanswered, has_answered, state in (
            (stream, None, False, "silent"), (stream, 0, False, ""), (stream, 3, False, "silent"),
            (flow, None, False, ""), (flow, None, True, "silent"), (flow, 0, True, ""),
            (flow, 3, False, "silent"),
        ):  # fmt: skip
            counts = self.observe(text, eject=Ejection(unanswered=unanswered))
            if has_answered:
                counts.cells[SERVER.answered.at] += 1
                self.observer.tick()
            for number in range(6):
                counts.asked(number % 3)
            self.assertEqual(self.state_after(30), state, (text, unanswered, has_answered))
