from twisted.internet.defer import Deferred
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.names.resolve_case import FAR, service
from tests.backends.pool.pools import servers
from txmux.backends.names.addresses import AddressFinder
from txmux.backends.names.lookup import HostAnswer, Lookup, ServiceAnswer, ServiceRecord


class ScriptedLookup(Lookup):
    def __init__(self, *addresses: str) -> None:
        self.answer = HostAnswer({dns.A: frozenset(addresses)}, FAR)

    async def host(self, name: str) -> HostAnswer:
        return self.answer

    async def service(self, name: str) -> ServiceAnswer:
        return ServiceAnswer(
            [ServiceRecord(0, 1, 0, "port-0.test"), ServiceRecord(0, 1, 1, "one.test")], FAR
        )


class AddressTests(SynchronousTestCase):
    def test_order_and_routes(self) -> None:
        """An address without a route is left out unless there is no other, and a record without a port leads nowhere."""
        named, unrouted = servers("a.test:1")[0], ["255.255.255.255", "ff02::1%nowhere"]
        for server, found, expected in (
            (named, ["127.0.0.10", "127.0.0.9"], ["127.0.0.9", "127.0.0.10"]),
            (named, ["127.0.0.1", "ff02::1%nowhere"], ["127.0.0.1"]),
            (named, unrouted, unrouted),
            (service(), ["10.0.0.1"], ["10.0.0.1"]),
        ):
            finding = Deferred.fromCoroutine(AddressFinder(ScriptedLookup(*found), server).find())
            addresses = self.successResultOf(finding).addresses
            self.assertEqual([it.host for it in addresses], expected)
