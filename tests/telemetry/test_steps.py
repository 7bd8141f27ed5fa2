from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from txmux.control.attention import failing_steps
from txmux.telemetry.steps import CommittedSteps, RecurringSteps


class RecurringStepsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.steps = RecurringSteps()

    def test_fails_and_can_again(self) -> None:
        """It is logged once, and needs attention until it can be done again."""

        def step(word: str) -> None:
            done.append(word)
            if len(done) < 3:
                raise MemoryError

        done: list[str] = []
        with capturedLogs() as events:
            for _ in range(4):
                self.assertIsNone(self.steps.run("look", step, "x"))
                items = [(item.text, item.cause) for item in failing_steps(self.steps.failing)]
                self.assertEqual(items, [("it cannot look", "MemoryError()")] * (len(done) < 3))
        self.assertEqual(done, ["x"] * 4)
        said = [event["log_format"].format(**event) for event in events]
        self.assertEqual(said, ["cannot look; it is tried again", "can look again"])
        self.flushLoggedErrors(MemoryError)

    def test_later(self) -> None:
        """A step that takes longer may be waited for, and never fails."""
        later: Deferred[None] = Deferred()
        waiting = self.steps.run("look", lambda: later)
        assert waiting is not None
        self.assertNoResult(waiting)
        later.errback(OSError(24, "Too many open files"))
        self.successResultOf(waiting)
        [(_, why)] = self.steps.failing.values()
        self.assertIn("Too many open files", why)
        again = self.steps.run("look", lambda: fail(OSError(1, "no")))
        assert again is not None
        self.successResultOf(again)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.steps.run("look", lambda: succeed(1))
        self.assertEqual(self.steps.failing, {})
        self.patch(self.steps, "failing", _Full())  # no memory for the log
        self.assertIsNone(self.steps.run("look", lambda: 1 / 0))
        self.setUp()
        self.steps.run("look", lambda: 1 / 0)
        self.steps.forget("look")
        self.steps.forget("look")
        self.assertEqual((self.steps.failing, len(self.flushLoggedErrors())), ({}, 1))

    def test_each_that_follows_a_commit_is_done(self) -> None:
        steps, done = CommittedSteps("the rules are in force"), list[int]()

        async def wait(number: int) -> int:
            return 1 // number

        self.assertEqual(steps.run("first", lambda: 1), 1)
        self.assertIsNone(steps.run("second", [0].__getitem__, 1))
        steps.run("third", done.append, 3)
        for number, result in ((0, None), (1, 1)):
            waiting = steps.wait(f"wait {number}", lambda number=number: wait(number))  # type: ignore[misc]
            self.assertEqual(self.successResultOf(waiting), result)
        self.assertEqual(done, [3])
        failed = "second: list index out of range", "wait 0: integer division or modulo by zero"
        why = "the rules are in force, but this failed: "
        self.assertEqual(steps.troubles, [why + one for one in failed])
        self.assertEqual(len(self.flushLoggedErrors(IndexError, ZeroDivisionError)), 2)


class _Full(dict[str, tuple[float, str]]):
    def __setitem__(self, *_: object) -> None:
        raise MemoryError
