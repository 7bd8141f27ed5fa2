"""What waits for the connections of an old process."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from txmux.processes.upgrade.predecessor import IncomingTransfer


class ArrivalTest(SynchronousTestCase):
    """Connections that come, or do not."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.incoming = IncomingTransfer(self.clock)

    def wait(self) -> Deferred[None]:
        """Begin to wait."""
        return Deferred.fromCoroutine(self.incoming.wait_for_arrival())

    def test_none(self) -> None:
        """Where none will come, nobody waits."""
        self.successResultOf(self.wait())

    def test_come(self) -> None:
        """All who wait go on when all are here, and nobody waits after that."""
        self.incoming.expect_connections()
        waiting = [self.wait(), self.wait()]
        for one in waiting:
            self.assertNoResult(one)
        self.incoming.record_all_arrived()
        for one in (*waiting, self.wait()):
            self.successResultOf(one)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_never(self) -> None:
        """Nobody waits for ever, nor the next one anew, which is told once; that it is over may be told later."""
        self.incoming.expect_connections()
        self.clock.advance(9)
        waiting = [self.wait(), self.wait()]
        self.clock.advance(60)
        for one in waiting:
            self.assertNoResult(one)
        with capturedLogs() as events:
            self.clock.advance(1)
            for one in (*waiting, self.wait()):
                self.successResultOf(one)
        self.assertEqual(len(events), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.incoming.record_all_arrived()
