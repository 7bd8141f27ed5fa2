"""A supervisor that lacks memory, descriptors or processes for a while."""

import os
import signal
from typing import Any

from twisted.logger import capturedLogs, formatEvent

from tests.support.supervised import SupervisedTestCase


class StartTest(SupervisedTestCase):
    """Each step in which a worker is started fails once: it is logged, and tried again."""

    async def lack(self, owner: Any, name: str) -> str:
        """Kill a worker, and fail one step of its start; return what is logged."""
        before = self.pids()
        real = getattr(owner, name)

        def fail(*_: Any, **__: Any) -> Any:
            setattr(owner, name, real)
            raise MemoryError

        setattr(owner, name, fail)
        said: list[str] = []
        with capturedLogs() as events:
            os.kill(before[0], signal.SIGKILL)

            def has_failed() -> bool:
                texts = map(formatEvent, events)
                said[:] = [text for text in texts if "worker 1 cannot" in text]
                return bool(said)

            await self.until(has_failed)
        self.time.advance(1)
        worker = self.supervisor.pool.workers[0]
        await self.until(lambda: worker.ready and worker.pid != before[0])
        return said[0]

    async def test_memory_to_fork(self) -> None:
        await self.run_two()
        self.assertEqual(
            await self.lack(self.supervisor.starter, "fork"),
            "worker 1 cannot be started: there is no memory left; another one is started in 1 s",
        )

    async def test_memory_for_rules(self) -> None:
        await self.run_two()
        self.assertEqual(
            await self.lack(self.supervisor, "start_message"),
            "worker 1 cannot start: MemoryError; another one is started in 1 s",
        )
