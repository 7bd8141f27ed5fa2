from twisted.internet.defer import Deferred
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.names.resolve_case import FAR, service
from tests.backends.pool.pools import servers
from txmux.backends.names.addresses import AddressFinder
from txmux.backends.names.lookup import HostAnswer, Lookup, ServiceAnswer, ServiceRecord
from txmux.rules.model import Server


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
    def found(self, server: Server, *addresses: str) -> list[str]:
        finding = Deferred.fromCoroutine(AddressFinder(ScriptedLookup(*addresses), server).find())
        return [it.host for it in self.successResultOf(finding).addresses]

    def test_order(self) -> None:
        self.assertEqual(
            self.found(servers("a.test:1")[0], "127.0.0.10", "127.0.0.9"),
            ["127.0.0.9", "127.0.0.10"],
        )

    def test_address_without_route_beside_another_family(self) -> None:
        self.assertEqual(
            self.found(servers("a.test:1")[0], "127.0.0.1", "ff02::1%nowhere"), ["127.0.0.1"]
        )

    def test_all_without_route_stay(self) -> None:
        addresses = ["255.255.255.255", "ff02::1%nowhere"]
        self.assertEqual(self.found(servers("a.test:1")[0], *addresses), addresses)

    def test_no_port(self) -> None:
        self.assertEqual(self.found(service(), "10.0.0.1"), ["10.0.0.1"])
