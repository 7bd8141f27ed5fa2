"""A service whose rules have several owners, of whom one makes a mistake."""

import re
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from tests.admin.processes import get
from tests.processes.running import WorkersTestCase
from tests.support.folders import make_folder
from tests.support.ports import free_port
from tests.support.services import Service

BYSTANDERS = "older", "younger"
_FILES = {"older": "10-older.ini", "faulty": "20-faulty.ini", "younger": "30-younger.ini"}


class Owner:
    """What an owner has: a listener, and a route with a backend of its own.

    Attributes:
        more: Further lines of its rules, which may be wrong.
    """

    def __init__(self, name: str, port: int, server: socket.socket) -> None:
        self.name = name
        self.port = port
        self.server = server
        self.more = ""

    @property
    def text(self) -> str:
        address = "{}:{}".format(*self.server.getsockname())
        return (
            f"[listen {self.name}]\nendpoint = 127.0.0.1:{self.port}\n"
            f"[route {self.name}]\nmatch = any\nunder = {self.name}\nbackend = {self.name}\n"
            f"[backend {self.name}]\nserver = {address}\n{self.more}"
        )


class OwnersCase(WorkersTestCase):
    """Runs services with three owners: an older bystander, one who makes a mistake, and a younger bystander.

    Attributes:
        marked: Whether all are in one file, each in a unit of its own, rather than in a file each.
    """

    marked = False

    def setUp(self) -> None:
        super().setUp()
        self.home = make_folder(self)
        self.units = self.home / "d"
        self.units.mkdir()
        self.owners = {name: Owner(name, free_port(), self.backend()) for name in _FILES}
        self.faulty = self.owners["faulty"]
        self.taken = self.backend().getsockname()[1]

    def write(self, *, without: Iterable[str] = ()) -> None:
        texts = {name: its.text for name, its in self.owners.items() if name not in without}
        if self.marked:
            marked = (f"[unit {name}]\n{text}" for name, text in texts.items())
            self._replace("all.ini", "".join(marked))
            return
        for name, file in _FILES.items():
            if name in texts:
                self._replace(file, texts[name])
            else:
                (self.units / file).unlink(missing_ok=True)

    def _replace(self, file: str, text: str) -> None:
        self.units.mkdir(exist_ok=True)
        draft = self.home / "draft"
        draft.write_text(text)
        draft.rename(self.units / file)

    def serve(self) -> Service:
        self.admin = self.home / "admin.sock"
        settings = f"include = {self.units}/*.ini\nadmin = unix:{self.admin}\ndrain_timeout = 1s"
        operator = f"[listen operator]\nendpoint = 127.0.0.1:{free_port()}\n"
        mux = Service(self.folder, operator, settings)
        self.addCleanup(mux.end)
        mux.child.wait_for("serving with ")
        return mux

    def untaken(self) -> Mapping[str, Any]:
        """Return the units that are not taken, by the names of their owners."""
        rows = get(self.admin, "/api/status")["untaken"]
        return {re.findall(r"[a-z]+", row["unit"].removesuffix(".ini"))[-1]: row for row in rows}

    def connect(self, owner: Owner) -> tuple[socket.socket, socket.socket]:
        """Connect a client of an owner, and return both ends of its connection."""
        client = socket.create_connection(("127.0.0.1", owner.port), 10)
        self.addCleanup(client.close)
        client.settimeout(60)
        client.sendall(b"x")
        return client, self.accept_from(owner.server, b"x")

    def assert_refused(self, owner: Owner) -> None:
        self.assertTrue(self.is_refused(owner.port), owner.name)
