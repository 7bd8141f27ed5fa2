"""Once a change is committed, nothing that fails says that it was not made, or keeps the next one from being made."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from unittest.mock import patch

from twisted.logger import capturedLogs

from tests.support.peers import PeerFactory, listen
from tests.support.supervised import SupervisedTestCase, greeted
from txmux.telemetry.steps import CommittedSteps

_run, _wait = CommittedSteps.run, CommittedSteps.wait


class ReloadTest(SupervisedTestCase):
    """Each step of a reload that follows its commit fails in turn."""

    def with_step(self, fails: Callable[[str], bool]) -> Any:
        """Have the steps of which that is said fail before they do anything."""

        def run(steps: CommittedSteps, name: str, step: Callable[..., Any], *arguments: Any) -> Any:
            return _run(steps, name, _no_memory if fails(name) else step, *arguments)

        def wait(steps: CommittedSteps, name: str, step: Callable[[], Awaitable[Any]]) -> Any:
            return _wait(steps, name, _no_memory if fails(name) else step)

        return patch.multiple(CommittedSteps, run=run, wait=wait)

    async def served(self) -> None:
        client = await greeted(self, self.port)
        await self.backend.heard(11, len(self.backend.peers))
        client.reset()

    async def test_each_step(self) -> None:
        self.backend = PeerFactory()
        server = listen(self, self.backend)
        listener = "[listen a]\nendpoint = 127.0.0.1:0\n"
        settings = "[txmux]\naccess_log = LOG\ndrain_removed = yes\nworkers = {}\n"
        route = f"[route {{}}]\nmatch = ssh\nbackend = 127.0.0.1:{server}\n"
        old, new = (f"{settings}{listener}{route}".format(*its) for its in ((1, "x"), (2, "y")))
        self.port, *_ = await self.run_service(old)
        more, fewer = await self.steps_to(new), await self.steps_to(old)
        steps = dict.fromkeys(sorted(more), (old, new))
        steps |= dict.fromkeys(sorted(fewer - more), (new, old))
        self.assertGreater(len(steps), 15)
        for failing, (before, after) in steps.items():
            await self.change(before)
            self.write(after)
            with capturedLogs(), self.with_step(partial(str.__eq__, failing)):
                report = await self.running.reload()
            self.assertTrue(self.flushLoggedErrors(MemoryError), failing)
            self.assertFalse(report.ok, failing)
            self.assertTrue(report.changes, failing)
            told = f"the rules are in force, but this failed: {failing}: "
            self.assertIn(told, "".join(report.errors))
            items = (await self.running.control.status())["attention"]
            (item,) = [one for one in items if one["what"] == "reload"]
            self.assertEqual(item["text"], "the last reload is not complete")
            self.assertIn(failing, item["cause"])
            # What failed is not done again where the rules are the same, so others are tried.
            self.assertIn("1 route new", await self.change(before), failing)
            await self.served()
            last_reload = (await self.running.control.status())["last_reload"]
            assert last_reload is not None
            self.assertTrue(last_reload["ok"], failing)

    async def steps_to(self, text: str) -> set[str]:
        """Reload, and return the names of the steps."""
        names: set[str] = set()

        def note(name: str) -> bool:
            names.add(name)
            return False

        with self.with_step(note):
            self.assertIn("1 route new", await self.change(text))
        return names


def _no_memory(*_: Any) -> Any:
    raise MemoryError
