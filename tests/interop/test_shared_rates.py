"""Limits of sources that machines share by a real Redis: services of this process, and processes of one, of which only the supervisor has to do with it."""

import contextlib
import os
import re
import secrets
import struct
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.interop.children import InteropTestCase, answered, eventually
from tests.interop.servers import start_redis
from tests.support.kit import EchoServer, change_constants, family_of, make_folder, workers_of
from tests.support.peers import Peer, PeerFactory, connect, listen, reactor
from tests.support.services import Service
from txmux import EmbeddedService
from txmux.features.sharing import exchange
from txmux.features.sharing.exchange import KEY, SharedSources
from txmux.features.sharing.store import is_shared
from txmux.rules.reading.parser import parse

_RULES = """\
[txmux]
admin = off
access_log = off
shared_limits = redis://127.0.0.1:{redis}
[listen x]
endpoint = 127.0.0.1:0
{limit}
default = 127.0.0.1:{server}
"""

_KEY = exchange.KEY % "x"
_SOURCE = 0xFF0000007F000001
"""Stands for 127.0.0.1."""


def _shared(machine: EmbeddedService) -> SharedSources:
    part: Any = machine._parts["sharing"]
    shared: SharedSources = part.limits
    return shared


class SharedRatesTest(TestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.redis = start_redis(self.folder)
        self.addCleanup(self.redis.end)
        self.server = PeerFactory()
        self.port = listen(self, self.server)

    def machine(self, most: int = 2, limit: str = "") -> EmbeddedService:
        limit = limit or f"max_connections_per_source = {most}"
        text = _RULES.format(redis=self.redis.port, limit=limit, server=self.port)
        made = EmbeddedService(parse(text, self.folder / "rules.ini"))
        made.startService()
        self.addCleanup(lambda: made.running and made.stopService())
        return made

    async def up(self, *machines: EmbeddedService, wanted: bool = True) -> None:
        for one in machines:
            while _shared(one).is_up != wanted:
                await deferLater(reactor, 0.005)

    async def test_rate(self) -> None:
        """What a source makes at one machine is taken from its burst at another."""
        limit = "connection_rate_per_source = 4/h burst=8"
        machines = one, other = [self.machine(limit=limit) for _ in range(2)]
        await self.up(*machines)
        clients = [await self.stay(one) for _ in range(9)]
        self.assertEqual([client.finished for client in clients], [False] * 8 + [True])
        await self.heard(other, 8)
        self.assertTrue((await self.stay(other)).finished)

    async def test_connections(self) -> None:
        """Connections of one source count at all machines, for as long as they are there; while there is no Redis, each machine counts its own."""
        clients = await self.hold_all()
        self.redis.end()
        await self.up(*self.machines, wanted=False)
        self.assertFalse((await self.stay(self.machines[1])).finished)
        self.redis = start_redis(self.folder, self.redis.port)
        self.addCleanup(self.redis.end)
        await self.up(*self.machines)
        while not (one := await self.stay(self.machines[1])).finished:
            one.reset()
            await deferLater(reactor, 0.05)
        for client in clients:
            client.reset()
        while (await self.stay(self.machines[1])).finished:
            await deferLater(reactor, 0.05)

    async def hold_all(self) -> list[Peer]:
        """Have a source make all the connections that it may, seven by one machine and the rest by another; return the seven."""
        self.machines = machines = [self.machine(10) for _ in range(2)]
        await self.up(*machines)
        clients = [await self.stay(machines[0]) for _ in range(7)]
        self.assertFalse(any(client.finished for client in clients))
        await self.heard(machines[1], 7)
        others = [await self.stay(machines[1]) for _ in range(7)]
        self.assertEqual([client.finished for client in others], [False] * 3 + [True] * 4)
        return clients

    async def heard(self, machine: EmbeddedService, made: int) -> None:
        """Wait until it knows that the source has made so many connections elsewhere: the first report has half of them, or more."""
        while not any(
            made <= report.get(_SOURCE, 0)
            for one in _shared(machine).exchanges.values()
            for report in (one._known or {}).values()
        ):
            await deferLater(reactor, 0.01)

    async def stay(self, machine: EmbeddedService) -> Peer:
        port: Any = machine.ports[0]
        before = len(self.server.peers)
        client = await connect(self, port.getHost().port)
        while not client.finished and len(self.server.peers) == before:
            await deferLater(reactor, 0)
        return client

    async def test_machine_gone(self) -> None:
        """What a machine had that has died counts until its time is over, which is fifteen seconds by Redis's clock, and then no more."""
        await self.hold_all()
        (name,) = {one for _, one in _shared(self.machines[0]).exchanges}
        await _shared(self.machines[0]).stop()  # it reports nothing, as one that has died
        self.assertTrue((await self.stay(self.machines[1])).finished)
        code = f"return string.sub(redis.call('hget', '{_KEY}', '{name}'), 1, 10) - redis.call('time')[1]"
        self.assertIn(int(self.redis.ask("eval", code, "0")), range(8, 16))
        self.assertIn(int(self.redis.ask("ttl", _KEY)), range(8, 16))
        # Nobody waits for that: its time is over as soon as Redis believes it.
        code = f"return redis.call('hset', '{_KEY}', '{name}', '0000000001' .. string.sub(redis.call('hget', '{_KEY}', '{name}'), 11))"
        self.redis.ask("eval", code, "0")
        while (await self.stay(self.machines[1])).finished:
            await deferLater(reactor, 0.05)
        self.assertNotIn(name, self.redis.ask("hkeys", _KEY))

    async def test_reports_of_others(self) -> None:
        """What is no report is dropped, and so is one that is good for longer than any is, as after Redis's clock was set back, or that of a name which no machine has.

        Those that are too many for an answer stay with their names below what a client takes for one; all that have room are heard.
        """
        machine = self.machine()
        await self.up(machine)
        now = int(self.redis.ask("time").split()[0])
        good = str(now + 10)
        wrong = ("", "x", "9999999999", f"{good}1", 20 * "x", str(now + 60), "       nan")
        self.put(dict(zip("abcdefg", wrong, strict=True)) | {65 * "n": good})
        self.put({"right": good, "more": good + 20 * "9"})
        while {*self.redis.ask("hkeys", _KEY).split()} != {"right", "more"}:
            await deferLater(reactor, 0.05)
        self.assertTrue(_shared(machine).is_up)
        self.redis.ask("del", _KEY)
        good = str(int(self.redis.ask("time").split()[0]) + 15)
        self.put({f"{number:064}": good + 999 * 20 * "1" for number in range(50)})
        (exchanged,) = _shared(machine).exchanges.values()
        while len(exchanged._known or ()) != 44:
            await deferLater(reactor, 0.01)
        self.assertTrue(_shared(machine).is_up)

    def put(self, reports: dict[str, str]) -> None:
        for name, report in reports.items():
            self.redis.ask("hset", _KEY, name, report)

    def gauge(self, machine: EmbeddedService) -> bool | None:
        parts = machine._parts.values()
        return is_shared(source.state() for part in parts for source in part.sources())

    async def test_metric_of_redis(self) -> None:
        change_constants(self, exchange, STEADY=0.1)
        machine = self.machine()
        found = [self.gauge(machine)]
        await self.up(machine)
        found.append(self.gauge(machine))
        self.redis.end()
        while self.gauge(machine):
            await deferLater(reactor, 0.01)
        rules = parse("[listen x]\nendpoint = 127.0.0.1:0\n", self.folder / "rules.ini")
        plain = EmbeddedService(rules)
        plain.startService()
        self.addCleanup(lambda: plain.running and plain.stopService())
        found.append(self.gauge(plain))
        self.assertEqual(found, [False, True, None])


class SupervisorTest(InteropTestCase):
    def test_workers_have_neither_connection_nor_password(self) -> None:
        """Not even while one of them admits a source that is reported, and after an upgrade; one that ends the sharing forgets what other machines had, which is in the memory that the new process goes on with."""
        if os.geteuid() != 0:
            raise SkipTest("only root can read the memory of processes in a sandbox")
        self.password = secrets.token_hex(16)
        self.redis = redis = self.own(start_redis(self.folder, password=self.password))
        echo = self.own(EchoServer())
        shared = f"shared_limits = redis://127.0.0.1:{redis.port} password={redis.password}"
        rules = "[listen public]\nendpoint = 127.0.0.1:0\nmax_connections_per_source = 4\n"
        rules += f"[route all]\nunder = *\nmatch = any\nbackend = 127.0.0.1:{echo.port}\n"
        self.service = self.own(Service(self.folder, rules, f"workers = 2\n{shared}", admin=True))
        for upgrades in (False, True):
            if upgrades:
                self.service.upgrade()
            with self.service.connect() as one, self.service.connect() as other:
                for client in (one, other):
                    client.sendall(b"x")
                    self.assertEqual(client.recv(1), b"x")
                eventually(lambda: "sources" in redis.ask("keys", "*"), "it is reported")
                self.assertEqual(self.service.api("status")["bans"]["shared"], "complete")
                main = self.service.pid
                self.assertEqual(len(workers_of(main)), 2)
                self.assertEqual({pid for pid in family_of(main) if self.has_password(pid)}, {main})
                self.assertEqual({pid for pid in family_of(main) if self.is_connected(pid)}, {main})

        source = struct.pack("<QIII", 0xFF0000007F000001, 4, 4, 4)
        now = int(redis.ask("time").split()[0])
        redis.ask("-x", "hset", KEY % "public", "other", stdin=str(now + 15).encode() + source)
        place = ("127.0.0.1", self.service.port)
        eventually(lambda: answered(place) == "", "the other machine has all that it may")
        self.service.edit((re.escape(shared), ""))
        self.service.upgrade()
        self.assertEqual(answered(("127.0.0.1", self.service.port)), "x")

    def is_connected(self, pid: int) -> bool:
        port = f":{self.redis.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port)}
        files = Path(f"/proc/{pid}/fd").iterdir()
        return any(str(file.readlink()) in inodes for file in files)

    def has_password(self, pid: int) -> bool:
        with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                # Some parts cannot be read.
                with contextlib.suppress(OSError, OverflowError, ValueError):
                    memory.seek(start)
                    if self.password.encode() in memory.read(end - start):
                        return True
        return False
