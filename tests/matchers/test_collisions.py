"""Which matchers take the bytes and datagrams of which other protocols."""

import functools
from importlib.util import find_spec

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import CONFIGURED, MATCH, NEED_MORE, NO, all_samples
from tests.matchers.asking import over_udp
from tests.matchers.searching import order
from txmux.detection.ambiguities import AMBIGUITIES, DATAGRAM_AMBIGUITIES
from txmux.detection.registry import installed_matchers, transports_of
from txmux.interfaces import Datagrams, Peeked, Transport, Verdict

_ORDER = "Order over UDP"
_SAMPLES = {Transport.TCP: "SAMPLES", Transport.UDP: "DATAGRAMS"}


@functools.cache
def matched(transport: Transport = Transport.TCP) -> dict[tuple[str, str], Verdict]:
    """Ask every matcher, without options, about the samples of every protocol.

    Returns:
        By the names of the matcher and of the protocol: a match if any sample is one, else *need more* if any is
        undecided, else *no*. Each datagram comes alone.
    """
    table = {}
    for name, matcher in installed_matchers().items():
        if name in CONFIGURED or transport not in transports_of(matcher):
            continue
        over_tcp = transport is Transport.TCP
        predicate = matcher.predicate({}) if over_tcp else over_udp(matcher)
        for protocol, samples in all_samples(_SAMPLES[transport]).items():
            verdicts = [
                predicate(Peeked(one) if over_tcp else Datagrams((one,))) for one in samples
            ]
            table[name, protocol] = max(verdicts, key=(NO, NEED_MORE, MATCH).index)
    return table


class CollisionTests(SynchronousTestCase):
    """Every matcher, without options, and the samples of every other protocol."""

    def test_ambiguities(self) -> None:
        """Two protocols are taken for each other only if they are listed as ambiguous, and all that are listed are."""
        for transport, ambiguities in (
            (Transport.TCP, AMBIGUITIES), (Transport.UDP, DATAGRAM_AMBIGUITIES),
        ):  # fmt: skip
            table = matched(transport)
            pairs = {
                frozenset((name, protocol))
                for (name, protocol), verdict in table.items()
                if verdict is MATCH and name != protocol
            }
            known = {protocol for _, protocol in table}
            listed = {frozenset((pair.first, pair.second)) for pair in ambiguities}
            listed = {pair for pair in listed if pair <= known}
            for one, other in sorted(map(sorted, pairs ^ listed)):
                self.fail(
                    f"`{one}` and `{other}` match the same {transport.name} sample: narrow one, or list them as ambiguous"
                    if {one, other} in pairs
                    else f"no sample is matched by both `{one}` and `{other}`: they are not ambiguous"
                )

    def test_listed_once(self) -> None:
        """A pair is listed once, in one order, with a reason, and both have a matcher."""
        listed = [frozenset((pair.first, pair.second)) for pair in AMBIGUITIES]
        self.assertEqual(len(listed), len(set(listed)))
        for pair in AMBIGUITIES:
            self.assertTrue(pair.why.endswith("."), pair)
            for name in (pair.first, pair.second):
                self.assertIsNotNone(find_spec(f"txmux.matchers.{name.replace('-', '_')}"), name)
        for pair in DATAGRAM_AMBIGUITIES:
            self.assertIs(matched(Transport.UDP)[pair.second, pair.first], MATCH)

    def test_order_of_datagrams(self) -> None:
        """The order of the reference has every matcher for UDP once, and none takes the datagrams of a later one."""
        table = matched(Transport.UDP)
        duty = "each matcher for UDP has its place in the order under *Order over UDP* of docs/reference/matchers.md"
        self.assertEqual(sorted(order(_ORDER)), sorted({name for name, _ in table} | {"any"}), duty)
        for place, name in enumerate(order(_ORDER)[:-1]):
            for later in order(_ORDER)[place + 1 : -1]:
                self.assertIsNot(table[name, later], MATCH, (name, later))
