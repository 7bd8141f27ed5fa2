"""A service in a memory group that is too small."""

from typing import Any

import pytest

from tests.processes.running import Pair
from tests.support.kit import Service, WorkersTestCase, eventually
from tests.support.memory_group import Ballast, MemoryLimit
from tests.support.proc import has_connection, is_gone, named, oom_score_of, pids_of, workers_of

pytestmark = [pytest.mark.whole, pytest.mark.by_turns(each=True)]
_CONNECTIONS = 20


class ShortOfMemoryTest(WorkersTestCase):
    def running(self, megabytes: int) -> Service:
        """Start a service with two workers, and connections in both."""
        self.group = MemoryLimit(megabytes)
        self.addCleanup(self.group.end)
        self.listening = self.backend()
        rules, before = self.relaying(self.listening), self.group.before
        self.mux = running = self.own(
            Service(self.folder, rules, "workers = 2", admin=True, before=before, program="run")
        )
        self.pairs = [
            self.relayed(running, self.listening, client)
            for _ in range(_CONNECTIONS // 2)
            for client in self.one_for_each(running, workers_of(running.pid))
        ]
        return running

    def ballast(self) -> Ballast:
        ballast = Ballast(self.group)
        self.addCleanup(ballast.end)
        return ballast

    def item(self, what: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def is_seen() -> bool:
            items = self.mux.api("status")["attention"]
            found[:] = [item for item in items if item["what"] == what]
            return bool(found)

        eventually(is_seen, f"there is an item {what}")
        return dict(found[0])

    def assert_go_on(self, pairs: list[Pair]) -> None:
        for pair in pairs:
            self.answers(*pair)

    def test_worker_goes_first(self) -> None:
        """When memory runs out a worker is killed, and replaced, and named with the reason; what the other one has goes on."""
        running = self.running(104)
        before, ballast = workers_of(running.pid), self.ballast()
        while not self.group.kills():
            ballast.take(1)
        ballast.end()
        running.child.wait_for(
            r"worker \d was killed by the kernel: memory had run out \(the limit of the memory group is 104 MiB\); another one is started at once"
        )
        eventually(lambda: len(workers_of(running.pid)) == 2, "there are two workers again")
        (left,) = {*before} & {*workers_of(running.pid)}
        kept = [pair for pair in self.pairs if has_connection(left, pair[1])]
        self.assertEqual(len(kept), _CONNECTIONS // 2)
        self.assert_go_on(kept)
        self.answers(*self.relayed(running, self.listening))
        item = self.item("workers")
        # The one in its place is killed, too, if it has come before the ballast was gone.
        which = "1 worker with its" if self.group.kills() == 1 else "2 workers with their"
        text = f"the kernel has killed {which} connections: memory had run out"
        self.assertEqual((item["level"], item["text"]), ("warning", text))
        cause = r"^memory had run out \(the limit of the memory group is 104 MiB\), \d+ connections lost$"
        self.assertRegex(item["cause"], cause)
        self.assertIn("MemoryMax=", item["do"])

    def test_no_room_for_an_upgrade(self) -> None:
        """Nothing is started; as soon as there is room, it can be done."""
        running = self.running(96)
        running.refuse(
            r"there is no room for a new process .* the limit of the memory group is 96 MiB"
        )
        self.assertEqual(named(running.pid, "supervis"), [])
        self.assertEqual(self.group.kills(), 0)
        self.assertIn("there is no room", self.item("upgrade")["cause"])
        self.group.limit(512)
        running.upgrade()
        self.assert_go_on(self.pairs)

    def test_new_process_goes_before_workers(self) -> None:
        """If memory runs out during an upgrade, the new process ends, and no client does."""
        running = self.running(256)
        old, ballast = running.pid, self.ballast()
        running.ask()
        eventually(lambda: 600 in map(oom_score_of, pids_of(old)), "there is another")
        while not self.group.kills():
            ballast.take(4)
        ballast.end()
        running.child.wait_for(
            r"upgrade failed, the old process keeps serving: the new process was killed by the kernel: memory had run out"
        )
        self.assertFalse(is_gone(old))
        self.assert_go_on(self.pairs)
        self.answers(*self.relayed(running, self.listening))
