"""A test case with a look-up that asks a real name server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.backends.names.nameserver import NameServerTestCase, temporary_folder
from txmux.backends.names.lookup import Lookup
from txmux.backends.names.question import LookupFailedError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tests.backends.names.nameserver import NameServer

HOST = "host.test"


class LookupTestCase(NameServerTestCase):
    """A test with a look-up that asks the test's name server."""

    def setUp(self) -> None:
        super().setUp()
        folder = temporary_folder(self)
        self.hosts = folder / "hosts"
        self.resolv_conf = folder / "resolv.conf"
        self.lookup = self.lookup_with(self.server)

    def lookup_with(self, *servers: NameServer) -> Lookup:
        places = [server.place for server in servers]
        return Lookup(self.time, places, self.resolv_conf, self.hosts)

    async def failure(self, looking: Coroutine[Any, Any, object]) -> str:
        with self.assertRaises(LookupFailedError) as caught:
            await looking
        return str(caught.exception)

    async def addresses(self, name: str = HOST) -> list[str]:
        answer = await self.lookup.host(name)
        return sorted(address for found in answer.addresses.values() for address in found)

    def tearDown(self) -> None:
        self.assertEqual(self.time.clock.getDelayedCalls(), [])
