"""Warnings about networks whose addresses are not known from the rules."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.lint.warnings import lint
from txmux.rules.reading.parser import parse

_START = "[txmux]\ngeo_databases = c.mmdb\ncrowdsec_key = k\n[listen a]\nendpoint = :8443\n"


class PlacesTests(SynchronousTestCase):
    def warnings(self, listener: str, *routes: str) -> list[str]:
        text = _START + listener
        for number, more in enumerate(routes):
            text += f"[route r{number}]\nmatch = ssh\nbackend = 127.0.0.1:{number + 1}\n{more}"
        return [problem.section for problem in lint(parse(text, "x.ini"))]

    def test_possible(self) -> None:
        for case in (
            ("allow = geo:country=FR\n", ""),
            ("allow = 192.0.2.0/24\n", "from = geo:country=FR\n"),
            ("deny = crowdsec:http://127.0.0.1\n", ""),
            ("deny = as:AS64500\n", "from = 192.0.2.0/24\n"),
            ("", "from = geo:country=FR\n", ""),
            ("", "from = geo:country=FR\n", "from = geo:country=DE\n"),
            ("", "from = 192.0.2.0/24\n", "from = as:AS64500\n"),
            ("", "not_from = geo:country=FR\n"),
        ):
            self.assertEqual(self.warnings(*case), [], case)

    def test_certainly_unreachable(self) -> None:
        for case in (
            ("", "", "from = geo:country=FR\n"),
            ("", "from = geo:country=FR\n", "from = geo:country=FR\n"),
        ):
            self.assertEqual(self.warnings(*case), ["route r1"], case)
