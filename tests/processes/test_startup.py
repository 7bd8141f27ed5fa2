"""What waits for the reactor to run, which may never do so."""

from __future__ import annotations

import gc
import weakref

from twisted.trial.unittest import SynchronousTestCase

from tests.support.peers import reactor
from txmux.processes.supervisor.signals import StopSignals


class NeverRunningTests(SynchronousTestCase):
    """A program that gives up before it runs the reactor."""

    def test_forgotten(self) -> None:
        """The reactor keeps nothing of a service that has been stopped."""
        signals = StopSignals(reactor)
        kept = weakref.ref(signals)
        signals.start()
        signals.stop()
        del signals
        gc.collect()
        self.assertIsNone(kept())
