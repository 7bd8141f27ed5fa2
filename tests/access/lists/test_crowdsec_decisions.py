"""Tests of what CrowdSec's decisions mean."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.access.lists.crowdsec import Decisions, seconds_in


def decision(value: str, duration: str = "4h", **others: str) -> dict[str, Any]:
    """Make one, as CrowdSec 1.4 tells it."""
    return {
        "id": 7,
        "origin": "cscli",
        "type": "ban",
        "scope": "Range" if "/" in value else "Ip",
        "scenario": "manual 'ban' from 'x'",
        "value": value,
        "duration": duration,
        **others,
    }


class DurationTests(SynchronousTestCase):
    """Durations as Go writes them."""

    def test_units(self) -> None:
        for text, seconds in (
            ("3h59m49.5s", 14389.5),
            ("1m", 60.0),
            ("250ms", 0.25),
            ("0s", 0.0),
            ("-1m2s", -62.0),
            ("3µs", 3e-6),
        ):
            self.assertAlmostEqual(seconds_in(text), seconds)

    @given(st.text())
    def test_anything_else_is_refused(self, text: str) -> None:
        try:
            seconds_in(text)
        except ValueError:
            return
        self.assertRegex(text, r"\A-?([0-9]+(\.[0-9]+)?(h|m|s|ms|us|µs|ns))+\Z")


def _new(*decisions: Any) -> dict[str, Any]:
    return {"new": [*decisions], "deleted": None}


class DecisionsTests(SynchronousTestCase):
    """Who is banned."""

    def banned(self, decisions: Decisions, now: float = 0.0) -> list[str]:
        return [*map(str, decisions.networks(now))]

    def test_first_answer_has_all_and_later_ones_change_it(self) -> None:
        decisions = Decisions()
        decisions.replace(_new(decision("192.0.2.1"), decision("10.0.0.0/8")), 0)
        self.assertEqual(self.banned(decisions), ["10.0.0.0/8", "192.0.2.1/32"])
        decisions.change({"new": None, "deleted": [decision("10.0.0.0/8", "-3s")]}, 1)
        decisions.change({"new": [decision("2001:db8::1")], "deleted": None}, 1)
        again = decision("192.0.2.1")
        decisions.change({"new": [again], "deleted": [again]}, 1)
        self.assertEqual(self.banned(decisions), ["192.0.2.1/32", "2001:db8::1/128"])
        decisions.replace({"new": None, "deleted": [again]}, 1)
        self.assertEqual(self.banned(decisions), [])

    def test_ban_expires_by_itself(self) -> None:
        decisions = Decisions()
        decisions.replace(_new(decision("192.0.2.1", "1m"), decision("192.0.2.2", "2m")), 100)
        self.assertEqual(len(self.banned(decisions, 159.9)), 2)
        self.assertEqual(self.banned(decisions, 160), ["192.0.2.2/32"])

    def test_other_decisions_are_left_out(self) -> None:
        decisions = Decisions()
        odd: list[Any] = [
            decision("192.0.2.1", type="captcha"),
            decision("FR", scope="Country"),
            decision("x"),
            decision("192.0.2.2", "soon"),
            {"type": "ban"},
            {"type": None, "scope": 5},
            decision("192.0.2.9/24"),
            decision("::ffff:198.51.100.1", scope="ip", type="BAN"),
        ]
        decisions.replace(_new(*odd), 0)
        self.assertEqual(self.banned(decisions), ["192.0.2.0/24", "198.51.100.1/32"])
        self.assertIn(ip_address("192.0.2.200"), decisions.networks(0))

    @given(
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(["new", "deleted", "type"]), inner)
            ),
        )
    )
    def test_any_answer_bans_nobody_or_is_refused(self, told: Any) -> None:
        decisions = Decisions()
        decisions.replace(_new(decision("192.0.2.1")), 0)
        with contextlib.suppress(ValueError):
            decisions.change(told, 0)
        self.assertEqual(self.banned(decisions), ["192.0.2.1/32"])
