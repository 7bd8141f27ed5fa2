from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.support.peers import reactor
from txmux.client.io_runtime import IORuntime
from txmux.client.parts import Part, Parts
from txmux.net.sockets.poller import Poller, ReactorPoller
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
            for end in (parts.abandon, lambda: None):
                parts.prepare(rules)
                self.assertEqual([*parts], [], "before the commit, what rules need may be refused")
                end()
            parts.commit(rules)
            made = [*parts.items()]
            parts.prepare(rules)
            parts.commit(rules)
            self.assertEqual(([*parts], [*parts.items()]), (names, made))

    def test_process(self) -> None:
        """It prepares its own for whole rules, too, and has the reactor watch its sockets where the rules say so."""
        for runtime, kind in (
            (IORuntime(reactor, "portable"), ReactorPoller), (IORuntime(reactor), Poller),
        ):  # fmt: skip
            rules = parse(_RULES, "x.ini")
            runtime.prepare(rules)
            runtime.commit(rules)
            self.assertEqual([*runtime.parts], ["acme"])
            self.assertIs(type(runtime.poller), kind)
