"""A running service that shares limits, or cannot."""

from tests.admin.asking import AdminCase
from tests.admin.test_sandbox import SandboxCase
from tests.support.peers import PeerFactory, listen
from tests.support.ports import free_port


class StatusTest(AdminCase):
    async def test_redis_lost_for_a_minute_needs_attention(self) -> None:
        await self.start(f"shared_limits = redis://127.0.0.1:{free_port('127.0.0.1')}")
        status = (await self.get("/api/status")).json
        while status["bans"]["shared"] != "lost":
            status = (await self.get("/api/status")).json
        self.assertEqual(status["attention"], [])
        (source,) = self.running.control.parts["sharing"].sources()
        assert source._since is not None
        source._since -= 60
        while not (attention := (await self.get("/api/status")).json["attention"]):
            continue
        self.assertEqual([one["what"] for one in attention], ["sources"])
        self.assertIn("bans of other machines may be missing here", attention[0]["text"])


class SandboxTest(SandboxCase):
    async def test_shared_limits_by_tcp(self) -> None:
        redis = listen(self, PeerFactory())
        settings = f"workers = 2\nshared_limits = redis://127.0.0.1:{redis}/0"
        self.assertEqual(await self.confined(settings), [True, True])
