import json
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmux.telemetry.recent import BadEnds, Recent
from txmux.telemetry.record import ConnectionRecord


def record(number: int, **values: Any) -> ConnectionRecord:
    return ConnectionRecord(number, f"1-{number}", "public", "192.0.2.1:5", **values)


class BadEndsTests(SynchronousTestCase):
    def test_flood(self) -> None:
        """However many end badly, the last 200 of a second are reported, once the report before them was answered."""
        clock = Clock()
        ends = BadEnds(clock)
        ends.add(record(1), None)  # nobody keeps them
        reports: list[list[str]] = []
        answer: Deferred[None] = Deferred()
        ends.report = lambda rows: reports.append(rows) or answer  # type: ignore[func-returns-value]
        for number in range(2, 1000):
            ends.add(record(number), b"\xff")
            clock.advance(0.01)
        self.assertEqual([len(rows) for rows in reports], [1])
        answer.callback(None)
        clock.advance(1)
        recent = Recent()
        for rows in reports:
            recent.add(3, rows)
        found = recent.as_json()
        self.assertEqual([one["id"] for one in found], [f"1-{n}" for n in range(999, 799, -1)])
        self.assertEqual((found[0]["worker"], found[0]["first"]), (3, "ff"))
        clock.advance(1)
        self.assertEqual((len(reports), clock.getDelayedCalls()), (2, []))

    def test_what_a_compromised_worker_reports(self) -> None:
        recent = Recent()
        fields = attrs.asdict(record(1))
        for wrong in (
            {"time": "now"}, {"time": 1e300}, {"time": float("nan")}, {"duration_ms": float("inf")},
            {"client": 7}, {"facts": {"sni": 1}}, {"first": "x"}, {"first": 7},
        ):  # fmt: skip
            recent.add(1, [json.dumps({**fields, **wrong})])
        recent.add(1, ["", "[]", "{}", "null", "[" * 4000, '{"time":' + "9" * 4000 + "}"])
        self.assertEqual(recent.as_json(), [])
        recent.add(2, [json.dumps({**fields, "later": "unknown"})])
        other = Recent()
        other.add(9, [json.dumps(fields)])
        other.restore(json.loads(json.dumps(recent.state())))
        (row,) = other.as_json()
        self.assertEqual((row["id"], row["worker"], row["ended"]), ("1-1", 2, 1.0))
        ends, recent = BadEnds(Clock()), Recent()  # long facts are left out
        ends.report = lambda rows: succeed(recent.add(1, rows))  # type: ignore[func-returns-value]
        ends.add(record(1, facts={"sni": "x" * 4096}), None)
        self.assertEqual(recent.as_json()[0]["facts"], {})
