"""Which matchers take the bytes of which other protocols."""

from __future__ import annotations

import functools
import sys
from importlib.util import find_spec

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import all_samples
from txmux.detection.ambiguities import AMBIGUITIES
from txmux.detection.registry import installed_matchers, transports_of
from txmux.interfaces import Peeked, Transport, Verdict

_CONFIGURED = frozenset({"any", "payload", "regex"})
"""These match what their line says, not a protocol."""


@functools.cache
def matched() -> dict[tuple[str, str], Verdict]:
    """Ask every matcher about the samples of every protocol.

    Returns:
        By the names of the matcher and of the protocol: a match if any sample is one, else *need more* if any is
        undecided, else *no*.
    """
    order = (Verdict.NO, Verdict.NEED_MORE, Verdict.MATCH)
    matchers = installed_matchers()
    samples = {name: streams for name, streams in all_samples().items() if name in matchers}
    table = {}
    for name, matcher in matchers.items():
        if name not in _CONFIGURED and Transport.TCP in transports_of(matcher):
            predicate = matcher.predicate({})
            for protocol, streams in samples.items():
                verdicts = (predicate(Peeked(stream)) for stream in streams)
                table[name, protocol] = max(verdicts, key=order.index)
    return table


def shown(table: dict[tuple[str, str], Verdict]) -> str:
    """Draw the table: one row a matcher, one column a protocol, ``M`` for a match and ``?`` for undecided."""
    names = sorted({name for name, _ in table})
    protocols = sorted({protocol for _, protocol in table})
    width = max(map(len, names))
    letters = {Verdict.MATCH: "M", Verdict.NEED_MORE: "?", Verdict.NO: "."}
    head = [
        f"{'':{width}} " + "".join(protocol[line : line + 1] or " " for protocol in protocols)
        for line in range(max(map(len, protocols)))
    ]
    rows = [
        f"{name:{width}} " + "".join(letters[table[name, protocol]] for protocol in protocols)
        for name in names
    ]
    return "\n".join((*head, *rows, ""))


class CollisionTests(SynchronousTestCase):
    """Every matcher, without options, and the samples of every other protocol."""

    def setUp(self) -> None:
        """Ask them all."""
        self.table = matched()

    def test_own_samples(self) -> None:
        """A matcher matches all samples of its own protocol."""
        matchers = installed_matchers()
        samples = all_samples()
        for protocol in samples.keys() & matchers.keys():
            predicate = matchers[protocol].predicate({})
            for stream in samples[protocol]:
                self.assertIs(predicate(Peeked(stream)), Verdict.MATCH, (protocol, stream))

    def test_every_protocol(self) -> None:
        """There are samples for all of them."""
        names = {name for name, _ in self.table}
        protocols = {protocol for _, protocol in self.table}
        for name in sorted(names - protocols):
            self.fail(f"write tests/matchers/test_{name}.py with SAMPLES")

    def test_ambiguities(self) -> None:
        """Two protocols are taken for each other only if they are listed as ambiguous, and all that are listed are.

        With ``-s`` the whole table is shown.
        """
        sys.stdout.write("\n" + shown(self.table))
        pairs = {
            frozenset((name, protocol))
            for (name, protocol), verdict in self.table.items()
            if verdict is Verdict.MATCH and name != protocol
        }
        known = {protocol for _, protocol in self.table}
        listed = {frozenset((pair.first, pair.second)) for pair in AMBIGUITIES}
        listed = {pair for pair in listed if pair <= known}
        for one, other in sorted(map(sorted, pairs ^ listed)):
            self.fail(
                f"`{one}` and `{other}` match the same sample: narrow one, or list them in AMBIGUITIES"
                if {one, other} in pairs
                else f"no sample is matched by both `{one}` and `{other}`: take them out of AMBIGUITIES"
            )

    def test_listed_once(self) -> None:
        """A pair is listed once, in one order, with a reason, and both have a matcher."""
        listed = [frozenset((pair.first, pair.second)) for pair in AMBIGUITIES]
        self.assertEqual(len(listed), len(set(listed)))
        for pair in AMBIGUITIES:
            self.assertTrue(pair.why.endswith("."), pair)
            for name in (pair.first, pair.second):
                self.assertIsNotNone(find_spec(f"txmux.matchers.{name.replace('-', '_')}"), name)
