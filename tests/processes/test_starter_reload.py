"""A reload while the process of which workers are forked is halted, and what that process imports."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from tests.processes.timed import RULES, TimedTestCase
from tests.support.certificates import make_authority

if TYPE_CHECKING:
    from txmux.control.report import Report

_TLS = "[route secure]\nmatch = tls\nterminate_tls = key.pem\n"


class StarterReloadTest(TimedTestCase):
    """Other rules, for which workers are to be started or retired."""

    def halt(self) -> None:
        """Halt the process that forks."""
        self.halted = self.starter()
        os.kill(self.halted, signal.SIGSTOP)

    async def refused(self, more: str = "") -> Report:
        """Reload rules that want one worker more, which does not come to serve."""
        self.halt()
        self.write(RULES.format(3) + more)
        reloading = Deferred.fromCoroutine(self.running.reload())
        await self.until(lambda: self.supervisor.pool.added)
        self.time.advance(60)
        return await reloading

    async def fewer(self) -> Report:
        """Reload rules that want one worker less, while one that has crashed is to be forked."""
        worker = self.supervisor.pool.workers[1]
        os.kill(worker.pid, signal.SIGKILL)
        await self.until(lambda: not worker.pid)
        self.halt()
        self.time.advance(0)
        self.write(RULES.format(1))
        return await self.running.reload()

    async def test_retired(self) -> None:
        """A worker that is not needed any more is ended as soon as it is forked, or forgotten if it cannot be."""
        changes = ((self.refused, False, 2), (self.fewer, True, 1))
        for (change, is_ok, count), then in itertools.product(
            changes, (signal.SIGCONT, signal.SIGKILL)
        ):
            await self.begin()
            with capturedLogs():
                report = await change()
                pool = self.supervisor.pool
                self.assertEqual((report.ok, len(pool.retiring)), (is_ok, 1))
                os.kill(self.halted, then)
                await self.until(lambda pool=pool: not pool.retiring)  # type: ignore[misc]
                self.time.advance(0)
            self.assertIsNone(self.running.failure)
            self.assertEqual([one.ready for one in pool.workers], [True] * count)
            await self.stop()

    async def has_tls(self) -> bool:
        """Tell whether the process that forks has imported all that ends TLS."""
        await self.starter_answers()
        return "cryptography" in _mapped(self.starter())

    async def test_imports(self) -> None:
        """It imports what the rules in force need, and one that is started again nothing for those that were refused."""
        await self.begin()
        make_authority().issue("site.example").write(self.folder / "key.pem", key=True)
        with capturedLogs():
            self.assertFalse((await self.refused(_TLS)).ok)
            os.kill(self.halted, signal.SIGKILL)
            await self.until(lambda: self.starter() not in {0, self.halted})
        self.assertFalse(await self.has_tls())
        self.write(RULES.format(2) + _TLS)
        self.assertTrue((await self.running.reload()).ok)
        self.assertTrue(await self.has_tls())


def _mapped(pid: int) -> str:
    """Name the files that a process has in its memory."""
    return Path(f"/proc/{pid}/maps").read_text()
