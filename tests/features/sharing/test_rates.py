"""Whether limits are shared, by a Redis that the test plays, and a clock that it moves."""

import re
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tests.support.mux import VirtualTime
from tests.support.peers import Peer, PeerFactory, listen, reactor
from txmux.features.sharing.leases import SharedRates
from txmux.features.sharing.store import Store
from txmux.rules.model import Rules, Settings

_RUN = b"*2\r\n:1\r\n:0\r\n"


class _Redis(Peer):
    """Answers each command, unless it is `silent`."""

    silent = False
    reply = _RUN

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if not self.silent:
            for command in re.findall(rb"(EVAL|PEXPIRE)\r\n", data):
                self.send(self.reply if command == b"EVAL" else b":0\r\n")


class SharedRatesTest(TestCase):
    def setUp(self) -> None:
        self.time = VirtualTime()
        self.redis = PeerFactory(_Redis)
        port = listen(self, self.redis)
        self.rates = SharedRates(self.time, self.time.seconds)
        store = Store(f"redis://127.0.0.1:{port}", "127.0.0.1", port)
        self.rates.commit(Rules(Path("x.ini"), Settings(more={"shared_limits": store}), (), ()))
        (self.source,) = self.rates.sources()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop()))
        logs = capturedLogs()
        self.events = logs.__enter__()
        self.addCleanup(logs.__exit__, None, None, None)

    async def stop(self) -> None:
        await self.rates.stop()
        self.assertEqual(self.time.clock.getDelayedCalls(), [])

    async def until(self, condition: Callable[[], object], *, step: float = 0.0) -> float:
        begun = self.time.seconds()
        while not condition():
            self.time.advance(step)
            for _ in range(5):  # what is on its way arrives
                await deferLater(reactor, 0.001)
        return self.time.seconds() - begun

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    async def test_silent_redis_is_known_without_clients_and_connected_to_again(self) -> None:
        """So is a connection that a firewall has forgotten."""
        await self.until(lambda: self.rates.is_up)
        (old,) = self.redis.peers
        vars(old)["silent"] = True
        self.time.advance(9.9)
        self.assertLess(await self.until(lambda: not self.rates.is_up, step=0.01), 0.2)
        self.assertTrue(self.source.up)
        again = await self.until(lambda: self.rates.is_up, step=0.1)
        self.assertTrue(4 < again < 7, again)
        self.assertEqual((self.source.up, len(self.redis.peers)), (False, 2))
        await self.until(lambda: self.source.up, step=0.1)
        name = self.source.name
        alone = "limits of sources apply to this machine alone"
        self.assertEqual(
            self.lines(), [f"{name}: no answer within 5 s; {alone}", f"{name}: good again"]
        )

    async def test_slow_answers_now_and_then_are_not_logged(self) -> None:
        await self.until(lambda: self.rates.is_up)
        (peer,) = self.redis.peers
        for _ in range(20):
            await self.ask_in_silence(peer)
            self.time.advance(0.025)
            self.assertFalse(self.rates.is_up)
            peer.send(b":0\r\n")
            await self.until(lambda: self.rates.is_up, step=0.5)
            await self.until(lambda: not self.source.why, step=0.5)
        self.assertEqual((self.lines(), self.source.up), ([], True))

    async def ask_in_silence(self, peer: Peer) -> None:
        vars(peer)["silent"], count = True, len(peer.received)
        self.assertTrue(self.rates.ask("x", ("rate", 1000, 1, 1, 0), lambda *_: None))
        await self.until(lambda: len(peer.received) > count)
        vars(peer)["silent"] = False

    async def test_what_is_no_answer_is_named(self) -> None:
        for reply, why in (
            (b":7\r\n", "its answer is not as expected"),
            (b"-NOSCRIPT No matching script\r\n", "NOSCRIPT"),
            (b"-OOM command not allowed\r\n", "OOM command not allowed"),
            (b"*1\r\n" * 10_000, "arrays of more than 4 levels"),
        ):
            self.patch(_Redis, "reply", reply)
            await self.until(lambda: not self.source.up and why in self.source.why, step=0.5)  # noqa: B023
            self.patch(_Redis, "reply", _RUN)
            await self.until(lambda: self.source.up, step=0.5)
        self.assertEqual(self.lines()[-1], f"{self.source.name}: good again")

    async def test_flushed_script_is_loaded_again(self) -> None:
        await self.until(lambda: self.rates.is_up)
        (peer,) = self.redis.peers
        await self.ask_in_silence(peer)
        peer.send(b"-NOSCRIPT No matching script\r\n")
        await self.until(lambda: peer.received.count(b"EVAL\r\n") == 2)
        await self.until(lambda: self.rates.is_up)
        self.assertEqual((self.source.up, self.lines()), (True, []))
