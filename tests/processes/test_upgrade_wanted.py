"""What an operator wants beside the rules goes on in a new process."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.processes.running import RULES
from tests.processes.test_upgrade import UpgradeTestCase
from txmux.cli.remote.ask import ask
from txmux.cli.remote.find import AdminEndpoint, UnixAddress

if TYPE_CHECKING:
    from typing import Any


class WantedTest(UpgradeTestCase):
    """With two workers."""

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask the service over its socket."""
        return ask(AdminEndpoint(UnixAddress(self.admin), "", ""), method, path, body)

    def test_wanted(self) -> None:
        """A server that drains gets no client of the new process, and a listener that is shut accepts none; until that is changed."""
        self.admin = self.folder / "admin.sock"
        listening = self.backend()
        server = f"127.0.0.1:{listening.getsockname()[1]}"
        rules = f"{RULES}[route all]\nmatch = any\nbackend = b\n[backend b]\nserver = {server}\n"
        mux = self.upgrading(rules, f"workers = 2\nadmin = unix:{self.admin}")
        self.ask("POST", f"/api/backends/b/servers/{server}", {"state": "drain"})
        mux.upgrade()
        with mux.connect() as client:
            client.sendall(b"x")
            self.assertEqual(client.recv(1), b"")
        self.assertEqual(mux.take_one()["reason"], "no-server")
        self.ask("POST", f"/api/backends/b/servers/{server}", {"state": "ready"})
        self.ask("POST", "/api/listeners/public", {"accepting": False})
        mux.upgrade()
        waiting = mux.connect()
        waiting.sendall(b"x")
        self.assertFalse(self.ask("GET", "/api/status")["listeners"][0]["accepting"])
        self.assertEqual(self.ask("GET", "/api/connections"), [])
        self.ask("POST", "/api/listeners/public", {"accepting": True})
        with waiting, self.accept_from(listening, b"x"):
            (row,) = self.ask("GET", "/api/connections?state=relaying")
            mux.upgrade()
            eventually(
                lambda before=row["id"]: (  # type: ignore[misc]
                    [one["id"] for one in self.ask("GET", "/api/connections")] == [before]
                ),
                "the connection is the new process's",
            )
            told = self.ask("GET", f"/api/connections/{row['id']}")
            self.assertEqual((told["bytes_in"], told["route"]), (1, "all"))
            self.assertEqual(
                (told["explanation"]["bytes"], told["explanation"]["routes"]), (None, [])
            )
            waiting.shutdown(socket.SHUT_WR)
        mux.take_one()
        mux.stop()

    def test_bans(self) -> None:
        """Who is banned stays so in a new process and its workers, until that is taken back; the connection there was is ended."""
        self.admin = self.folder / "admin.sock"
        listening = self.backend()
        server = f"127.0.0.1:{listening.getsockname()[1]}"
        rules = f"{RULES}end_denied = yes\n[route all]\nmatch = any\nbackend = {server}\n"
        mux = self.upgrading(rules, f"workers = 2\nadmin = unix:{self.admin}")
        with mux.connect() as client:
            client.sendall(b"x")
            with self.accept_from(listening, b"x"):
                mux.upgrade()
                self.ask("POST", "/api/bans", {"network": "127.0.0.1", "seconds": 600})
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(client.recv(1), b"")
        line = mux.take_one()
        self.assertEqual((line["reason"], line["route"]), ("denied", "all"))
        mux.upgrade()
        for _ in range(4):
            with contextlib.suppress(ConnectionResetError), mux.connect() as client:
                self.assertEqual(client.recv(1), b"")
            self.assertEqual(mux.take_one()["reason"], "denied")
        self.ask("POST", "/api/bans/remove", {"network": "127.0.0.1"})
        with mux.connect() as client:
            client.sendall(b"y")
            with self.accept_from(listening, b"y"):
                pass
        mux.stop()
