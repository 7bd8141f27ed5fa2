"""Signals that come at the worst moments."""

import contextlib
import gc
import os
import re
import signal
import sys
import time
import weakref
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from tests.processes.running import RULES, WorkersTestCase, customize
from tests.processes.test_privileges import python_for_everybody
from tests.support.kit import PATIENCE, Child, Service, eventually, make_folder, reactor
from tests.support.proc import family_of, is_gone, named
from txmux.processes.supervisor.signals import StopSignals


class StopSignalsTest(SynchronousTestCase):
    def setUp(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))

    def watch(self) -> StopSignals:
        self.reactor: Any = MemoryReactor()
        signals = StopSignals(self.reactor)
        signals.start()
        (hook,) = self.reactor.whenRunningHooks
        hook[0](*hook[1], **hook[2])
        return signals

    def test_at_once(self) -> None:
        """A signal that comes as soon as it is watched for is given to whoever had a handler before."""
        heard: list[int] = []
        install = signal.signal
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

        signal.signal(signal.SIGTERM, handle)
        signals = self.watch()
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual((heard, signals.is_urgent), ([signal.SIGTERM], True))
        # So does one that comes while the first asks whether the reactor stops.
        heard = [0]
        signals = self.watch()
        self.reactor.__class__ = _AskedOnce
        signal.raise_signal(signal.SIGTERM)
        self.assertEqual((heard, signals.is_urgent), ([0, signal.SIGTERM], True))

    def test_no_grace(self) -> None:
        """Nothing is waited for where there is none, or a further signal has come."""
        for seconds, is_urgent in ((0.0, False), (5.0, True)):
            signals = self.watch()
            signals.is_urgent = is_urgent
            self.successResultOf(Deferred.fromCoroutine(signals.wait(seconds)))

    def test_reactor_keeps_nothing_of_a_stopped_service(self) -> None:
        signals = StopSignals(reactor)
        kept = weakref.ref(signals)
        signals.start()
        signals.stop()
        del signals
        gc.collect()
        self.assertIsNone(kept())

    def test_another_process_was_asked_to_stop(self) -> None:
        """The signal that this one gets, too, before or after it hears that, neither stops the reactor again nor hurries; a further one does."""
        stops = list[object]()

        def stop(*_: object) -> None:
            stops.append(None)
            self.reactor.running = self.reactor._stopped = True

        for is_signalled_first in (True, False):
            stops.clear()
            signal.signal(signal.SIGTERM, stop)
            signals = self.watch()
            self.reactor.stop = stop
            if is_signalled_first:
                signal.raise_signal(signal.SIGTERM)
            signals.stop_reactor(is_both=True)
            if not is_signalled_first:
                signal.raise_signal(signal.SIGTERM)
            self.assertEqual((len(stops), signals.is_urgent), (1, False))
            signal.raise_signal(signal.SIGTERM)
            self.assertEqual((len(stops), signals.is_urgent), (1, True))


class _AskedOnce(MemoryReactor):
    asked = False

    @property
    def _exitSignal(self) -> None:
        if not self.asked:
            self.asked = True
            signal.raise_signal(signal.SIGTERM)


_EARLY = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and "rules.ini" in str(sys.argv) and "TXMUX_PREDECESSOR" not in os.environ:
            for number in {numbers!r}:
                os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
"""
"""A program to which these signals come as soon as the module is to be imported."""
_PACE = 0.002
"""Seconds from one signal to the next: a process that only handles signals would not end."""


@pytest.mark.by_turns(each=True)
class EarlyTests(WorkersTestCase):
    """Signals that come while the program is still importing what it is made of."""

    def come(self, *numbers: int, module: str = "txmux.cli") -> None:
        customize(self, _EARLY.format(module=module, numbers=[*map(int, numbers)]))

    def test_done_when_ready(self) -> None:
        """Reload and upgrade are done once the service serves, in this order; the log is opened again by both."""
        self.come(signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
        mux = self.upgrading(program="run")
        mux.child.wait_for("rules reloaded: nothing changed")
        mux.child.wait_for("upgraded: process ")
        eventually(lambda: mux.named() != mux.pid, "another process serves")
        mux.follow()
        # So it is with `twist`.
        self.come(signal.SIGHUP, signal.SIGUSR1, module="txmux.cli.twist")
        mux = self.upgrading()
        mux.child.wait_for("rules reloaded: nothing changed")

    def test_quit(self) -> None:
        """SIGQUIT stops the service as SIGTERM does."""
        self.come(signal.SIGQUIT)
        rules = make_folder(self) / "rules.ini"
        rules.write_text(RULES)
        child = self.own(Child(sys.executable, "-m", "txmux", "run", rules))
        self.assertEqual(child.wait(), 0)
        self.assertRegex(child.output, r"stopping: SIGTERM\n(.*\n)*.* stopped\n")


_ENDS_LATE = """
import os, sys
if "txmux" in sys.orig_argv:
    from txmux.processes.service import MuxService

    exit = MuxService._exit

    def exit_late(self, *how, **more):
        if os.path.exists({ends!r}):
            exit(self, *how, **more)
        else:
            self._reactor.callLater(0.01, exit_late, self, *how, **more)

    MuxService._exit = exit_late
