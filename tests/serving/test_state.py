from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.access.per_source import PerSource, SourceLimits
from txmux.serving.state import buckets_of, found_by_checks, merged, restore_sources


def told(state: str = "up", target: str = "a:1", **more: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "why": state, "age": None, "credit": 0, "failed": [], "out": 0.0, "contrary": 0,
        "connections": 0,
    }  # fmt: skip
    return {"backend": "b", "server": "a:1", "target": target, "state": state, **plain, **more}


class StateTest(SynchronousTestCase):
    def test_worst(self) -> None:
        """Of each server the worst is told: down, then the longest ejection, then the most failures."""
        ejected = told("ejected", out=3.0)
        cases = (
            (told(), told("down")), (ejected, told("down")), (told(), ejected),
            (ejected, told("ejected", out=4.0)), (told(), told(failed=[1.0])),
        )  # fmt: skip
        for better, worse in cases:
            for found in ([better], [worse]), ([worse], [better]):
                self.assertEqual(merged(found), [worse])

    def test_turns_and_connections(self) -> None:
        """Turns, and checks in a row, are those of the first process, for all servers."""
        first = [told(credit=2, contrary=1), told(target="a:2", credit=-2)]
        second = [told("ejected", credit=-7, contrary=5, out=1.0), told(target="a:2", credit=7)]
        found = merged([first, second])
        seen = [(one["state"], one["credit"]) for one in found]
        self.assertEqual(seen, [("ejected", 2), ("up", -2)])
        self.assertEqual(found[0]["contrary"], 1)
        # Connections are those of all processes; one of an older version tells of none.
        older = told()
        del older["connections"]
        found = merged([[told(connections=2)], [told("down", connections=3)], [older]])
        self.assertEqual([(one["state"], one["connections"]) for one in found], [("down", 5)])

    def test_checks(self) -> None:
        """Of what a parent goes on with, only checks have found something."""
        found = found_by_checks([told("down", contrary=1), told("ejected", out=3.0, failed=[1.0])])
        self.assertEqual([one["state"] for one in found], ["down", "up"])
        self.assertEqual([one["out"] for one in found], [0.0, 0.0])
        self.assertEqual(found[0]["contrary"], 1)

    def counting(self, at: float) -> PerSource:
        return PerSource(SourceLimits(interval=10**9, burst=3), lambda: at)

    def test_buckets(self) -> None:
        """Who has used its rate has used it in the next process; listeners that one of the two does not have are overlooked."""
        old, new = self.counting(1000.0), self.counting(7.0)
        for _ in range(2):
            self.assertTrue(old.enter(5))
        state = {"sources": buckets_of({"x": old, "gone": old, "unlimited": None})}
        restore_sources(state, {"x": new, "unlimited": new, "other": new, "gone": None})
        self.assertTrue(new.enter(5))
        self.assertIsNone(new.enter(5))
        self.assertTrue(new.enter(6))
        new = self.counting(7.0)
        restore_sources({}, {"x": new})  # without sources, nothing changes
        self.assertTrue(new.enter(5))
