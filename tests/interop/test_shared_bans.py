"""Bans of several machines that a real Redis leads together, also over TLS. The supervisors of the machines are in this process."""

import gc
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import TestCase

from tests.features.sharing.machine import Machine
from tests.interop.servers import RedisServer, start_redis
from tests.support.certificates import Identity, make_authority
from tests.support.changes import change_constants, change_environment
from tests.support.kit import Namespace, halted, make_folder, output_of, require_program
from tests.support.peers import PeerFactory, connect, listen, reactor
from tests.support.supervised import SupervisedTestCase, sockets_of
from txmux import MuxService, load
from txmux.access import bans
from txmux.access.bans import Ban, banned_network, written
from txmux.features.sharing.bans import SharedBans
from txmux.features.sharing.client import SharingTimes
from txmux.features.sharing.store import Store, is_shared

pytestmark = pytest.mark.by_turns

_RULES = "[txmux]\nadmin = off\naccess_log = off\nshared_limits = %s\n[listen x]\nendpoint = 127.0.0.1:0\n"


async def until(condition: Callable[[], bool]) -> float:
    begun = time.monotonic()
    while not condition():
        await deferLater(reactor, 0.005)
    return time.monotonic() - begun


def begin(test: TestCase, made: MuxService) -> MuxService:
    made.startService()
    test.addCleanup(lambda: made.running and made.stopService())
    return made


def banned(machine: MuxService) -> list[str]:
    return [written(one.network) for one in machine.control.bans.current()]


async def ban(machine: MuxService, network: str, seconds: float = 600) -> None:
    now = machine.control.bans.now()
    await machine.control.bans.add(Ban(banned_network(network), now, now + seconds, "a test"))


def own_redis(test: TestCase, *where: Any, **how: Any) -> RedisServer:
    started = start_redis(*where, **how)
    test.addCleanup(started.end)
    return started


