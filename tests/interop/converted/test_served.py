"""The configurations in ``tests/convert/pairs/PROGRAM/served.cfg``, served by their program and by txmux.

Comments at the end of each say for each port which clients come to which server: ``# <port> SERVER: CLIENT, CLIENT``, as `heard` has
them, with ``nobody`` for no server; ``# soon`` if servers have to be checked before, and how many lines of the rules are ``to be looked at``.
"""

import re
from collections.abc import Callable

from tests.convert.test_pairs import EXPECTED, PAIRS
from tests.interop.converted.sidebyside import SideBySideTestCase
from tests.support.cases import titled_cases


def _proving(case: str) -> Callable[[SideBySideTestCase], None]:
    expected: dict[str, dict[str, str]] = {}
    for port, server, clients in re.findall(r"(?m)^# <(port\d*)> (\S+): (.*)$", case):
        expected.setdefault(port, {})["" if server == "nobody" else server] = clients
    [looks] = re.findall(r"(?m)^# (\d+) to be looked at$", case) or ["0"]

    def test(self: SideBySideTestCase) -> None:
        text = EXPECTED.sub("", case).rstrip("\n") + "\n"
        self.prove(text, *expected.values(), looks=int(looks), soon="\n# soon\n" in case)

    return test


def _with_cases(its: type[SideBySideTestCase]) -> type[SideBySideTestCase]:
    """Have a class prove each case of the file of its program."""
    for title, case in titled_cases((PAIRS / its.program / "served.cfg").read_text()):
        name = re.sub(r"\W+", "_", title.partition(":")[0])
        setattr(its, f"test_{name}", _proving(case))
    return its


@_with_cases
class HaproxyTests(SideBySideTestCase):
    program = "haproxy"


@_with_cases
class NginxTests(SideBySideTestCase):
    program = "nginx"


@_with_cases
class SniproxyTests(SideBySideTestCase):
    program = "sniproxy"


@_with_cases
class SslhTests(SideBySideTestCase):
    program = "sslh"
