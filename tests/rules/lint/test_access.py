import importlib.util
import sys

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.lint.warnings import lint
from txmux.rules.reading.parser import parse

LISTEN = "[listen public]\nendpoint = :443\n"
TLS = "[route end]\nmatch = tls\nterminate_tls = a.pem\n"


class WarningTests(SynchronousTestCase):
    maxDiff = None

    def test_metrics_without_the_package(self) -> None:
        """A service answers 501 there, so a warning names the extra, with the command of this installation."""
        rules = parse(f"[txmux]\nmetrics = 127.0.0.1:9443\n{LISTEN}", "x.ini")
        self.patch(importlib.util, "find_spec", str)
        self.assertEqual(lint(rules), [])
        self.patch(importlib.util, "find_spec", lambda _: None)
        (said,) = map(str, lint(rules))
        told = "x.ini:2: warning: [txmux] metrics: needs the package prometheus_client, which is not installed"
        self.assertTrue(said.startswith(told), said)
        self.assertTrue(said.endswith(f"{sys.prefix}/bin/pip install 'txmux[admin]'"), said)
