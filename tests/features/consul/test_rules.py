"""Rules with services of Consul, where other servers are treated otherwise."""

from unittest import SkipTest

from tests.rules.reading.cases import BackendTestCase
from txmux.rules.lint import warnings
from txmux.rules.optional import missing
from txmux.rules.reading.parser import parse


class RulesTests(BackendTestCase):
    def test_nothing_has_to_check_them(self) -> None:
        server = (
            "[listen l]\nendpoint = :1\ndefault = b\n[backend b]\nserver = consul:a\n  consul:b\n"
        )
        rules = parse(server, "rules.ini")
        self.assertEqual(warnings.warnings(rules, warnings.unchecked_backends(rules)), [])

    def test_proxies(self) -> None:
        """They are none, and cannot be reached by one."""
        if why := missing("via"):
            raise SkipTest(why)
        self.refuses(
            "via = socks5://consul:web",
            "6 via: 'consul:web' is no proxy to connect to; write its HOST:PORT",
        )
        self.refuses(
            "via = http://127.0.0.1:9",
            "6 via: 'consul:web' is looked up here, but its proxy looks names up; write it as HOST:PORT, "
            "or put that server into a [backend] of its own",
            servers="consul:web",
        )
