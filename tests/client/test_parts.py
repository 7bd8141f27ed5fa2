from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from txmux.client.parts import Part, Parts
from txmux.rules.feature import Feature
from txmux.rules.reading.parser import parse

_RULES = """\
[txmux]
acme = letsencrypt
acme_terms = yes
[listen a]
endpoint = :1
[route b]
match = tls sni=a.example
terminate_tls = acme
backend = close
"""


class PartsTests(SynchronousTestCase):
    def test_made(self) -> None:
        """A feature may have no part in a process; rules that need one make it once."""
        rules = parse(_RULES, "x.ini")
        make: Callable[[Feature], Part | None]
        for make, names in ((lambda _: None, []), (lambda _: Part(), ["acme"])):
            parts = Parts(make)
            parts.prepare(rules)
            made = [*parts.items()]
            parts.prepare(rules)
            self.assertEqual(([*parts], [*parts.items()]), (names, made))
