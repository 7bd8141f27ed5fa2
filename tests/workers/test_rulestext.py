"""Rules on their way to a worker."""

from __future__ import annotations

import tempfile
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from txmux.embedding import route
from txmux.rules.parser import load, parse
from txmux.workers.rulestext import as_text

MAIN = """
[txmux]
include = more/*.ini
access_log = logs/access.log
workers = 2
[listen public]
endpoint =
    127.0.0.1:0
    # comments are left out

    :0
[route ssh]
match = ssh
    payload text="[listen x]"
    not tls
backend = inner
[route web]
match = http host=~(a|b)[.]example[.]com
from = 10.0.0.0/8, 192.0.2.1
    2001:db8::/32
backend = 127.0.0.1:80
"""

MORE = """
[route last]
match = any
backend = inner
[backend inner]
server = 127.0.0.1:22
    unix:/run/x.sock
"""


class RulesTextTest(SynchronousTestCase):
    """`as_text`."""

    def setUp(self) -> None:
        """Write the files."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.main = Path(folder.name) / "rules.ini"
        self.more = Path(folder.name) / "more/x.ini"
        self.more.parent.mkdir()
        self.main.write_text(MAIN)
        self.more.write_text(MORE)

    def test_same_rules(self) -> None:
        """A worker reads the same rules, even if the files have been changed or removed in the meantime."""
        rules = load(self.main)
        self.more.unlink()
        self.main.write_text("")
        text = as_text(rules)
        assert text is not None
        again = parse(text, rules.path)
        self.assertEqual(again.settings, rules.settings)
        self.assertEqual(again.listeners, rules.listeners)
        self.assertEqual(again.backends, rules.backends)
        for one, other in zip(again.routes, rules.routes, strict=True):
            self.assertEqual((one.name, one.outcome), (other.name, other.outcome))
            self.assertEqual((one.allowed, one.excluded), (other.allowed, other.excluded))
            self.assertEqual(
                [(a.text, a.negated) for a in one.alternatives],
                [(a.text, a.negated) for a in other.alternatives],
            )

    def test_made_in_python(self) -> None:
        """Rules that come from no file, not even a part of them, have no text."""
        rules = load(self.main)
        changed = [
            attrs.evolve(rules, sections={}),
            attrs.evolve(rules, routes=(*rules.routes, route("any", "close"))),
            attrs.evolve(rules, settings=attrs.evolve(rules.settings, drain_timeout=1.0)),
        ]
        self.assertEqual([as_text(one) for one in changed], [None] * 3)
