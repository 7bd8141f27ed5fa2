"""The lock for orders, with a Redis that gives it."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux.features.acme.shared import SharedCertificates
from txmux.features.sharing.client import RedisClient
from txmux.features.sharing.store import Store


class LockTest(SynchronousTestCase):
    def test_orders_of_one_machine_share_it_for_two_minutes(self) -> None:
        clock, asked = Clock(), list[int]()
        clock.advance(1000)
        store = Store("redis://127.0.0.1:1", "127.0.0.1", 1)
        self.patch(RedisClient, "start", lambda _: None)
        shared = SharedCertificates(clock, store, lambda: 0.0)
        self.addCleanup(shared.stop)

        async def ask(*words: object, **_: object) -> int:
            asked.append(len(words))
            return 1

        self.patch(shared, "_ask", ask)

        def result_of(work: Any) -> Any:
            return self.successResultOf(Deferred.fromCoroutine(work))

        self.assertTrue(result_of(shared.lock()))
        clock.advance(120)
        self.assertTrue(result_of(shared.lock()))
        clock.advance(0.1)
        self.assertFalse(result_of(shared.lock()))
        for released in (2, 3):
            result_of(shared.unlock())
            self.assertEqual(len(asked), released)
        self.assertTrue(result_of(shared.lock()))


class PasswordTest(SynchronousTestCase):
    def test_none(self) -> None:
        """The key of shared certificates is derived from it; an empty one would seal them with a key that all know."""
        path = make_folder(self) / "password"
        path.write_bytes(b"\n")
        store = Store("redis://127.0.0.1:1", "127.0.0.1", 1, password=path)
        shared = SharedCertificates(Clock(), store, lambda: 0.0)
        self.assertFalse(shared.is_up)
        self.assertIn(f"'{path}' does not hold one line", shared.source.why)
        shared.stop()
