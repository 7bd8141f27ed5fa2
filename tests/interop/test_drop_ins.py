"""Each drop-in of the documentation, by each command of an operator, under systemd itself."""

import json
import re
from pathlib import Path
from typing import ClassVar

import pytest

from tests.interop.children import eventually
from tests.interop.test_under_systemd import SystemdTestCase

pytestmark = pytest.mark.by_turns

_DOCS = Path(__file__).parents[2] / "docs"
_CAPABILITY = """\
AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_NET_ADMIN
"""
_LIMITS = """
LimitNOFILE=100000
MemoryMax=1G
TasksMax=100
TimeoutStopSec=90
WatchdogSec=60
Restart=always
"""
_SETTINGS = "workers = 2"


class UnitAloneTests(SystemdTestCase):
    def test_verbs(self) -> None:
        """The unit by itself, with what `source = client` needs, with the group of a provider's rules, and with limits of a machine."""
        for more in ("", _CAPABILITY, "SupplementaryGroups=adm", _LIMITS):
            self.manager.change(more)
            self.start(_SETTINGS)
            assert_verbs(self)
            self.manager.reset()

    def test_all_of_the_docs(self) -> None:
        blocks = [
            block
            for page in sorted(_DOCS.rglob("*.md"))
            for block in re.findall(r"```systemd\n(.*?)```", page.read_text(), re.DOTALL)
        ]
        self.assertEqual(blocks, [_CAPABILITY])


class SocketTests(SystemdTestCase):
    """``socket.conf``: in a user namespace, where the command of a reload is hidden from the service."""

    options: ClassVar = {"has_socket": True}
    endpoint = "systemd:domain=INET:index=0"

    def test_verbs(self) -> None:
        self.write(_SETTINGS)
        self.port = self.manager.opened
        self.addCleanup(self.manager.systemctl, "stop", "txmux.socket")
        self.do("start")
        assert_verbs(self)


def assert_verbs(case: SystemdTestCase) -> None:
    """Check that a service reloads, restarts and upgrades, again and again, and that nothing needs attention."""

    def attention() -> list[str]:
        return [item["text"] for item in json.loads(case.ask("status", "--json"))["attention"]]

    def assert_served() -> None:
        case.assert_relays(*case.relayed())
        case.do("reload")
        case.ask("reload")
        eventually(lambda: not attention(), f"nothing needs attention: {attention()}")

    assert_served()
    case.assert_same_socket(lambda: case.do("restart"))
    assert_served()
    case.assert_same_socket(lambda: case.ask("upgrade"))
    assert_served()
