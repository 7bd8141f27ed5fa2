"""The how-to about the conversion shows what comes out."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txmux.convert.formats import convert
from txmux.detection.registry import installed_matchers

_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "come-from-other-programs.md"


class DocumentedTests(SynchronousTestCase):
    def test_examples_of_the_page(self) -> None:
        page = _PAGE.read_text()
        for name in ("sslh.cfg", "haproxy.cfg", "nginx.conf"):
            path = f"/etc/{name}" if name == "sslh.cfg" else name
            example = page.partition(f"With this `{path}`:")[2]
            source, printed, rules = re.findall("```[a-z]+\n(.*?)```", example, re.DOTALL)[:3]
            matchers, port_of = installed_matchers(), socket.getservbyname
            found = convert(source.encode(), name, matchers, port_of, is_guarded=lambda _: False)
            self.assertEqual(found.text, rules)
            self.assertEqual(printed.splitlines()[1:], list(found.warnings))
