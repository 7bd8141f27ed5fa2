"""The part of the campaign with converted configurations beside their originals, in short."""

from twisted.trial.unittest import SynchronousTestCase

from campaign.beside.part import Outcome, run
from campaign.beside.trials import TRIALS
from campaign.budget import Budget


class BesideTests(SynchronousTestCase):
    def test_check(self) -> None:
        [trial] = [t for t in TRIALS if t.name == "tcp-check send inter 300ms"]
        report = run(Budget(0, 1), [trial], seconds=2.0)
        self.assertEqual(report.defects, [])
        self.assertEqual(len(report.table), 2 + 4, report.table)

    def test_names(self) -> None:
        names = [(trial.program, trial.name) for trial in TRIALS]
        self.assertEqual(len({*names}), len(names))

    def test_defects(self) -> None:
        def outcome(*served: tuple[bool, bool]) -> Outcome:
            made = Outcome()
            for theirs, ours in served:
                made.note(theirs, ours)
            return made

        closed = outcome(*[(True, False)] * 9)
        self.assertIn("does not", closed.defect(is_told=False))
        self.assertEqual(closed.defect(is_told=True), "")
        late = outcome(*[(True, False)] * 5, (True, True))
        self.assertIn("refused 5 of 6", late.defect(is_told=True))
        self.assertEqual(outcome(*[(False, True)] * 9).defect(is_told=False), "")
