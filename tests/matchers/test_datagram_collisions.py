"""Which matchers take the first datagrams of which other protocols."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import all_samples
from tests.matchers.asking import over_udp
from tests.matchers.searching import order
from tests.matchers.test_collisions import shown
from txmux.detection.ambiguities import DATAGRAM_AMBIGUITIES
from txmux.detection.registry import installed_matchers, transports_of
from txmux.interfaces import Datagrams, Transport, Verdict

_PAGE = Path(__file__).parents[2] / "docs/reference/matchers.md"
_ORDER = "Order over UDP"
_CONFIGURED = frozenset({"any", "payload", "regex"})
"""These match what their line says, not a protocol."""


@functools.cache
def matched() -> dict[tuple[str, str], Verdict]:
    """Ask every matcher for UDP about the datagrams of every protocol.

    Returns:
        By the names of the matcher and of the protocol: a match if any datagram is one, else *no*; each comes alone.
    """
    table = {}
    for name, matcher in installed_matchers().items():
        if name in _CONFIGURED or Transport.UDP not in transports_of(matcher):
            continue
        predicate = over_udp(matcher)
        for protocol, datagrams in all_samples("DATAGRAMS").items():
            found = any(predicate(Datagrams((one,))) is Verdict.MATCH for one in datagrams)
            table[name, protocol] = Verdict.MATCH if found else Verdict.NO
    return table


class DatagramCollisionTests(SynchronousTestCase):
    """Every matcher for UDP, without options, and the datagrams of every protocol."""

    def test_every_protocol(self) -> None:
        """There are datagrams for all of them."""
        names = {name for name, _ in matched()}
        for name in sorted(names - all_samples("DATAGRAMS").keys()):
            self.fail(f"put DATAGRAMS into tests/matchers/test_{name.replace('-', '_')}.py")

    def test_own_datagrams(self) -> None:
        """A matcher matches all datagrams of its own protocol."""
        for protocol, datagrams in all_samples("DATAGRAMS").items():
            predicate = over_udp(installed_matchers()[protocol])
            for datagram in datagrams:
                self.assertIs(
                    predicate(Datagrams((datagram,))), Verdict.MATCH, (protocol, datagram)
                )

    def test_ambiguities(self) -> None:
        """Two protocols are taken for each other only if they are listed as ambiguous; with ``-s`` the table is shown."""
        sys.stdout.write("\n" + shown(matched()))
        listed = {frozenset((pair.first, pair.second)) for pair in DATAGRAM_AMBIGUITIES}
        for (name, protocol), verdict in matched().items():
            if name != protocol and verdict is Verdict.MATCH:
                why = f"`{name}` matches a datagram of `{protocol}`: narrow one, or list them in DATAGRAM_AMBIGUITIES"
                self.assertIn(frozenset((name, protocol)), listed, why)

    def test_order(self) -> None:
        """The order of the reference has every matcher once, and none takes the datagrams of a later one."""
        names = {name for name, _ in matched()}
        duty = "each matcher for UDP has its place in the order under *Order over UDP* of docs/reference/matchers.md"
        self.assertEqual(sorted(order(_ORDER)), sorted(names | {"any"}), duty)
        for place, name in enumerate(order(_ORDER)[:-1]):
            for later in order(_ORDER)[place + 1 : -1]:
                self.assertIs(matched()[name, later], Verdict.NO, (name, later))

    def test_listed(self) -> None:
        """The reference tells of all pairs, with the reasons, and each of them is one."""
        for pair in DATAGRAM_AMBIGUITIES:
            row = f"| [`{pair.first}`](#{pair.first}) | [`{pair.second}`](#{pair.second}) | {pair.why} |"
            self.assertIn(row, _PAGE.read_text())
            self.assertIs(matched()[pair.second, pair.first], Verdict.MATCH)
