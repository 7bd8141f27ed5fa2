import json
from collections import Counter

import attrs
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from txmux.control.attention import rules_not_in_force
from txmux.control.report import Report
from txmux.telemetry.attention import OF_FEW, AttentionItem, AttentionLog, beside_busiest, of_few

_LATE = "worker 1 does not answer"
_SLOW = AttentionItem("warning", "workers", _LATE, do="end it", subject="worker 1")


class AttentionLogTest(SynchronousTestCase):
    def test_what_one_or_two_sources_do(self) -> None:
        for rates, rest in (
            ([10.0, 5.0, 3.0, 2.0], 2.0), ([2.0, 9.0, 4.0], 3.0), ([9.0, 4.0, 6.0], 0.0), ([0.0], 0.0),
        ):  # fmt: skip
            self.assertEqual(beside_busiest(rates), rest, rates)
        for counts, few in (
            ([1] * 10, ""), ([1] * 9, OF_FEW), ([2, 1, *[1] * 12], ""), ([9], OF_FEW),
        ):  # fmt: skip
            self.assertEqual(of_few(Counter(dict(enumerate(counts)))), few, counts)

    def test_another_process_goes_on(self) -> None:
        """What an earlier process has reported ends a minute later all the same."""
        now, seconds = [7200.0], [10.0]
        log = AttentionLog(lambda: now[0], lambda: seconds[0])
        item = AttentionItem("note", "limits", "listener a refuses clients", do="see who")
        log.restore([attrs.asdict(item)])
        now[0], seconds[0] = 3600.0, 70.0
        with capturedLogs() as logged:
            self.assertEqual(log.record([]), [])
        self.assertEqual(len(logged), 1)
        # It has a minute to notice what another has reported, and then that is over; later it begins anew.
        now = [100.0]
        old, new = (AttentionLog(lambda: now[0], lambda: now[0]) for _ in range(2))
        ended = AttentionItem("note", "limits", "listener a refuses clients", do="see who")
        old.record([_SLOW, ended])
        now[0] = 200.0
        with capturedLogs() as logged:
            new.restore(json.loads(json.dumps([{"of": "another version"}, *old.state()])))
            self.assertEqual([item.since for item in new.record([_SLOW])], [100.0])
            now[0] = 260.0
            new.record([_SLOW])
            now[0] = 300.0
            self.assertEqual([item.since for item in new.record([_SLOW, ended])], [100.0, 300.0])
        self.assertEqual({event["log_level"].name for event in logged}, {"info"})  # of a note
        told = [event["log_format"].format(**event) for event in logged]
        what = "listener a refuses clients"
        expected = [f"resolved after 2 min 40 s: {what}", f"needs attention: {what}; see who"]
        self.assertEqual(told, expected)

    def test_many_items_of_another_owner(self) -> None:
        """Of one topic, the log has a few that begin, and a few that end: what one owner does must not hide all else."""
        log = AttentionLog(lambda: 100.0)
        items = [
            AttentionItem("warning", "unit", f"{owner} {n}", do="see", owner=owner)
            for owner in ("", "user 1001")
            for n in range(9)
        ]
        with capturedLogs() as logged:
            self.assertEqual(len(log.record(items)), 18)
            log.record(items)
            log.record([])
        lines = [event["log_format"].format(**event).split(";")[0] for event in logged]
        for word in ("needs attention", "resolved after 0 s"):
            shown = [line for line in lines if line.startswith(word)]
            texts = [
                *(f" {n}" for n in range(9)),
                *(f"user 1001 {n}" for n in range(5)),
                "user 1001: 4 more of these",
            ]
            self.assertEqual(shown, [f"{word}: {text}" for text in texts])

    def test_begins_and_ends_once(self) -> None:
        now = [100.0]
        log = AttentionLog(lambda: now[0])
        down = "backend b: no server is up"
        known = AttentionItem("critical", "backend", down, do="see why", is_logged=True)
        with capturedLogs() as logged:
            self.assertEqual([item.since for item in log.record([_SLOW, known])], [100.0, 100.0])
            now[0] = 105.0
            found = [item.what for item in log.record([_SLOW, known])]
            self.assertEqual(found, ["backend", "workers"])
            self.assertEqual(log.record([], complete=False), [])
            self.assertEqual([item.since for item in log.record([_SLOW])], [100.0])
            log.record([])
        lines = [event["log_format"].format(**event) for event in logged]
        self.assertEqual([event["log_level"].name for event in logged], ["warn", "info"])
        expected = [f"needs attention: {_LATE}; end it", f"resolved after 5 s: {_LATE}"]
        self.assertEqual(lines, expected)
        # It resolves nothing: the changed files are not in force.
        log = AttentionLog(lambda: 100.0)
        failed = 100.0, Report(ok=False, errors=("[what]: unknown section",))
        complete = 100.0, Report(ok=False, changes="1 route new", errors=("no worker",))
        with capturedLogs() as logged:
            for last in (None, failed, None, complete):
                log.record(rules_not_in_force(last, "x.ini", has_changed=last is not complete))
        lines = [event["log_format"].format(**event).split(":")[0] for event in logged]
        self.assertEqual(lines, ["needs attention", "needs attention", "resolved after 0 s"])
