"""The look at the files of rules."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.control import watching
from txmux.control.watching import RulesWatch
from txmux.rules.reading.parser import load
from txmux.telemetry.steps import RecurringSteps


class RulesWatchTest(SynchronousTestCase):
    def test_goes_on_after_an_error(self) -> None:
        """There may be no thread for a look, or no memory: there is for another one."""
        path = make_folder(self) / "rules.ini"
        path.write_text("[listen x]\nendpoint = 127.0.0.1:0\n")
        clock, looks = Clock(), list[float]()

        async def lack(*_: object) -> str:
            looks.append(clock.seconds())
            raise RuntimeError("can't start new thread")

        self.patch(watching, "in_thread", lack)
        steps = RecurringSteps()
        watch = RulesWatch(clock, lambda: True, steps)
        watch.watch_files_of(load(path))
        clock.pump([1.0] * 12)
        self.assertEqual(looks, [4, 8, 12])
        self.assertEqual([*steps.failing], ["look at the rules' files"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        watch.stop_watching()
        self.assertEqual(clock.getDelayedCalls(), [])
