"""What connections say of a server, second by second."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.backends.health.observing import Activity, ServerObservation
from txmux.telemetry.counting.counter_groups import SERVER

_FEW = st.integers(0, 3)
_SECONDS = st.lists(st.tuples(_FEW, _FEW, st.sampled_from((0, 0, 0, 1)), st.integers(1, 6)))
"""Of each reading: failures, clients that asked, first bytes, and seconds to the next reading."""


def _refused(count: int = 1) -> Activity:
    return Activity(failed={"connect-refused": count})


def _reset(count: int = 1) -> Activity:
    return Activity(connected=count, failed={"reset": count})


class ObservingTest(SynchronousTestCase):
    @given(_SECONDS)
    def test_as_a_list_of_all_events_says(self, readings: list[tuple[int, int, int, int]]) -> None:
        observation, now = ServerObservation(), 100.0
        failures: list[float] = []
        asked: list[float] = []
        for failed, new, answered, seconds in readings:
            observation.record(now, Activity(0, new, answered, 0, {"connect-timeout": failed}))
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
        self.assertEqual(observation.why("failing", 13), "no route to host, 37 of 37 in 12 s")

    def test_server_that_resets_every_client(self) -> None:
        """Its connections are no successes, but one that stays open for some seconds is."""
        observation = ServerObservation()
        for second in range(10):
            observation.record(second, _reset())
            self.assertEqual(observation.state(second), "failing" if second >= 2 else None)
        observation.record(10, Activity(connected=1))
        self.assertEqual(observation.state(19), "failing")
        self.assertIsNone(observation.state(20))

    def test_quiet_try_says_less_than_clients_that_were_just_reset(self) -> None:
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

    def test_quiet_try_of_one_that_refused_is_a_success(self) -> None:
        observation = ServerObservation()
        observation.record(0, _refused(3))
        observation.tried(1, ok=True)
        self.assertIsNone(observation.state(5))

    def test_one_way_server_is_not_failing(self) -> None:
        observation = ServerObservation()
        observation.record(0, _refused(3))
        observation.record(9, Activity(connected=1, asked=1))
        self.assertEqual(observation.state(18), "failing")
        self.assertIsNone(observation.state(19))
        observation.record(20, _refused(3))
        observation.record(23, Activity(unanswered=1))
        self.assertIsNone(observation.state(23))

    def test_silence_is_forgotten_without_clients(self) -> None:
        """A balancer in front may send none for it; the next one that gets no byte shows that it is still so."""
        observation = ServerObservation()
        observation.record(0, Activity(asked=5))
        self.assertEqual(observation.state(59), "silent")
        expected = "no byte from it to 5 clients in a row for 59 s"
        self.assertEqual(observation.why("silent", 59), expected)
        self.assertFalse(observation.is_stale)
        self.assertIsNone(observation.state(60))
        self.assertTrue(observation.is_stale)
        observation.record(400, Activity(asked=1))
        self.assertIsNone(observation.state(402))
        self.assertEqual(observation.state(403), "silent")

    def test_another_process_continues(self) -> None:
        observation, other = ServerObservation(), ServerObservation()
        observation.record(0, Activity(asked=6, failed={"tls-failed": 4}))
        other.restore(observation.as_json(20), 1020)
        states = [other.state(1020), other.why("failing", 1020), other.why("silent", 1020)]
        expected = [
            observation.state(20),
            observation.why("failing", 20),
            observation.why("silent", 20),
        ]
        self.assertEqual(states, expected)
        self.assertEqual(states[0], "failing")
        other.record(1021, Activity(answered=1))
        self.assertIsNone(other.state(1021))

    def test_quiet_try_of_datagrams_among_refused_clients(self) -> None:
        """Systems refuse only so many datagrams a second, so it counts only if clients are refused no more."""
        observation = ServerObservation(is_udp=True)
        observation.record(0, _refused(3))
        observation.record(4, _refused())
        observation.tried(6, ok=True)
        observation.record(6, Activity(unanswered=1))
        self.assertEqual(observation.state(6), "failing")
        observation.tried(11, ok=True)
        self.assertIsNone(observation.state(11))

    def test_causes_of_this_machine_and_of_clients_say_nothing(self) -> None:
        cells = [0] * len(SERVER.names)
        for name in ("no-name", "name-denied", "address-denied", "limit", "no-server"):
            cells[SERVER.at[f"failed {name}"]] = 1
        cells[SERVER.at["failed error"]], cells[SERVER.at["local faults"]] = 7, 5
        self.assertEqual(Activity.of(cells).failed, {"error": 2})