class SharedBansTest(SupervisedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.redis = own_redis(self, self.folder)
        self.url = f"redis://127.0.0.1:{self.redis.port}/3"

    def machine(self, url: str = "") -> MuxService:
        return begin(self, self.service(_RULES % (url or self.url)))

    async def shared(self, *machines: MuxService) -> None:
        for number, machine in enumerate(machines):
            network = f"203.0.113.{number}"
            await ban(machine, network)
            await until(lambda n=network: all(n in banned(one) for one in machines))  # type: ignore[misc]

    async def test_stopped_meanwhile(self) -> None:
        """A machine that is stopped while a worker has yet to hear of a ban logs no error."""
        one, other = self.machine(), self.machine()
        await self.shared(one, other)
        assert other.supervisor is not None
        await other.supervisor.all_serve()
        with halted([worker.pid for worker in other.supervisor.pool.workers]):
            await ban(one, "192.0.2.7")
            await until(lambda: "192.0.2.7" in banned(other))
            stopped = other.stopService()
        await stopped
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_password(self) -> None:
        """With a password from a file, and by a UNIX socket; without it, one line says what Redis says."""
        self.redis.ask("config", "set", "requirepass", "secret")
        (self.folder / "password").write_text("secret\n")
        one = self.machine(f"{self.url} password=password")
        await self.shared(one, self.machine(f"unix:{self.redis.socket}?db=3 password=password"))
        with capturedLogs() as events:
            self.machine()
            await until(lambda: bool(_told(events)))
        (why,) = _told(events)
        self.assertIn("NOAUTH", why)


class ClocksTest(TestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.redis = own_redis(self, self.folder)
        self.times = SharingTimes(pings=0.2, patience=0.5, compared=3600.0)

    async def machine(self, ahead: float = 0.0) -> tuple[Machine, SharedBans]:
        machine = Machine(ahead)
        store = Store(f"redis://127.0.0.1:{self.redis.port}", "127.0.0.1", self.redis.port)
        shared = SharedBans(reactor, store, machine.bans, machine.now, self.times)
        machine.bans.publish = shared.announce
        shared.start()
        self.addCleanup(shared.stop)
        await until(lambda: shared.state == "complete")
        return machine, shared

    async def test_meanwhile(self) -> None:
        """What machines change while there is no Redis counts in the order of these changes, not in that of their return or their clocks, by which bans last as long; Redis comes back empty, and gets what there is."""
        (ahead, first), (behind, second) = await self.machine(3600), await self.machine(-3600)
        for network in ("192.0.2.7", "192.0.2.8"):
            await behind.ban(network)
        await until(lambda: len(ahead.banned()) == 2)
        for one in ahead.bans.current():
            self.assertLess(abs(one.until - ahead.now() - 600), 20)
            self.assertEqual(one.reason, "a test")
        await ahead.ban("192.0.2.10")
        await until(lambda: len(behind.banned()) == 3)
        await ahead.lift("192.0.2.10")
        await until(lambda: len(behind.banned()) == 2)
        self.redis.end()
        await until(lambda: first.state == second.state == "lost")
        await ahead.ban("192.0.2.7", 500)
        await ahead.ban("192.0.2.9", 500)
        await deferLater(reactor, 0.5)  # more than they can be wrong about the time of Redis
        await behind.lift("192.0.2.7")
        await behind.lift("192.0.2.8")
        self.redis = own_redis(self, self.folder, self.redis.port)
        await until(lambda: behind.banned() == ahead.banned() == ["192.0.2.9"])
        await until(lambda: first.state == second.state == "complete")
        self.assertEqual([ahead.banned(), behind.banned()], [["192.0.2.9"]] * 2)
        left = int(self.redis.ask("ttl", "txmux:ban:192.0.2.9"))
        self.assertTrue(400 < left <= 500, left)  # as long as the ban

    async def test_refusing_redis_is_lost(self) -> None:
        """It gets all bans again, and whoever comes late has them, too."""
        self.times = SharingTimes(pings=0.1, compared=0.2)
        one, shared = await self.machine()
        for number in range(50):
            await one.ban(f"192.0.2.{number}", float("inf"))
        # What Redis has not confirmed is written one by one; what it has lost is written at once.
        await until(lambda: not shared.unconfirmed)
        with capturedLogs() as logged:
            self.redis.ask(stdin=b"MULTI\nFLUSHALL\nCONFIG SET min-replicas-to-write 1\nEXEC\n")
            await until(lambda: shared.state == "lost")
            self.redis.ask("config", "set", "min-replicas-to-write", "0")
            await until(lambda: shared.state == "complete")
            gc.collect()  # of what nobody has handled, the log hears at its end
        said = [eventAsText(event) for event in logged if event["log_level"].name == "warn"]
        self.assertEqual(len(said), len({*said}))
        self.assertFalse([one for one in logged if "log_failure" in one])
        self.assertEqual(self.redis.ask("ttl", "txmux:ban:192.0.2.7"), "-1\n")
        late, _ = await self.machine()
        self.assertEqual(len(late.banned()), 50)

    async def test_full(self) -> None:
        """Bans that there is no room for hold after the next comparison, if there is some by then."""
        self.times = SharingTimes(pings=0.1, compared=0.2)
        change_constants(self, bans, _MOST=2)
        one, shared = await self.machine()
        await one.ban("192.0.2.1")
        await one.ban("192.0.2.2")
        record = '{"network": "192.0.2.7", "since": 5, "until": null, "ban": true, "reason": ""}'
        self.redis.ask("set", "txmux:ban:192.0.2.7", record)
        await until(lambda: shared.state == "partial")
        self.assertNotIn("192.0.2.7", one.banned())
        await one.lift("192.0.2.1")
        await until(lambda: shared.state == "complete")
        self.assertEqual(one.banned(), ["192.0.2.2", "192.0.2.7"])
        self.assertEqual(shared.troubles(), [])
        await one.lift("192.0.2.7")
        await one.ban("192.0.2.1")
        self.redis.ask("set", "txmux:ban:192.0.2.8", record.replace("2.7", "2.8"))
        await until(lambda: shared.state == "partial")
        self.redis.ask("del", "txmux:ban:192.0.2.8")
        await until(lambda: shared.state == "complete")

    def listeners(self) -> list[str]:
        return re.findall(r"addr=127\.0\.0\.1:(\d+) .* sub=1 ", self.redis.ask("client", "list"))

    async def test_listener(self) -> None:
        """Who has a connection that brings nothing any more, as a firewall has forgotten it, finds out, makes another one, and has what was told meanwhile."""
        require_program("nft")
        Namespace(self).enter()
        output_of("nft", "add table inet wall")
        output_of("nft", "add chain inet wall in { type filter hook input priority 0 ; }")
        self.redis = own_redis(self, make_folder(self))
        one, _ = await self.machine()
        (known,) = self.listeners()
        other, shared = await self.machine()
        (forgotten,) = {*self.listeners()} - {known}
        for ends in ("tcp sport {} tcp dport {}", "tcp dport {} tcp sport {}"):
            rule = ends.format(self.redis.port, forgotten)
            output_of("nft", f"add rule inet wall in {rule} drop")
        await one.ban("192.0.2.7")
        await until(lambda: other.banned() == ["192.0.2.7"])
        await until(lambda: shared.state == "complete")
        await one.lift("192.0.2.7")
        await until(lambda: not other.banned())


def _told(events: Sequence[Any]) -> list[str]:
    known = (one for one in events if str(one.get("name")).startswith("bans "))
    return [str(one["why"]) for one in known if one.get("effect")]


_TLS_RULES = """\
[txmux]
admin = off
access_log = off
shared_limits = rediss://127.0.0.1:{redis} password=password
[listen x]
endpoint = 127.0.0.1:0
connection_rate_per_source = 100/s burst=10
default = 127.0.0.1:{server}
"""


class SharedByTlsTest(SupervisedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = make_authority()
        self.trust(self.authority)
        self.server = PeerFactory()
        self.port = listen(self, self.server)

    def trust(self, authority: Identity) -> None:
        change_environment(self, SSL_CERT_FILE=str(authority.write(self.folder / "trusted.pem")))

    def start(self, name: str) -> None:
        identity = self.authority.issue(name)
        self.redis = own_redis(self, self.folder, identity=identity, password="secret")

    def machine(self) -> MuxService:
        self.write(_TLS_RULES.format(redis=self.redis.port, server=self.port))
        # Its workers have the environment that this process has now.
        return begin(self, MuxService(load(self.file)))

    async def is_up(self, machine: MuxService) -> bool | None:
        return is_shared((await machine.control.counts()).gauges.outside)

    async def test_bans_and_rates_are_shared(self) -> None:
        self.start("127.0.0.1")
        one, other = self.machine(), self.machine()
        for machine in (one, other):
            while not await self.is_up(machine):
                await deferLater(reactor, 0.005)
        await ban(one, "192.0.2.7")
        await until(lambda: "192.0.2.7" in banned(other))
        self.assertEqual(self.redis.ask("exists", "txmux:ban:192.0.2.7"), "1\n")

    async def test_redis_that_is_not_trusted(self) -> None:
        """One whose certificate is of another authority, or for another name, is told nothing: a service goes on by itself, and tells why once, however often it tries."""
        error = "Error accepting a client connection"
        for name, other, why in (
            ("127.0.0.1", "Another Authority", "no TLS: its certificate is not valid, or not of an authority that this machine trusts"),
            ("redis.example.com", "", "its certificate is for redis.example.com, not for 127.0.0.1"),
        ):  # fmt: skip
            self.start(name)
            self.trust(make_authority(other) if other else self.authority)
            with capturedLogs() as events:
                machine = self.machine()
                await until(lambda: self.redis.child.output.count(error) > 4)
                await until(lambda seen=events: bool(_told(seen)))  # type: ignore[misc]
                self.assertFalse(await self.is_up(machine))
                await ban(machine, "192.0.2.7")
                [opened] = sockets_of(machine)
                client = await connect(self, opened.getsockname()[1])
                client.send(b"x")
                peer = await self.server.peer()
                self.assertFalse(client.finished)
                peer.close()
            self.assertEqual(_told(events), [why])
            self.assertEqual(banned(machine), ["192.0.2.7"])
