import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from tests.features.consul.stand_in import Consul, Instance, instances_in
from tests.support.kit import AdminCase, Peer, PeerFactory, connect, listen, reactor, run
from tests.test_errors import assert_harmless, refused
from txmux.features.consul.finding import _refusal, next_index
from txmux.net.http import HttpResponse
from txmux.net.turns import in_thread

_CHECK = sys.executable, "-m", "txmux", "check"

_RULES = """
[listen public]
endpoint = 127.0.0.1:0
default = web
[route web]
match = any
backend = web
[backend web]
server = consul:web
retries = 9
"""


@pytest.mark.by_turns(each=True)
class ConsulTests(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.consul = Consul(self)
        self.settings = f"consul = {self.consul.url}"

    def many(self, first: Instance) -> list[Instance]:
        return [first, *(Instance(80, f"127.1.{n >> 8}.{n & 255}") for n in range(999))]

    async def led(self, factory: PeerFactory) -> tuple[Peer, Peer]:
        count = len(factory.peers)
        client = await connect(self, self.port)
        client.send(b"x")
        server = await factory.peer(count)
        await server.has(1)
        return client, server

    async def listed(self) -> dict[str, Any]:
        [backend] = (await self.get("/api/backends")).json
        [server] = backend["servers"]
        return {**server}

    async def addresses(self) -> set[str]:
        return {one["address"] for one in (await self.listed())["addresses"]}

    def spent(self) -> float:
        [worker] = self.supervisor.pool.workers
        times = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
        return time.process_time() + sum(map(int, times)) / os.sysconf("SC_CLK_TCK")

    async def test_thousand(self) -> None:
        """Of a thousand servers one is replaced: within 2 s clients go to the other one, and those of the first one stay."""
        before, after = PeerFactory(), PeerFactory()
        ports = [listen(self, factory) for factory in (before, after)]
        took: list[float] = []
        self.consul.register("web", self.many(Instance(ports[0], weights=(65535, 1))))
        await self.start(self.settings, _RULES)
        client, server = await self.led(before)
        while not self.consul.waiting:
            await deferLater(reactor, 0.01)
        told = await self.listed()
        self.assertEqual((told["server"], len(told["addresses"])), ("consul:web", 1000))
        # The second change comes right after the first one, while nobody asks.
        for port in (ports[0] + 1, ports[0] + 2, ports[1]):
            began = self.spent()  # without what this machine does besides
            self.consul.register("web", self.many(Instance(port, weights=(65535, 1))))
            while f"127.0.0.1:{port}" not in await self.addresses():
                await deferLater(reactor, 0.01)
            took.append(self.spent() - began)
        self.assertLess(min(took), 2.0)
        await self.led(after)
        server.send(b"still here")
        await client.has(10)
        self.assertIn("127.1.0.7:80 and 992 more", (await self.get("/")).body.decode())

    async def test_change_reaches_all_workers_by_one_query(self) -> None:
        consul, first, second = Consul(self, self.time), PeerFactory(), PeerFactory()
        consul.register("web", [Instance(listen(self, first))])
        await self.start(f"workers = 2\nconsul = {consul.url}", _RULES, use=self.time)
        await self.all_lead_to(first)
        self.time.advance(1)
        await self.until(lambda: consul.waiting)
        port = listen(self, second)
        consul.register("web", [Instance(port, weights=(7, 1))])
        (upstream,) = self.supervisor.state.upstreams.all()
        pool = upstream.pool
        await self.until(lambda: [one.target.port for one in pool.members] == [port])
        await self.running.control.status()  # it is asked after that was told
        await self.all_lead_to(second)
        self.assertEqual(len(consul.asked), 2)

    async def test_check(self) -> None:
        """`txmux check --connect` tries the servers that Consul tells; plain `txmux check` asks nobody."""
        port = listen(self, PeerFactory())
        self.consul.register("web", [Instance(port)])
        self.write_rules(self.settings, _RULES)
        for options, lines in ((["--connect"], 1), ([], 0)):
            done = await in_thread(run, *_CHECK, *options, self.file)
            self.assertEqual((done.stderr, done.returncode), (b"", 0), done.stdout)
            self.assertEqual(done.stdout.decode().count(f"127.0.0.1:{port}"), lines, done.stdout)
            # It may ask for changes to what it was told, by an index, before it has ended.
            self.assertEqual(len([query for query in self.consul.asked if "index" not in query]), 1)
        self.consul.register("web", [])
        done = await in_thread(run, *_CHECK, "--connect", self.file)
        self.assertEqual(done.returncode, 1)
        self.assertIn("consul:web: no address: Consul has no instance of web", done.stdout.decode())


class NamedTests(SynchronousTestCase):
    def test_all(self) -> None:
        assert_harmless(self, "Consul", _told)


def _told(text: str) -> Iterator[str]:
    instance = Instance(5, address=text).told("web")
    for one in (instance, Instance(5, address=f"fe80::1%{text}").told("web")):
        found = instances_in(json.dumps([one]).encode(), passing=False)
        yield from (*found.named, *(address.host for address in found.addresses))
    yield _refusal(HttpResponse(500, {}, text.encode()))
    for name in ("Port", "Weights"):
        told = json.dumps([{**instance, "Service": {**instance["Service"], name: text}}])
        yield from refused(instances_in, told.encode(), passing=False)
    yield from refused(instances_in, json.dumps(text).encode(), passing=False)
    yield from refused(next_index, 0, text)
