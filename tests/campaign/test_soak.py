"""The machinery of the soak: one round, with one reload and one upgrade under all clients."""

from twisted.trial.unittest import SynchronousTestCase

from campaign.budget import Budget
from campaign.soak.lines import causes_of, strange
from campaign.soak.part import run
from campaign.soak.state import State, growth

_LINE = '{{"route": "{}", "reason": "{}", "id": "{}"}}'


class SoakTests(SynchronousTestCase):
    def test_round(self) -> None:
        """Everybody is served, nothing is left of them, and each line in both logs has its cause."""
        report = run(Budget(1, 1))
        self.assertEqual(report.defects, [], "\n".join(report.lines()))
        self.assertEqual((report.figures["rounds"], report.figures["upgrades"]), ("1", "2"))


class JudgeTests(SynchronousTestCase):
    def test_unknown_lines_have_no_cause(self) -> None:
        head = "2026-11-20T08:36:44+0000 [txmux.processes.service.MuxService#info]"
        text = f"{head} rules reloaded: 1 route new (x)\n{head} something else\n\tTraceback\n"
        causes, unknown = causes_of(text)
        self.assertEqual(causes, {"a reload": 1})
        self.assertEqual(unknown, [f"{head} something else", "\tTraceback"])

    def test_access_log(self) -> None:
        """An end for another reason has no cause; and each client has one line, with an ID of its own."""
        lines = [_LINE.format("ssh", reason, name) for reason, name in (("done", 1), ("error", 2))]
        counted, wrong = strange(lines, {"ssh": 2})
        self.assertEqual(counted, {"ssh done": 1, "ssh error": 1})
        self.assertEqual(wrong, [f"no cause for this line of the access log: {lines[1]}"])
        _, wrong = strange([lines[0], lines[0]], {"ssh": 1})
        self.assertEqual(
            wrong,
            [
                "2 lines of the access log have 1 IDs",
                "1 clients of ssh have 2 lines of the access log",
            ],
        )

    def test_counts_pipes_and_growth(self) -> None:
        before = State(3, 10**8, 30, 4, 3, 5, 9)
        later = State(3, 10**9, 30, 64, 3, 4, 9)
        self.assertEqual(later.differences(before), [])
        self.assertEqual(later.least(before), State(3, 10**8, 30, 4, 3, 4, 9))
        worse = State(3, 10**8, 31, 400, 3, 5, 9).differences(before)
        self.assertEqual(worse, ["descriptors 30 to 31", "pipes to 400"])
        self.assertEqual(growth([50, 10, 11, 10, 12, 11, 12, 13, 12]), 1)
        self.assertEqual(growth([1, 2]), 0)