"""

_FAILS_LATE = """
import os, sys
if "txmux" in sys.orig_argv:
    if "TXMUX_PREDECESSOR" in os.environ:
        os._exit(1)

    from twisted.internet.defer import Deferred
    from txmux.processes.upgrade.upgrade import Successor
    from txmux.processes.upgrade.upgrades import Upgrades

    begin, upgrade, is_final = Successor.begin, Upgrades.upgrade, Upgrades.is_final
    stops, failed = Deferred(), Deferred()

    async def begin_late(self, *arguments):
        try:
            await begin(self, *arguments)
        finally:
            open({ready!r}, "w").close()
            await stops

    async def upgrade_late(self, *arguments):
        try:
            return await upgrade(self, *arguments)
        finally:
            failed.callback(None)

    def final_late(self):
        stops.callback(None)
        return failed.addCallback(lambda _: is_final(self))

    Successor.begin, Upgrades.upgrade, Upgrades.is_final = begin_late, upgrade_late, final_late
"""
"""The new process ends at once, which the old one hears as late as it can: when it has stopped, but for that."""


@pytest.mark.by_turns(each=True)
class LateTests(WorkersTestCase):
    def test_only_for_the_supervisor(self) -> None:
        """All but the supervisor ignore those that mean the service, as systemd and others send them to all: connections go on, reload and upgrade still work."""
        self.folder.chmod(0o755)
        settings = "user = nobody\n" * (os.geteuid() == 0)  # so that there is a helper
        as_another = python_for_everybody() if settings else ()
        settings += "workers = 2"
        mux, listening = self.start_relaying(settings, before=as_another, program="run")
        helpers = named(mux.pid, "helper")  # the one that there is serves the next supervisor, too
        self.assertEqual(len(helpers), "user" in settings)
        pairs = [self.relayed(mux, listening)]
        for change in (
            lambda: mux.reload(("workers = 2", "workers = 3")),
            mux.upgrade,
            lambda: mux.reload(("workers = 3", "workers = 2")),
        ):
            (_, *others) = before = family_of(mux.pid)
            for name in ("HUP", "INT", "QUIT", "USR1", "USR2"):
                for pid in {*others, *helpers}:
                    os.kill(pid, signal.Signals[f"SIG{name}"])
            pairs += [self.relayed(mux, listening) for _ in range(4)]
            for client, server in pairs:
                client.sendall(b"more")
                self.assertEqual(server.recv(4), b"more")
            self.assertEqual(family_of(mux.pid), before)
            self.assertFalse(any(map(is_gone, helpers)))
            change()
        self.assertEqual(len(re.findall("rules reloaded", mux.output)), 2)
        for client, server in pairs:
            client.close()
            server.close()
        mux.stop()
        self.assertNotIn("another one is started", mux.output)

    def test_replaced(self) -> None:
        """SIGHUP and SIGUSR1 reach the process that serves now, and do not end the old one."""
        ends = make_folder(self) / "ends"
        customize(self, _ENDS_LATE.format(ends=str(ends)))
        mux = self.upgrading(program="run")
        mux.replace()
        mux.child.wait_for("upgraded: ")
        for number in (signal.SIGUSR1, signal.SIGHUP):
            os.kill(mux.before, number)
        mux.child.wait_for("rules reloaded: nothing changed")
        ends.touch()
        self.assertEqual(mux.child.process.wait(PATIENCE), 0)
        self.assertRegex(mux.output, r"upgraded: (.*\n)*.*rules reloaded: nothing changed")

    def test_stopping(self) -> None:
        """Until its end, none of them ends a process that stops, nor is a further SIGTERM an error."""
        others = signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
        for service, numbers in (
            (Service(self.folder, RULES, program="run"), others),
            (self.upgrading(), others),
            (self.upgrading(), (signal.SIGTERM,)),
        ):
            self.addCleanup(service.kill_all)
            service.terminate()
            with contextlib.suppress(ProcessLookupError):
                while not is_gone(service.pid):
                    for number in numbers:
                        os.kill(service.pid, number)
                    time.sleep(_PACE)
            service.assert_stopped()

    def test_stopped_while_upgrading(self) -> None:
        """SIGTERM during an upgrade ends both processes, and nobody says that one of them serves."""
        ready, gate = self.late_upgrade("_count_on")
        mux = self.upgrading()
        self.upgrade_until(mux, ready)
        mux.terminate()
        mux.child.wait_for("SIGTERM")
        gate.touch()
        mux.assert_stopped()  # perhaps before it could say that there is no upgrade
        self.assertNotIn("keeps serving", mux.output)
        # An upgrade that fails, and goes on until the service has stopped, finds all that it uses.
        ready = make_folder(self) / "ready"
        customize(self, _FAILS_LATE.format(ready=str(ready)))
        mux = self.upgrading()
        self.upgrade_until(mux, ready)
        mux.stop()
        self.assertNotIn("keeps serving", mux.output)
        # Where another process takes over, no PID file names that, and the old one ends it.
        ready, _ = self.late("upgrade.worker_transfers.WorkerTransfers.retire")
        mux = self.upgrading()
        self.upgrade_until(mux, ready)
        self.assertNotEqual(mux.named(), mux.pid)
        mux.stop()
        self.assertFalse(mux.pidfile.exists())
