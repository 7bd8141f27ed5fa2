"""Which predicate a matcher has for datagrams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txmux.detection.detector import Detector
from txmux.detection.registry import WholeDatagram, datagram_predicate, transports_of
from txmux.interfaces import Datagrams, IProtocolMatcher, Option, Transport, Verdict
from txmux.matchers.tls import tls
from txmux.rules.model import Alternative, Refusal, Route
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.matching import read_alternative
from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Prefix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.interfaces import Predicate

_ABC = Prefix(b"abc")


@implementer(IProtocolMatcher)
@attrs.frozen
class _Declares:
    transports: object
    name: str = "declares"
    summary: str = "for tests"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        return _ABC


class TransportTests(SynchronousTestCase):
    def test_tcp_without_a_declaration(self) -> None:
        self.assertEqual(transports_of(tls), {Transport.TCP})
        self.assertIsNone(datagram_predicate(tls, {}, _ABC))

    def test_both_are_asked_about_a_whole_datagram(self) -> None:
        matcher = PlainMatcher("x", "x", _ABC, transports=tuple(Transport))
        self.assertEqual(datagram_predicate(matcher, {}, _ABC), WholeDatagram(_ABC))

    def test_own_predicate_for_datagrams(self) -> None:
        other = Prefix(b"x")
        matcher = PlainMatcher("x", "x", _ABC, transports=tuple(Transport), datagrams=other)
        self.assertIs(datagram_predicate(matcher, {}, _ABC), other)

    def test_udp_only_is_never_asked_about_streams(self) -> None:
        matcher = PlainMatcher("x", "x", _ABC, transports=(Transport.UDP,))
        line = read_alternative("not x", {"x": matcher})
        self.assertEqual(
            line, Alternative("not x", _ABC, negated=True, datagrams=_ABC, streams=False)
        )

    def test_wrong_declaration_is_a_broken_matcher(self) -> None:
        for wrong in ((), ("udp",), None):
            error = self.assertRaises(
                InvalidValueError, read_alternative, "declares", {"declares": _Declares(wrong)}
            )
            self.assertIn("the matcher 'declares' failed", str(error))


class WholeDatagramTests(SynchronousTestCase):
    def test_undecided_is_a_no(self) -> None:
        whole = WholeDatagram(_ABC)
        for first, verdict in ((b"abcd", "MATCH"), (b"ab", "NO"), (b"x", "NO")):
            self.assertIs(whole(Datagrams((first, b"abc"))), Verdict[verdict])
        self.assertEqual((whole.longest, whole.first_bytes, whole.key), (1, {0x61}, None))
        self.assertIsNone(whole.learnt)

    def test_learns(self) -> None:
        predicate = tls.predicate({"sni": "a.example"})
        whole = WholeDatagram(predicate)
        self.assertEqual(whole.key, predicate.key)  # type: ignore[attr-defined]
        lines = (Alternative("x", WholeDatagram(_ABC)), Alternative("tls", whole))
        plan = Detector([Route("a", lines, Refusal.CLOSE)]).plan(0x16)
        self.assertEqual(plan.learners, ((0, whole.learnt),))
