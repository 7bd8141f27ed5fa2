"""`shared-limits`: two machines with the same file, each in a network of its own, and one Redis between them."""

from __future__ import annotations

import contextlib
import shutil
import socket
from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import PATIENCE, Child, eventually, output_of
from tests.interop.mux import Twist
from tests.interop.namespaces import Namespace
from tests.interop.originals import Named, client_hello
from tests.interop.scenario import EXAMPLES, ScenarioTestCase

if TYPE_CHECKING:
    from pathlib import Path

_MACHINES = ("10.0.0.11", "10.0.0.12")
_SERVERS = ("10.0.0.21", "10.0.0.22")
_CLIENTS = tuple(f"10.0.0.{number}" for number in range(101, 109))
_HELLO = client_hello("www.example.com")


class SharedLimitsTests(ScenarioTestCase):
    """The example on two machines; clients, servers and Redis are in the middle."""

    redis: ClassVar[Child]
    folders: ClassVar[list[Path]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.network.make_lan("10.0.0.9", *_SERVERS, *_CLIENTS)
        rules = cls.make_folder("rules") / "rules.ini"
        shutil.copy(EXAMPLES / "shared-limits/rules.ini", rules)
        (rules.parent / "redis.password").write_text("secret\n")
        own = ("--bind", "10.0.0.9", "--requirepass", "secret", "--save", "", "--dir", cls.folder)
        cls.redis = cls.share(Child("redis-server", *own))
        cls.redis.wait_for("[Rr]eady to accept connections")
        for address in _SERVERS:
            Named(cls, address, host=address, port=8443)
        cls.folders = [
            cls._start(number, address, rules) for number, address in enumerate(_MACHINES)
        ]

    @classmethod
    def _start(cls, number: int, address: str, rules: Path) -> Path:
        machine = Namespace(cls)
        cls.network.plug(machine, address)
        folder = cls.make_folder(f"run{number}")
        before = (*machine.command, "env", f"RUNTIME_DIRECTORY={folder}")
        started = cls.share(Twist("--rules", rules, before=before))
        started.child.wait_for("Starting reactor")
        return folder

    def connect(self, machine: int, client: str) -> tuple[socket.socket, str]:
        """Connect as a client, and give which server it has come to; none if it is refused."""
        connected = socket.create_connection(
            (_MACHINES[machine], 443), timeout=PATIENCE, source_address=(client, 0)
        )
        self.addCleanup(connected.close)
        try:
            connected.sendall(_HELLO)
            return connected, connected.recv(100).decode().strip()
        except OSError:
            return connected, ""

    def is_let_in(self, machine: int, client: str) -> bool:
        connected, server = self.connect(machine, client)
        connected.close()
        return server != ""

    def txmux(self, machine: int, *words: str) -> str:
        place = f"unix:{self.folders[machine]}/rules.sock"
        return output_of("txmux", words[0], "--admin", place, *words[1:]).decode()

    def test_same_server_by_either_machine(self) -> None:
        found = [[self.connect(machine, one)[1] for one in _CLIENTS] for machine in (0, 1)]
        self.assertEqual(found[0], found[1])
        self.assertEqual({*found[0]}, {*_SERVERS})

    def test_ban(self) -> None:
        """A ban of one machine ends the client's connection at the other one, and is taken back by any."""
        client = _CLIENTS[0]
        connected, server = self.connect(1, client)
        self.assertIn(server, _SERVERS)
        self.assertEqual(self.txmux(0, "ban", client, "1h", "passwords"), f"{client} is banned\n")
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(connected.recv(1), b"")
        self.assertIn("passwords", self.txmux(1, "bans"))
        self.assertFalse(self.is_let_in(0, client) or self.is_let_in(1, client))
        self.txmux(1, "unban", client)
        eventually(lambda: self.is_let_in(0, client), "the client is let in again")

    def test_limit_of_both_machines_together(self) -> None:
        client = _CLIENTS[1]
        for _ in range(15):
            self.assertIn(self.connect(0, client)[1], _SERVERS)
        # From half of the limit on, a machine asks what others have.
        for _ in range(10):
            self.connect(1, client)
        eventually(lambda: not self.is_let_in(1, client), "the sum is known to be above the limit")
