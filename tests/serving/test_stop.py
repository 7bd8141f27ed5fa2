"""Draining, signals, and what is told at the end."""

import os
import signal
import socket

from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import TestCase

from tests.support.kit import SupervisedTestCase, VirtualTime, free_port
from tests.support.peers import Peer, PeerFactory, close, connect, listen, reactor
from tests.support.service import PUBLIC, ServiceTestCase
from txmux.client.parts import Part
from txmux.processes.supervisor.signals import SignalWatch

_LISTEN = "[listen x]\nendpoint = 127.0.0.1:0\n"
_RULES = f"[txmux]\naccess_log = LOG\n{{}}\n{_LISTEN}default = 127.0.0.1:{{}}\n"


async def _relayed(test: TestCase, port: int, backend: PeerFactory) -> tuple[Peer, Peer]:
    """Connect a client, and give both ends of its connection."""
    client = await connect(test, port)
    client.send(b"x")
    return client, await backend.heard(1)


class StopTest(ServiceTestCase):
    async def test_connections_finish(self) -> None:
        """Or are ended in the second half of the drain time-out, and not before."""
        time, backend = VirtualTime(), PeerFactory()
        text = _RULES.format("drain_timeout = 20s", listen(self, backend))
        (port,) = self.run_service(text, use=time)
        client, server = await _relayed(self, port, backend)
        (await connect(self, port)).send(b"x")
        await backend.heard(1, 1)
        (factory,) = self.running.listeners
        with capturedLogs() as events:
            stopped = self.running.stopService()
            await client.tell(server, b"y", 2)
        # What its program does with a second signal is unknown.
        self.assertRegex("\n".join(map(eventAsText, events)), "draining .*: 2, for up to 20 s$")
        with socket.socket() as late:
            late.settimeout(2)
            self.assertNotEqual(late.connect_ex(("127.0.0.1", port)), 0)
        close(client, server)
        await self.until(lambda: len(factory.connections) == 1)
        for seconds, is_over in ((10, False), (11, True)):
            self.assertFalse(stopped.called)
            time.clock.pump([0.1] * seconds * 10)
            self.assertEqual(len(factory.connections), not is_over)
        await stopped
        for reason in ("done", "drained"):
            self.assertIn(f"reason={reason}", self.log.read_text())
        self.assertEqual(time.clock.getDelayedCalls(), [])

    async def test_part_looks_at_its_source_no_more(self) -> None:
        redis = f"shared_limits = redis://127.0.0.1:{free_port('127.0.0.1')}"
        text = f"[txmux]\n{redis}\n{PUBLIC}connection_rate_per_source = 9/m\n"
        time, looks = VirtualTime(), list[float]()
        self.patch(Part, "look", lambda _: looks.append(time.seconds()))
        self.run_service(text, use=time)
        time.advance(1)
        self.reload(text)
        time.advance(1)
        await self._stop()
        time.advance(1)
        self.assertEqual((looks, time.clock.getDelayedCalls()), ([1, 2], []))
        self.assertEqual(reactor.getDelayedCalls(), [])

    async def test_dry_run_is_told(self) -> None:
        """The access log and, at a reload and at the stop, the service's log tell what they would have taken."""
        dry = "[route dry]\nmatch = any\nbackend = reset\ndry_run = yes\n"
        rules = f"[txmux]\naccess_log = LOG\n{_LISTEN}{dry}"
        (port,) = self.run_service(rules)
        client = await connect(self, port)
        client.send(b"x")
        await client.is_lost()
        self.assertFalse(client.was_reset())
        self.assertIn("route=- ", self.log.read_text())
        self.assertIn(" facts.dry_run=dry", self.log.read_text())
        with capturedLogs() as events:
            for _ in range(2):  # nothing is said of none before the stop
                self.reload(rules)
            await self.running.stopService()
        told = [event for event in events if "would have taken" in event.get("log_format", "")]
        counts = [(e["name"], e["count"], e["listener"]) for e in told]
        self.assertEqual(counts, [("dry", 1, "x"), ("dry", 0, "x")])


class SupervisorTest(SupervisedTestCase):
    async def relayed(self) -> tuple[Peer, Peer]:
        backend = PeerFactory()
        (port,) = await self.run_service(_RULES.format("", listen(self, backend)))
        return await _relayed(self, port, backend)

    async def test_second_signal_hurries(self) -> None:
        """SIGHUP does not."""
        before = signal.getsignal(signal.SIGTERM)
        client, server = await self.relayed()
        stopped = self.running.stopService()
        os.kill(os.getpid(), signal.SIGHUP)
        await client.tell(server, b"y", 2)
        os.kill(os.getpid(), signal.SIGTERM)
        await client.is_lost()
        await server.is_lost()
        await stopped
        self.assertIn("reason=drained", self.log.read_text())
        self.assertEqual(signal.getsignal(signal.SIGTERM), before)

    async def test_asked_while_draining(self) -> None:
        """While it stops, it says so to who wants a reload or an upgrade; then it does not run."""
        client, server = await self.relayed()
        stopped = self.running.stopService()
        for why in ("the service is shutting down", "the service does not run"):
            with capturedLogs():
                for asked in (self.running.reload, self.running.upgrade):
                    report = await asked()
                    self.assertEqual((report.ok, report.errors), (False, [why]))
            close(client, server)
            await stopped

    async def test_reopens_no_access_log_and_starts_again(self) -> None:
        await self.run_service(f"[txmux]\naccess_log = off\n{_LISTEN}")
        self.running.reopen_log()
        self.assertEqual(await self.running.control.missing(), [])
        await self.running.stopService()
        self.running.startService()
        await self.all_serve()
        self.assertEqual(len(self.ports()), 1)

    async def test_in_a_thread(self) -> None:
        """Where signals cannot be handled, nothing is done about them."""
        watch = SignalWatch(reactor, lambda: None, signal.SIGHUP)
        await deferToThread(watch.start)
        watch.stop()
