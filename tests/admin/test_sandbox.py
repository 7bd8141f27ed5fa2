"""The sandbox of the workers, as the status shows it."""

from __future__ import annotations

import os
import signal
from unittest import SkipTest

from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.admin.asking import LISTEN, AdminCase
from tests.support.crowdsec import KEY, CrowdSecPlayed
from tests.support.peers import PeerFactory, listen, reactor
from txmux.processes.privilege import landlock
from txmux.processes.privilege.sandbox import SandboxError


class SandboxTest(AdminCase):
    """Rules with all that the supervisor does over the network."""

    async def confined(self, settings: str = "workers = 2", rules: str = LISTEN) -> list[bool]:
        """Start a service, and give for each of its workers whether it is confined."""
        if not landlock.abi():
            raise SkipTest("this kernel has no Landlock")
        await self.start(settings, rules)
        return await self.told()

    async def told(self) -> list[bool]:
        """Read the status."""
        workers = (await self.get("/api/status")).json["workers"]
        return [worker["sandbox"] for worker in workers]

    async def test_shared_limits(self) -> None:
        """Workers of a service that shares limits by TCP are confined."""
        redis = listen(self, PeerFactory())
        settings = f"workers = 2\nshared_limits = redis://127.0.0.1:{redis}/0"
        self.assertEqual(await self.confined(settings), [True, True])

    async def test_feed(self) -> None:
        """Workers of a service that follows a CrowdSec are confined."""
        played = CrowdSecPlayed(self)
        (self.folder / "key").write_text(KEY)
        rules = f"{LISTEN}deny = crowdsec:{played.url}\n"
        self.assertEqual(await self.confined("crowdsec_key = key", rules), [True])
        while not played.asked:
            await deferLater(reactor, 0.01)

    async def test_added(self) -> None:
        """A worker that a reload adds is confined, and so is one that takes the place of another one."""
        self.assertEqual(await self.confined("workers = 1"), [True])
        self.write_rules("workers = 2")
        with capturedLogs():
            self.assertTrue((await self.running.reload()).ok)
            self.assertEqual(await self.told(), [True, True])
            old = self.supervisor.pool.workers[0].pid
            os.kill(old, signal.SIGKILL)
            while self.supervisor.pool.workers[0].pid == old:
                await deferLater(reactor, 0.01)
            await self.all_serve()
        self.assertEqual(await self.told(), [True, True])

    async def test_none(self) -> None:
        """The status shows that a worker is not confined: one that opens an endpoint itself, or where that is switched off."""
        rules = "[listen x]\nendpoint = haproxy:tcp:0:interface=127.0.0.1\n"
        self.assertEqual(await self.confined("", rules), [False])
        await self.stop()
        self.assertEqual(await self.confined("sandbox = off"), [False])

    async def test_insisting(self) -> None:
        """A kernel without Landlock stops the start of a service that insists on it, with what to write; else the service starts."""
        self.patch(landlock, "abi", lambda: 0)
        insisting = self.service(self.text("sandbox = yes"))
        problem = self.assertRaises(SandboxError, insisting.startService)
        self.assertIn("write sandbox = auto", str(problem))
        self.assertFalse(self.socket.exists())
        await self.start("sandbox = auto")
        self.assertEqual(await self.told(), [False])
