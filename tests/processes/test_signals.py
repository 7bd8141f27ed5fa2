"""Signals that come at the worst moments."""

from __future__ import annotations

import signal
from typing import Any

from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from txmux.processes.supervisor.signals import StopSignals


class StopSignalsTest(SynchronousTestCase):
    """`StopSignals`."""

    def test_at_once(self) -> None:
        """A signal that comes as soon as it is watched for is given to whoever had a handler before."""
        heard: list[int] = []
        install = signal.signal
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(install, number, signal.getsignal(number))
        install(signal.SIGTERM, lambda number, _: heard.append(number))

        def install_and_come(number: int, handler: Any) -> Any:
            before = install(number, handler)
            if number == signal.SIGTERM and not heard:
                signal.raise_signal(number)
            return before

        self.patch(signal, "signal", install_and_come)
        reactor = MemoryReactor()
        signals = StopSignals(reactor)
        signals.start()
        (hook,) = reactor.whenRunningHooks
        hook[0](*hook[1], **hook[2])
        self.assertEqual(heard, [signal.SIGTERM])
