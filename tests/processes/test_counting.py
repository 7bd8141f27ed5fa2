"""Counters of a service with workers, and sessions of TLS: one worker is killed, and all get other rules."""

import json
import os
import signal
import socket
import ssl
from collections import Counter
from collections.abc import Collection
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import deferLater
from typing_extensions import override

from tests.support.kit import Peer, SupervisedTestCase, authority, connect, listen, reactor
from tests.support.peers import PeerFactory
from tests.support.proc import halted, open_files
from tests.support.secure import client_context
from tests.support.steps import counts_of
from txmux.admin.metrics import exposition
from txmux.telemetry.counting.snapshot import Counts

RULES = """
[txmux]
workers = 3
access_log = LOG
access_log_format = json

[listen public]
endpoint = 127.0.0.1:0

[route greeting]
match = regex pattern=HELLO
backend = 127.0.0.1:BACKEND
"""

CHANGED = """
[route parting]
match = regex pattern=BYE
backend = 127.0.0.1:BACKEND
"""


class Echo(Peer):
    """Says everything twice, and finishes when its client does."""

    def dataReceived(self, data: bytes) -> None:
        self.send(2 * data)

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.close()


class AgreementTest(SupervisedTestCase):
    async def test_killed_and_reloaded(self) -> None:
        """The counters, the access log and the clients agree to the last connection and byte."""
        await self.begin()
        for _ in range(40):
            await self.visit(b"HELLO 1")
        for _ in range(5):
            await self.visit(b"nobody knows this", answered=False)
        victim, *others = self.pids()
        lost = await self.hold(others)
        kept = [peer for pid in others for peer in await self.hold({victim, *others} - {pid})]
        before = await self.running.control.counts()
        self.assert_public(before, total=69, active=24)
        os.kill(victim, signal.SIGKILL)
        await self.until(lambda: victim not in self.pids() and self.supervisor.pool.are_ready())
        for peer in lost:
            await peer.has_all()
        after = await self.running.control.counts()
        self.assert_public(after, total=69, active=16)
        self.assertEqual(after.process.restarts, 1)
        self.write(RULES + CHANGED)
        report = await self.running.reload()
        self.assertEqual(report.changes[:21], "1 route new (parting)")
        for peer in kept:
            await self.say(peer, b"more")
        for _ in range(20):
            await self.visit(b"BYE 1")
        for peer in kept:
            peer.finish()
            await peer.is_lost()
        await self.settled()
        await self.compare(lost=len(lost))

    async def test_new_names(self) -> None:
        """Routes whose names change with each reload take no more memory, and each is counted from nothing, while a connection of the first goes on."""
        await self.begin()
        kept = await connect(self, self.port)
        await self.say(kept, b"HELLO 1")
        sizes, opened = [], []
        for number in range(7):
            self.write(RULES.replace("greeting", f"r{number}"))
            report = await self.running.reload()
            self.assertEqual(report.errors, ())
            for _ in range(6):
                await self.visit(b"HELLO 2")
            await self.until(lambda: self.matches() == {f"r{number}": 6, "": 0})  # noqa: B023 - called at once
            sizes.append(len(self.running.control.counters.layout.places))
            opened.append([len(open_files(pid)) for pid in (*self.pids(), os.getpid())])
        self.assertEqual(sizes[3:], [sizes[3]] * 4)
        for before, after in zip(opened[3], opened[6], strict=True):
            self.assertLess(after - before, 3)  # not one with each reload; one may be in passing
        kept.finish()
        await kept.is_lost()
        await self.settled()
        self.assert_public(await self.running.control.counts(), total=43, active=0)

    def matches(self) -> dict[str, int]:
        counts = counts_of(self.running.control.counters, self.running.control.rules)
        return {one.route: one.matches for one in counts.routes}

    async def begin(self) -> None:
        self.sent = self.got = 0
        self.backend = listen(self, PeerFactory(Echo))
        [self.port] = await self.run_service(RULES)

    @override
    def write(self, text: str) -> None:
        super().write(text.replace("BACKEND", str(self.backend)))

    async def say(self, peer: Peer, data: bytes) -> None:
        before = len(peer.received)
        peer.send(data)
        self.sent += len(data)
        await peer.has(before + 2 * len(data))
        self.got += 2 * len(data)

    async def hold(self, others: Collection[int]) -> list[Peer]:
        """Make connections that last, of which these workers get none."""
        peers = []
        with halted(others):
            for _ in range(8):
                peers.append(await connect(self, self.port))
                await self.say(peers[-1], b"HELLO 2")
        return peers

    async def visit(self, data: bytes, *, answered: bool = True) -> None:
        peer = await connect(self, self.port)
        if answered:
            await self.say(peer, data)
            peer.finish()
        else:
            peer.send(data)
            self.sent += len(data)
        await peer.is_lost()

    async def settled(self) -> None:
        while (await self.running.control.counts()).listeners[0].active:
            await deferLater(reactor, 0.01)

    def assert_public(self, counts: Counts, total: int, active: int) -> None:
        (listener,) = counts.listeners
        self.assertEqual((listener.total, listener.active), (total, active))
        self.assertEqual((listener.bytes_in, listener.bytes_out), (self.sent, self.got))

    async def compare(self, lost: int) -> None:
        counts = await self.running.control.counts()
        self.assert_public(counts, total=89, active=0)
        routes = {one.route: one for one in counts.routes}
        self.assertEqual(
            {name: one.matches for name, one in routes.items()},
            {"greeting": 64, "parting": 20, "": 0},
        )
        self.assertEqual(sum(one.bytes_in for one in counts.routes), self.sent)
        self.assertEqual(sum(one.bytes_out for one in counts.routes), self.got)
        ended = {(one.route, why): n for one in counts.routes for why, n in one.ended.items() if n}
        self.assertEqual(ended.pop(("greeting", "crashed")), lost)
        records: list[dict[str, Any]] = [*map(json.loads, self.log.read_text().splitlines())]
        logged = Counter((record.get("route") or "", record["reason"]) for record in records)
        self.assertEqual(logged, ended)
        (server,) = counts.servers
        self.assertEqual((server.total, server.active), (84, 0))
        (listener,) = counts.listeners
        self.assertEqual(listener.detect.count, 89)
        self.assertEqual(listener.duration.count + lost, 89)
        connected = {one.backend: one.connect.count for one in counts.backends}
        self.assertEqual(connected[server.backend], 84)
        connections = (await self.running.control.status())["connections"]
        self.assertEqual((connections["total"], connections["active"]), (89, 0))
        told = Counter[str]()
        for family in text_string_to_metric_families(exposition(counts).decode()):
            for sample in family.samples:
                told[sample.name] += int(sample.value)
        self.assertEqual(told["txmux_connections_total"], 89)
        self.assertEqual(told["txmux_connections_ended_total"], len(records) + lost)
        self.assertEqual(told["txmux_bytes_total"], self.sent + self.got)
        self.assertEqual(told["txmux_worker_restarts_total"], 1)


_RULES = """[listen x]
endpoint = 127.0.0.1:0
default = close
[route tls]
match = tls
terminate_tls = {}
"""


class SessionTest(SupervisedTestCase):
    async def test_worker_that_is_replaced(self) -> None:
        identity = authority().issue("a.example")
        pem = identity.write(self.folder / "a.pem", key=True)
        context = client_context(None)
        (port,) = await self.run_service(_RULES.format(pem))

        def shake(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
            plain = socket.create_connection(("127.0.0.1", port), 10)
            with context.wrap_socket(plain, server_hostname="a.example", session=session) as tls:
                tls.sendall(b"?")
                tls.recv(1)
                return tls.session, tls.session_reused

        session, was_resumed = shake(None)
        await self.killed(*self.supervisor.pool.workers)
        self.assertEqual((was_resumed, shake(session)[1]), (False, True))
