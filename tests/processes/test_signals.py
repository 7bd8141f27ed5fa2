"""Signals that come at the worst moments."""

import gc
import os
import re
import signal
import weakref
from typing import Any

from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from tests.processes.running import WorkersTestCase, family_of, is_gone, named
from tests.processes.upgrading import Running
from tests.service.test_privileges import python_for_everybody
from tests.support.peers import reactor
from txmux.processes.supervisor.signals import StopSignals


class StopSignalsTest(SynchronousTestCase):
    def watch(self) -> StopSignals:
        reactor = MemoryReactor()
        signals = StopSignals(reactor)
        signals.start()
        (hook,) = reactor.whenRunningHooks
        hook[0](*hook[1], **hook[2])
        return signals

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
        self.watch()
        self.assertEqual(heard, [signal.SIGTERM])

    def test_further_one_while_the_first_is_handled(self) -> None:
        """It hurries the service, and does not stop the reactor once more."""
        heard: list[int] = []

        def handle(number: int, _: object) -> None:
            heard.append(number)
            if len(heard) == 1:
                signal.raise_signal(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        signal.signal(signal.SIGTERM, handle)
        signals = self.watch()
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual((heard, signals.is_urgent), ([signal.SIGTERM], True))


class OthersTest(WorkersTestCase):
    """Signals that systemd, terminals and programs like logrotate send to all processes of a service."""

    def test_only_for_the_supervisor(self) -> None:
        """All but the supervisor ignore those that mean the service: connections go on, reload and upgrade still work."""
        self.folder.chmod(0o755)
        settings = "user = nobody\n" * (os.geteuid() == 0)  # so that there is a helper
        listening = self.backend()
        as_another = python_for_everybody() if settings else ()
        rules = self.relaying(listening)
        mux = self.own(Running(self.folder, rules, f"{settings}workers = 2", before=as_another))
        helpers = named(mux.pid, "helper")  # the one that there is serves the next supervisor, too
        self.assertEqual(len(helpers), len(settings) > 0)
        pairs = [self.relayed(mux, listening)]
        for change in (
            lambda: mux.reload(("workers = 2", "workers = 3")),
            mux.upgrade,
            lambda: mux.reload(("workers = 3", "workers = 2")),
        ):
            (_, *others) = before = family_of(mux.pid)
            for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
                for pid in {*others, *helpers}:
                    os.kill(pid, number)
            pairs += [self.relayed(mux, listening) for _ in range(4)]
            for client, server in pairs:
                client.sendall(b"more")
                self.assertEqual(server.recv(4), b"more")
            self.assertEqual(family_of(mux.pid), before)
            self.assertFalse(any(map(is_gone, helpers)))
            change()
        self.assertEqual(len(re.findall("rules reloaded", mux.child.output)), 2)
        for client, server in pairs:
            client.close()
            server.close()
        mux.stop()
        self.assertNotIn("another one is started", mux.child.output)


class NeverRunningTests(SynchronousTestCase):
    def test_reactor_keeps_nothing_of_a_stopped_service(self) -> None:
        signals = StopSignals(reactor)
        kept = weakref.ref(signals)
        signals.start()
        signals.stop()
        del signals
        gc.collect()
        self.assertIsNone(kept())
