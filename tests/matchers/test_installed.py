"""What holds for all matchers that are installed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import all_samples
from txmux.detection.registry import installed_matchers
from txmux.interfaces import Peeked, Verdict
from txmux.testing import check_matcher, with_example

_NEEDED = {"payload": {"text": "JDWP"}, "regex": {"pattern": "a+b"}}
"""Options of those that cannot do without any."""


class InstalledMatcherTests(SynchronousTestCase):
    """The matchers that the plugin system finds."""

    def test_built_in(self) -> None:
        """The matchers that come with txmux are among them."""
        built_in = {"any", "http", "payload", "redis", "regex", "ssh", "tls"}
        self.assertLessEqual(built_in, installed_matchers().keys())

    def test_contract(self) -> None:
        """They keep the contract, with all that their options show as examples."""
        samples = all_samples()
        for name, matcher in installed_matchers().items():
            check_matcher(matcher, samples.get(name, ()), options=_NEEDED.get(name), examples=10)

    def test_silence(self) -> None:
        """None of them decides before the first byte."""
        for name, matcher in installed_matchers().items():
            for option in matcher.options:
                options = with_example(matcher, option.name)
                assert options is not None
                predicate = matcher.predicate(options)
                self.assertIs(predicate(Peeked(b"")), Verdict.NEED_MORE, name)
