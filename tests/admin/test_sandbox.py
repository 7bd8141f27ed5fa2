import os
import signal

from twisted.logger import capturedLogs

from tests.admin.asking import AdminCase
from tests.support.changes import lack_landlock
from txmux.processes.worker.sandbox import SandboxError


class SandboxTest(AdminCase):
    async def test_added_and_replaced_workers(self) -> None:
        """Each has one, and the service is ready while one is replaced."""
        self.assertEqual(await self.confined("workers = 1"), [True])
        self.write_rules("workers = 2")
        with capturedLogs():
            self.assertTrue((await self.running.reload()).ok)
            self.assertEqual(await self.sandboxes(), [True, True])
            for number in (signal.SIGTERM, signal.SIGKILL):
                old = self.supervisor.pool.workers[0].pid
                os.kill(old, number)
                while self.supervisor.pool.workers[0].pid == old:
                    self.assertEqual((await self.get("/readyz")).status, 200)
                await self.all_serve()
        while len(found := await self.sandboxes()) > 2:  # one is ending
            pass
        self.assertEqual(found, [True, True])

    async def test_status_of_workers_without_a_sandbox(self) -> None:
        rules = "[listen x]\nendpoint = haproxy:tcp:0:interface=127.0.0.1\n"
        self.assertEqual(await self.confined("", rules), [False])
        await self.stop()
        self.assertEqual(await self.confined("sandbox = off"), [False])

    async def test_no_landlock_stops_a_service_that_insists_on_it(self) -> None:
        lack_landlock(self)
        insisting = self.service(self.text("sandbox = yes"))
        problem = self.assertRaises(SandboxError, insisting.startService)
        self.assertIn("write sandbox = auto", str(problem))
        self.assertFalse(self.socket.exists())
        await self.start("sandbox = auto")
        self.assertEqual(await self.sandboxes(), [False])
