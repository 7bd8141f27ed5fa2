import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.features.sharing.machine import Machine, RedisPlayed
from tests.support.changes import change_constants
from tests.support.kit import AdminCase, PeerFactory, VirtualTime, listen, make_folder, reactor
from tests.test_errors import assert_harmless, logged, refused
from txmux.access import per_source
from txmux.access.bans import Ban
from txmux.access.per_source import PerSource, SourceLimits
from txmux.features.sharing.bans import SharedBans, Sharing
from txmux.features.sharing.client import ReplyError, ReplyParser
from txmux.features.sharing.exchange import KEY, SharedSources
from txmux.features.sharing.store import Store
from txmux.rules.model import Rules
from txmux.rules.named_files import needed_modules
from txmux.rules.reading.parser import load, parse
from txmux.wire import codec


class SharedSourcesTest(TestCase):
    def setUp(self) -> None:
        change_constants(self, per_source, _MOST_SLOTS=2**10)  # all are looked at each time
        self.time = VirtualTime()
        self.kind: Any = type("_This", (RedisPlayed,), {"time": self.time})
        self.redis = PeerFactory(self.kind)
        port = listen(self, self.redis)
        self.store = Store(f"redis://127.0.0.1:{port}", "127.0.0.1", port)
        self.limits = PerSource(SourceLimits(connections=2), self.time.seconds)
        self.sources: dict[str, PerSource | None] = {"x": self.limits, "plain": None}
        self.shared = SharedSources(self.time, self.store, lambda: self.sources)
        self.source = self.shared.source
        self.shared.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop()))
        self.events = self.enterContext(capturedLogs())

    async def stop(self) -> None:
        await self.shared.stop()
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

    async def test_silent_redis_is_known_within_five_seconds_and_connected_to_again(self) -> None:
        """Without any client; so is a connection that a firewall has forgotten."""
        await self.until(lambda: self.shared.is_up)
        (old,) = self.redis.peers
        vars(old)["hangs"] = True
        state = self.source.state
        known = await self.until(lambda: not state().up and state().is_overdue, step=0.1)
        self.assertLess(known, 5)
        again = await self.until(lambda: len(self.redis.peers) == 2 and self.shared.is_up, step=0.1)
        self.assertTrue(again < 3, again)
        await self.until(lambda: self.source.up and not self.source.why, step=0.1)
        why = "no answer within 5 s; limits of sources apply to this machine alone"
        self.assertEqual(self.lines(), [f"{self.source.name}: {it}" for it in (why, "good again")])

    async def test_redis_that_hangs_is_noticed_within_five_seconds(self) -> None:
        """Whenever it begins, even if no client comes, for bans, too; answers after two seconds, each time, are no outage."""
        bans = SharedBans(self.time, self.store, Machine().bans, self.time.seconds)
        bans.start()
        states = [self.shared.source.state, bans.source.state]
        for phase in range(12):
            self.kind.hangs = False
            await self.until(
                lambda: all(its().up and its().age is not None for its in states), step=0.25
            )
            for _ in range(24 + phase):
                await self.passed()
                self.assertTrue(all(its().up for its in states))
            self.kind.hangs = True
            known = await self.until(lambda: all(its().is_overdue for its in states), step=0.25)
            self.assertLess(known, 5)
        self.kind.hangs, self.kind.late = False, 2.0
        await self.until(lambda: all(its().up for its in states), step=0.25)
        for _ in range(400):
            await self.passed()
            self.assertFalse(any(its().is_overdue or not its().up for its in states))
        await bans.stop()
        self.kind.late = 0.0
        for _ in range(12):  # the last answers come
            await self.passed()

    async def passed(self) -> None:
        self.time.advance(0.25)
        for _ in range(8):  # what has begun by then ends on sockets
            await deferLater(reactor, 0)

    async def test_what_another_process_knew_is_forgotten(self) -> None:
        """By who owns the memory then, with the first answer, and without one."""
        self.know()
        await self.until(lambda: self.shared.is_up)
        self.assertIsNotNone(self.limits.enter(1))
        self.know()
        vars(self.redis.peers[0])["hangs"] = True
        await self.until(lambda: not self.shared.is_up, step=0.5)
        self.assertIsNotNone(self.limits.enter(1))

    async def test_answer_is_of_no_use_to_who_owns_the_memory_no_longer(self) -> None:
        await self.until(lambda: self.shared.is_up)
        (peer,) = self.redis.peers
        vars(peer)["hangs"] = True
        for source, sources in ((1, self.sources), (2, {})):
            await self.until(lambda: self.shared.is_exchanging, step=0.1)
            self.sources = sources
            peer.send(b"*2\r\n$1\r\nm\r\n$20\r\n%b\r\n" % struct.pack("<QIII", source, 2, 2, 2))
            await self.until(lambda: not self.shared.is_exchanging)
            self.assertEqual(self.limits.enter(source) is None, bool(sources))

    async def test_listener_of_another_user(self) -> None:
        """It shares with those of the same user, though the operator of another machine has one of its name."""
        if os.geteuid():
            raise SkipTest("only root can write files of other users")
        folder = make_folder(self)
        text = f"[txmux]\ninclude = d/*\nshared_limits = {self.store.text}\n[listen x]\nendpoint = :1\n"
        (folder / "rules.ini").write_text(text)
        (folder / "d").mkdir()
        (folder / "d/a").write_text("[listen y]\nendpoint = :2\n")
        os.chown(folder / "d/a", 12345, -1)
        self.sources["y"] = PerSource(SourceLimits(connections=2), self.time.seconds)
        await self.until(lambda: self.shared.is_up)  # the last peer is then the other's
        sharing = Sharing(self.time, None, lambda: self.sources)
        sharing.commit(load(folder / "rules.ini"))
        await self.until(lambda: sharing.limits is not None and sharing.limits.is_up)
        peer: Any = self.redis.peers[-1]
        keys = {its.decode() for its in peer.keys}
        self.assertEqual(keys, {KEY % "x", KEY % "y of user 12345"})
        await sharing.stop()

    def know(self) -> None:
        self.limits.apply({1: (None, 2, 0)})
        self.assertIsNone(self.limits.enter(1))

    async def test_what_is_no_answer_is_named(self) -> None:
        for reply, why in (
            (b":7\r\n", "its answer is not as expected"),
            (b"*1\r\n$1\r\nx\r\n", "its answer is not as expected"),
            (b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n", "its answer is not as expected"),
            (b"-OOM command not allowed\r\n", "OOM command not allowed"),
            (b"*1\r\n" * 10_000, "arrays of more than 4 levels"),
        ):
            self.kind.answer = reply
            await self.until(lambda: not self.source.up and why in self.source.why, step=0.5)  # noqa: B023
            self.kind.answer = b""
            await self.until(lambda: self.source.up, step=0.5)
        self.assertEqual(self.lines()[-1], f"{self.source.name}: good again")


def read(store: str) -> Rules:
    settings = f"[txmux]\nshared_limits = {store}\n"
    return parse(f"{settings}[listen a]\nendpoint = 127.0.0.1:1\n", "/etc/rules.ini")


class StoreTests(SynchronousTestCase):
    def test_forms_name_the_modules_they_need(self) -> None:
        for text, expected in (
            ("redis://10.0.0.9", Store("", "10.0.0.9")),
            ("redis://10.0.0.9:7000/2", Store("", "10.0.0.9", 7000, database=2)),
            ("rediss://me@r.example", Store("", "r.example", tls=True, user="me")),
            ("redis://[2001:db8::1]:1", Store("", "2001:db8::1", 1)),
            ("unix:/run/r.sock?db=3", Store("", path=Path("/run/r.sock"), database=3)),
            ("unix:r.sock password=p", Store("", path=Path("/etc/r.sock"), password=Path("/etc/p"))),
            ("unix:r.sock", Store("", path=Path("/etc/r.sock"))),
        ):  # fmt: skip
            found = read(text).settings.more["shared_limits"]
            self.assertEqual(found.text, text.split()[0])
            self.assertEqual(attrs.evolve(found, text=""), expected)
        for scheme, needs_tls in (("redis", False), ("rediss", True)):
            modules = {*needed_modules(read(f"{scheme}://127.0.0.1:1"))}
            self.assertIn("twisted.internet.endpoints", modules)
            self.assertEqual("txmux.net.tls.verification" in modules, needs_tls)

    def test_all(self) -> None:
        assert_harmless(self, "Redis, and other machines by it", _redis)


class SandboxTest(AdminCase):
    async def test_shared_limits_by_tcp(self) -> None:
        redis = listen(self, PeerFactory())
        settings = f"workers = 2\nshared_limits = redis://127.0.0.1:{redis}/0"
        self.assertEqual(await self.confined(settings), [True, True])


_STORE = Store("redis://192.0.2.1", "192.0.2.1")


def _redis(text: str) -> Iterator[str]:
    clock = Clock()
    shared = SharedBans(clock, _STORE, Machine().bans)
    shared.connection_failed("refused")
    clock.advance(9)
    yield from logged(shared.connection_failed, text)
    yield str(ReplyError(text))
    yield from refused(list, ReplyParser().feed(text.encode() + b"\r\n"))
    yield codec.read(Ban, {"network": "192.0.2.7", "age": 1, "left": None, "reason": text}).reason
