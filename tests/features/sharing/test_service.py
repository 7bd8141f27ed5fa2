"""A running service that shares limits, or cannot."""

from tests.admin.asking import AdminCase
from tests.admin.test_sandbox import SandboxCase
from tests.support.peers import PeerFactory, listen, reactor
from tests.support.ports import free_port


class StatusTest(AdminCase):
    async def test_lost_redis_needs_attention(self) -> None:
        """Within five seconds, and once for all that it is asked for."""
        began = reactor.seconds()
        await self.start(f"shared_limits = redis://127.0.0.1:{free_port('127.0.0.1')}\nworkers = 2")
        while not (attention := (await self.get("/api/status")).json["attention"]):
            continue
        self.assertLess(began + 3, reactor.seconds())
        self.assertEqual([one["what"] for one in attention], ["sources"])
        for text in ("bans redis", "limits redis", "bans of other machines may be missing here"):
            self.assertIn(text, attention[0]["text"])


class SandboxTest(SandboxCase):
    async def test_shared_limits_by_tcp(self) -> None:
        redis = listen(self, PeerFactory())
        settings = f"workers = 2\nshared_limits = redis://127.0.0.1:{redis}/0"
        self.assertEqual(await self.confined(settings), [True, True])
