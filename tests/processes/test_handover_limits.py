"""The limits of several processes while a connection is on its way from one to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
from typing_extensions import override

from tests.processes.handover_case import HandoverCase
from txmux.access.across_processes import SharedLimits
from txmux.rules.reading.parser import parse

if TYPE_CHECKING:
    from txmux.tcp.listener import MuxFactory

_RULES = "[listen public]\nendpoint = 127.0.0.1:0\n"


class LimitsTest(HandoverCase):
    """The service of both ends of the channel, which are its first two workers, has a limit."""

    def setUp(self) -> None:
        """Make what they count."""
        super().setUp()
        self.limits = SharedLimits.make(parse(_RULES, "x"), 3)
        self.addCleanup(self.limits.close)
        self.found: list[tuple[str, int]] = []

    def counted_by(self, factory: MuxFactory, worker: int) -> MuxFactory:
        """Have one of the workers count the connections of a listener."""
        admissions = self.limits.admissions(worker, self.time.seconds, 0)
        admission = admissions(factory.configuration.settings)
        factory.configuration = attrs.evolve(factory.configuration, admission=admission)
        return factory

    @override
    def mux(self, *arguments: Any, **settings: Any) -> int:
        port = super().mux(*arguments, **settings)
        self.counted_by(self.factory, 1)
        return port

    @override
    def another(self) -> MuxFactory:
        return self.counted_by(super().another(), 2)

    def count(self) -> int:
        """Tell the lowest limits of the service and of the listener that let one more in, as the third worker finds; they are one number."""
        found = []
        for name in ("", "public"):
            limit = 1
            while not (tally := self.limits.tally(limit, name, 3)).take():
                limit += 1
            tally.give_back()
            found.append(limit - 1)
        service, listener = found
        self.assertEqual(service, listener)
        return service

    async def test_on_the_way(self) -> None:
        """Each counts once at each moment, also when one process has let go and the other has not heard of it."""
        peers = await self.relayed(3)

        def go_on(batch: int, which: list[int], kept: list[int]) -> None:
            self.found.append(("let go", self.count()))
            self.assertEqual(self.old.connections, set())
            self.does["go_on"](batch, which, kept)
            self.found.append(("adopted", self.count()))

        self.assertEqual(self.count(), 3)
        self.assertEqual(await self.hand(self.adopting(go_on=go_on)), 3)
        self.assertEqual(self.found, [("let go", 3), ("adopted", 3)])
        for client, server in peers:
            client.close()
            await server.is_lost()
        await self.logged(3)
        self.assertEqual(self.count(), 0)

    async def test_lost(self) -> None:
        """What was let go, and is lost with the process that was to adopt it, counts no more."""
        await self.relayed(2)

        def go_on(**_: Any) -> None:
            self.found.append(("let go", self.count()))
            self.there.transport.abortConnection()

        self.assertEqual(await self.hand(self.adopting(go_on=go_on)), 2)
        self.assertEqual(self.found, [("let go", 2)])
        self.assertEqual(self.count(), 0)

    async def test_cannot_go_on(self) -> None:
        """What cannot go on in the process that was to adopt it counts no more."""
        await self.relayed(1)

        def adopt(*_: object) -> None:
            raise ValueError

        self.patch(self.new, "adopt", adopt)
        self.assertEqual(await self.hand(self.adopting()), 1)
        self.assertEqual(self.count(), 0)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_killed(self) -> None:
        """When a worker is killed, its parent counts none on its way; whoever comes all the same counts once."""
        peers = await self.relayed(1)

        def go_on(batch: int, which: list[int], kept: list[int]) -> None:
            self.limits.none_come()
            self.found.append(("killed", self.count()))
            self.does["go_on"](batch, which, kept)

        await self.hand(self.adopting(go_on=go_on))
        self.assertEqual(self.found, [("killed", 0)])
        self.assertEqual(self.count(), 1)
        client, server = peers[0]
        client.close()
        await server.is_lost()
        await self.logged(1)
        self.assertEqual(self.count(), 0)
