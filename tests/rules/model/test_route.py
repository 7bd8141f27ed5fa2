import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.detection.test_flows import Nth
from txmux.interfaces import Transport
from txmux.rules.model import Alternative, Refusal, Route


@attrs.frozen
class _Named(Nth):
    fact: str = ""

    def naming(self, fact: str) -> "_Named":
        return attrs.evolve(self, fact=fact)


class OverTests(SynchronousTestCase):
    def test_lines_and_predicates_for_a_transport(self) -> None:
        streams = Alternative("s", Nth(1))
        both = Alternative("b", Nth(1), negated=True, datagrams=Nth(2))
        datagrams = Alternative("d", Nth(3), datagrams=Nth(3), streams=False)
        route = Route("a", (streams, both, datagrams), Refusal.CLOSE)
        over = {transport: route.for_transport(transport) for transport in Transport}
        tcp, udp = over[Transport.TCP], over[Transport.UDP]
        assert tcp is not None
        assert udp is not None
        self.assertEqual(tcp.alternatives, (streams, both))
        found = [(line.text, line.predicate, line.negated) for line in udp.alternatives]
        self.assertEqual(found, [("b", Nth(2), True), ("d", Nth(3), False)])
        only = Route("a", (streams,), Refusal.CLOSE)
        self.assertIs(only.for_transport(Transport.TCP), only)
        self.assertIsNone(only.for_transport(Transport.UDP))
        self.assertIsNone(Route("a", (datagrams,), Refusal.CLOSE).for_transport(Transport.TCP))

    def test_a_line_waits_for_a_fact_if_its_matcher_can_tell_whether_it_is_there(self) -> None:
        for predicate, named in ((_Named(1), _Named(1, fact="sni")), (Nth(1), Nth(1))):
            line = Alternative("a", predicate)
            self.assertIs(line.for_transport(Transport.TCP), line)
            self.assertIsNone(line.for_transport(Transport.UDP, "sni"))
            found = line.for_transport(Transport.TCP, "sni")
            self.assertEqual(found and found.predicate, named)
