"""Bans and limits that are shared by a real Redis over TLS. The supervisors of the machines are in this process."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.interop.children import output_of
from tests.interop.servers import start_redis
from tests.support.certificates import make_authority
from tests.support.peers import PeerFactory, connect, listen, reactor
from tests.support.supervised import SupervisedTestCase
from txmux import MuxService, load
from txmux.access.bans import Ban, banned_network, written

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.certificates import Identity

_RULES = """\
[txmux]
admin = off
access_log = off
shared_limits = rediss://127.0.0.1:{redis}
shared_limits_password = password
[listen x]
endpoint = 127.0.0.1:0
connection_rate_per_source = 100/s burst=10
default = 127.0.0.1:{server}
"""


class SharedByTlsTest(SupervisedTestCase):
    """Two services, and one Redis, with certificates of the test."""

    timeout = 600

    def setUp(self) -> None:
        super().setUp()
        self.authority = make_authority()
        (self.folder / "password").write_text("secret\n")
        self.trust(self.authority)
        self.server = PeerFactory()
        self.port = listen(self, self.server)

    def trust(self, authority: Identity) -> None:
        file = authority.write(self.folder / "trusted.pem")
        self.addCleanup(_set, os.environ.get("SSL_CERT_FILE"))
        _set(str(file))

    def start_redis(self, *names: str) -> None:
        self.redis = start_redis(self.folder, identity=self.authority.issue(*names))
        self.addCleanup(self.redis.end)
        command = ("redis-cli", "-s", self.redis.socket)
        output_of(*command, "config", "set", "requirepass", "secret")

    def machine(self) -> MuxService:
        text = _RULES.format(redis=self.redis.port, server=self.port)
        self.write(text)
        made = MuxService(
            load(self.file)
        )  # whose workers have the environment that this process has now
        made.startService()
        self.addCleanup(lambda: made.running and made.stopService())
        return made

    async def is_up(self, machine: MuxService) -> bool | None:
        return (await machine.control.counts()).gauges.cluster

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await deferLater(reactor, 0.005)

    async def ban(self, machine: MuxService, network: str) -> None:
        now = time.time()
        await machine.control.bans.add(Ban(banned_network(network), now, now + 600, "a test"))

    async def test_bans_and_rates_are_shared(self) -> None:
        self.start_redis("127.0.0.1")
        one, other = self.machine(), self.machine()
        for machine in (one, other):
            while not await self.is_up(machine):
                await deferLater(reactor, 0.005)
        await self.ban(one, "192.0.2.7")
        await self.until(
            lambda: "192.0.2.7" in [written(ban.network) for ban in other.control.bans.current()]
        )
        command = ("redis-cli", "-s", self.redis.socket, "-a", "secret", "--no-auth-warning")
        self.assertEqual(output_of(*command, "exists", "txmux:ban:192.0.2.7").split(), [b"1"])

    async def distrusted(self, why: str) -> None:
        """See a service go on by itself, and tell why once, however often it tries."""
        with capturedLogs() as events:
            machine = self.machine()
            await self.until(
                lambda: self.redis.child.output.count("Error accepting a client connection") > 4
            )
            self.assertFalse(await self.is_up(machine))
            await self.ban(machine, "192.0.2.7")
            [opened] = machine._sockets.sockets().values()
            client = await connect(self, opened.getsockname()[1])
            client.send(b"x")
            peer = await self.server.peer()
            self.assertFalse(client.finished)
            peer.close()
        told = [
            str(one["why"])
            for one in events
            if "bans and limits are this machine's own" in one["log_format"]
        ]
        self.assertEqual(told, [why])
        self.assertEqual(
            [written(ban.network) for ban in machine.control.bans.current()], ["192.0.2.7"]
        )

    async def test_other_authority(self) -> None:
        """A Redis whose certificate is of an authority that this machine does not trust is told nothing, and nobody is refused for that."""
        self.start_redis("127.0.0.1")
        self.trust(make_authority("Another Authority"))
        await self.distrusted(
            "no TLS: its certificate is not valid, or not of an authority that this machine trusts"
        )

    async def test_other_name(self) -> None:
        """The same holds for one whose certificate is for another name."""
        self.start_redis("redis.example.com")
        await self.distrusted("its certificate is for another name")


def _set(file: str | None) -> None:
    os.environ.pop("SSL_CERT_FILE", None)
    if file is not None:
        os.environ["SSL_CERT_FILE"] = file
