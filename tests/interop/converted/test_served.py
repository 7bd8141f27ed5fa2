"""The configurations in ``PROGRAM.cfg`` here and ``tests/convert/pairs/PROGRAM/served.cfg``, served by their program and by txmux.

Comments at the end of each say for each port which clients come to which server: ``# <port> SERVER: CLIENT, CLIENT``, as `heard` has
them, with ``nobody`` for no server; ``# soon`` if servers have to be checked before, and how many lines of the rules are ``to be looked at``.
Before them may stand ``# certificate NAME NAME`` for one in the folder, and ``# file NAME: LINE | LINE``.
"""

import re
from collections.abc import Callable
from pathlib import Path

from tests.convert.test_pairs import EXPECTED, PAIRS
from tests.interop.converted.sidebyside import SideBySideTestCase
from tests.interop.servers import make_certificate
from tests.support.cases import titled_cases

_BESIDE = re.compile(r"(?m)^# (certificate|file) (.*)\n")


def _proving(case: str) -> Callable[[SideBySideTestCase], None]:
    expected: dict[str, dict[str, str]] = {}
    for port, server, clients in re.findall(r"(?m)^# <(port\d*)> (\S+): (.*)$", case):
        expected.setdefault(port, {})["" if server == "nobody" else server] = clients
    [looks] = re.findall(r"(?m)^# (\d+) to be looked at$", case) or ["0"]

    def test(self: SideBySideTestCase) -> None:
        for kind, told in _BESIDE.findall(case):
            if kind == "certificate":
                make_certificate(self.own_folder, *told.split())
            else:
                name, _, lines = told.partition(": ")
                self.write(name, lines.replace(" | ", "\n") + "\n")
        text = _BESIDE.sub("", EXPECTED.sub("", case)).rstrip("\n") + "\n"
        self.prove(text, *expected.values(), looks=int(looks), soon="\n# soon\n" in case)

    return test


def _with_cases(its: type[SideBySideTestCase]) -> type[SideBySideTestCase]:
    """Have a class prove each case of the files of its program."""
    for path in (
        PAIRS / its.program / "served.cfg",
        Path(__file__).with_name(f"{its.program}.cfg"),
    ):
        for title, case in titled_cases(path.read_text()) if path.exists() else ():
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


@_with_cases
class StunnelTests(SideBySideTestCase):
    program = "stunnel"
