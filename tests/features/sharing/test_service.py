from collections.abc import Iterator

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.asking import AdminCase
from tests.features.sharing.machine import Machine
from tests.support.peers import PeerFactory, listen
from tests.test_errors import assert_harmless, logged, refused
from txmux.access.bans import Ban
from txmux.features.sharing.bans import SharedBans
from txmux.features.sharing.redis import ReplyError, ReplyParser
from txmux.features.sharing.store import Store
from txmux.wire import codec


class SandboxTest(AdminCase):
    async def test_shared_limits_by_tcp(self) -> None:
        redis = listen(self, PeerFactory())
        settings = f"workers = 2\nshared_limits = redis://127.0.0.1:{redis}/0"
        self.assertEqual(await self.confined(settings), [True, True])


_STORE = Store("redis://192.0.2.1", "192.0.2.1")


class NamedTests(SynchronousTestCase):
    def test_all(self) -> None:
        assert_harmless(self, "Redis, and other machines by it", _redis)


def _redis(text: str) -> Iterator[str]:
    clock = Clock()
    shared = SharedBans(clock, _STORE, Machine().bans)
    shared.connection_failed("refused")
    clock.advance(9)
    yield from logged(shared.connection_failed, text)
    yield str(ReplyError(text))
    yield from refused(list, ReplyParser().feed(text.encode() + b"\r\n"))
    yield codec.read(Ban, {"network": "192.0.2.7", "age": 1, "left": None, "reason": text}).reason
