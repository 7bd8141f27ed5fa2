"""Flows that move, before and after another process goes on with them: nobody gains by the change."""

import json
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.udp.test_migration import HOME, OTHER, SHORT, THIRD, RoamingTestCase, answer
from txmux.udp import migration
from txmux.udp.migration import MINUTE, SILENCE, Migration
from txmux.wire.codec import Origin


class RecallTests(RoamingTestCase):
    def hand_over(self) -> None:
        """Have another process go on, some time later by another clock."""
        reported = json.loads(json.dumps(self.path.as_json(Origin(self.clock.seconds()))))
        home = self.path.home
        self.path.end()
        self.assertEqual((self.migration.paths, self.migration._lengths), ({}, {}))
        self.clock.rightNow += 12345.0
        self.migration = Migration()
        path = self.migration.restore("flow", home, reported, Origin(self.clock.seconds()))
        assert path is not None
        self.path = path

    def test_flow_is_found_by_its_ids_and_learns_more(self) -> None:
        self.hand_over()
        self.assertEqual(self.found(SHORT), "flow")
        self.path.from_server(answer(b"another one"))
        self.assertEqual(self.found(b"\x41another one" + bytes(30)), "flow")
        self.path.from_server(answer(b"not for it!", destination=b"someone"))
        self.assertIsNone(self.found(b"\x41not for it!" + bytes(30)))

    def test_shared_id_moves_none_in_any_order(self) -> None:
        thief = self.begin("thief")
        thief.from_server(answer())
        thief.end()
        self.hand_over()
        self.assertIsNone(self.found(SHORT))
        self.path.end()
        self.assertEqual((self.migration.paths, self.migration._lengths), ({}, {}))

    def test_answers_go_back_when_the_old_address_speaks(self) -> None:
        self.move(THIRD)
        self.hand_over()
        self.assertEqual(self.path.home, THIRD)
        self.assertTrue(self.says(HOME))
        self.assertEqual(self.path.home, HOME)
        self.hand_over()
        self.assertFalse(self.says(THIRD))
        self.clock.advance(MINUTE)
        self.move(OTHER)

    def test_unproved_address_gets_no_more(self) -> None:
        self.says(THIRD, size=100)
        self.clock.advance(SILENCE)
        sent = 0
        for _ in range(10):
            self.hand_over()
            sent += sum(self.noticed(90) for _ in range(5))
        self.assertEqual((self.path.home, sent), (HOME, 3))
        self.says(THIRD)
        self.assertEqual(self.path.home, THIRD)

    def test_moves_of_the_last_minute_count(self) -> None:
        for number in range(migration.MOST_MOVES):
            self.move(f"192.0.2.1:{number}")
            self.hand_over()
        self.assertFalse(self.says(OTHER))

    def test_silence_is_counted_on(self) -> None:
        self.says(OTHER)
        for _ in range(9):
            self.clock.advance(SILENCE / 10)
            self.hand_over()
            self.answered()
            self.assertEqual(self.path.home, HOME)
        self.clock.advance(SILENCE / 9)
        self.answered()
        self.assertEqual(self.path.home, OTHER)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([HOME, OTHER, THIRD, "server", "path"]),
                st.integers(1, 1200),
                st.sampled_from([0.0, 0.0625, 0.25, 1.0, 30.0]),
                st.booleans(),
            ),
            max_size=40,
        )
    )
    def test_any_order(self, events: Sequence[tuple[str, int, float, bool]]) -> None:
        outcomes = []
        for is_handed_over in (False, True):
            self.setUp()
            outcome = []
            for who, size, after, now in events:
                self.clock.advance(after)
                if now and is_handed_over:
                    self.hand_over()
                said: bool | None = None
                if who == "server":
                    self.answered()
                else:
                    said = self.noticed(size) if who == "path" else self.says(who, size)
                outcome.append((said, self.path.home, self.path.watches))
            outcomes.append(outcome)
        self.assertEqual(*outcomes)

    @given(
        st.dictionaries(
            st.sampled_from(["kind", "own_id", "later"]), st.sampled_from(["q", "w", "", "00ff"])
        )
    )
    def test_other_versions_are_tolerated(self, reported: dict[str, str]) -> None:
        if reported.get("own_id") in {"q", "w"}:
            del reported["own_id"]
        path = Migration[str]().restore("flow", HOME, reported, Origin(1.0))
        self.assertEqual(path is None, reported.get("kind") not in {"q", "w"})
