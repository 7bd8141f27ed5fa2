from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.features.docker.test_labels import RULES
from tests.support.docker import NETWORK, inspected
from txmux.features.docker.labels import Container, LabelRules, read_labels
from txmux.features.docker.sleep import Sleepers

LABELS = {"txmux.match": "any", "txmux.wake": "yes", "txmux.sleep": "1m"}


class SleepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.sleepers = Sleepers(self.clock, None, self.ask, lambda: None)  # type: ignore[arg-type]  # nothing is stopped
        running = Deferred.fromCoroutine(self.sleepers.run())
        running.addErrback(lambda failure: failure.trap(CancelledError))
        self.addCleanup(running.cancel)

    async def ask(self, *_: str) -> Any:
        server = {"server": "10.88.0.6:80", "state": "up", "active": 0, "total": 7}
        return [{"name": "web", "held": 0, "servers": [server]}]

    def hold(self, state: str) -> None:
        # The first is one that the service does not know.
        containers = [
            Container.read(inspected(name, LABELS, state=state, address=address))
            for name, address in (("new", "10.88.0.7"), ("web", "10.88.0.6"))
        ]
        self.sleepers.hold(containers)
        self.sleepers.routes = read_labels(containers, LabelRules(NETWORK), RULES)[1]

    def drained_in(self, seconds: int) -> bool:
        self.clock.pump([1] * seconds)
        return self.sleepers.drained == {b"web".hex()}

    def test_one_that_is_started_again_has_its_whole_time(self) -> None:
        for _ in range(2):
            self.hold("running")
            self.assertFalse(self.drained_in(60))
            self.assertTrue(self.drained_in(20))
            self.hold("exited")
            self.assertFalse(self.drained_in(100))
