"""Each drop-in of the documentation, by each command of an operator, under systemd itself."""

import json
import re
from pathlib import Path
from typing import ClassVar

import pytest

from tests.interop.children import eventually
from tests.interop.test_under_systemd import SocketCase, SystemdTestCase

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


class UnitAloneTests(SystemdTestCase):
    SETTINGS: ClassVar[str] = "workers = 2"

    def test_verbs(self) -> None:
        """It starts, reloads, restarts and upgrades, again and again, and nothing needs attention."""
        self.begin()
        self.assert_served()
        for verb in ("restart", "upgrade"):
            self.assert_same_socket(
                lambda verb=verb: (  # type: ignore[misc]
                    self.ask("upgrade") if verb == "upgrade" else self.do(verb)
                )
            )
            self.assert_served()

    def begin(self) -> None:
        self.start(self.SETTINGS)

    def assert_served(self) -> None:
        self.assert_relays(*self.relayed())
        self.do("reload")
        self.ask("reload")
        eventually(lambda: not self.attention(), f"nothing needs attention: {self.attention()}")

    def attention(self) -> list[str]:
        return [item["text"] for item in json.loads(self.ask("status", "--json"))["attention"]]


class CapabilityTests(UnitAloneTests):
    """What `source = client` needs."""

    MORE = _CAPABILITY

    def test_all_of_the_docs(self) -> None:
        blocks = [
            block
            for page in sorted(_DOCS.rglob("*.md"))
            for block in re.findall(r"```systemd\n(.*?)```", page.read_text(), re.DOTALL)
        ]
        self.assertEqual(blocks, [_CAPABILITY])


class GroupTests(UnitAloneTests):
    """What the rules of a provider need, which its group may read."""

    MORE = "SupplementaryGroups=adm"


class LimitsTests(UnitAloneTests):
    """What pages name for the limits of a machine."""

    MORE = _LIMITS


class SocketTests(SocketCase, UnitAloneTests):
    """``socket.conf``: in a user namespace, where the command of a reload is hidden from the service."""

    def begin(self) -> None:
        self.write(self.SETTINGS)
        self.port = self.opened
        self.addCleanup(self.manager.systemctl, "stop", "txmux.socket")
        self.do("start")
