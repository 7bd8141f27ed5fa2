from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred

from tests.admin.asking import AdminCase
from txmux.processes.workers.worker import Worker


class CostTest(AdminCase):
    async def test_asked_once(self) -> None:
        """One page asks a process for each thing once: to count what many connections have moved takes it longest."""
        asked: Counter[str] = Counter()
        ask = Worker.ask

        def counting(worker: Worker, kind: str, **values: Any) -> Deferred[Any]:
            asked[kind] += 1
            return ask(worker, kind, **values)

        await self.start(use=self.virtual())  # the history is not told anything meanwhile
        self.patch(Worker, "ask", counting)
        told = await self.ask("GET", "/")
        self.assertEqual(told.status, 200)
        kinds = ["count", "connections", "addresses", "recent", "status", "missing"]
        self.assertEqual(asked, Counter(kinds))
