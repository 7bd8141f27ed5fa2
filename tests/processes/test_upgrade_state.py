"""A new process goes on with what the old one has found out and counted."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from typing import TYPE_CHECKING

from tests.admin.processes import text_of
from tests.interop.children import eventually
from tests.processes.running import RULES
from tests.processes.test_upgrade import UpgradeTestCase
from tests.support.ports import free_port
from txmux.cli.remote.ask import ask
from txmux.cli.remote.find import AdminEndpoint, UnixAddress

if TYPE_CHECKING:
    from tests.interop.mux import Record
    from tests.processes.upgrading import Upgrading

_ROUTE = "[route all]\nmatch = any\nbackend = pool\n"


class StateTest(UpgradeTestCase):
    """Each is taken along to the next process, and from there to its workers."""

    def visit(self, mux: Upgrading, count: int = 1) -> list[Record]:
        """Have clients served or refused, one after another, and give what the log says of them."""
        for _ in range(count):
            with mux.connect() as client, contextlib.suppress(ConnectionError):  # it is refused
                client.sendall(b"x")
                client.recv(1)
        return mux.take(count)

    def closing(self) -> int:
        """Start a server that closes each connection, and give its port."""
        listening = self.backend()
        listening.settimeout(None)  # clients may be long in coming while a process starts

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                client.recv(1)
                client.close()

        threading.Thread(target=serve, daemon=True).start()
        return int(listening.getsockname()[1])

    def test_rates(self) -> None:
        """A source that has used its rate is refused by the new process."""
        mux = self.upgrading(f"{RULES}connection_rate_per_source = 3/h burst=3\n", "workers = 2")
        reasons = [line["reason"] for line in self.visit(mux, 4)]
        # Workers write their lines by themselves.
        self.assertEqual(sorted(reasons), ["limit", *["no-route"] * 3])
        mux.upgrade()
        self.assertEqual(self.visit(mux)[0]["reason"], "limit")
        mux.stop()

    def test_ejected(self) -> None:
        """A server that is left alone is left alone by the new process, whichever worker has found that out."""
        dead, well = free_port(), self.closing()
        pool = (
            f"[backend pool]\nserver = 127.0.0.1:{dead}\n    127.0.0.1:{well}\n"
            "eject = failures=1 within=1h for=1h\n"
        )
        mux = self.upgrading(f"{RULES}{_ROUTE}{pool}", "workers = 2")
        eventually(lambda: "tried" in self.visit(mux)[0]["facts"], "it is ejected")
        mux.upgrade()
        lines = self.visit(mux, 8)
        self.assertEqual({line["server"] for line in lines}, {f"127.0.0.1:{well}"})
        self.assertFalse(any("tried" in line["facts"] for line in lines))
        mux.stop()

    def test_down(self) -> None:
        """The first client of the new process is not led to a server that is down."""
        dead, well = free_port(), self.closing()
        pool = (
            f"[backend pool]\nbalance = first\nserver = 127.0.0.1:{dead}\n    127.0.0.1:{well}\n"
            "check = tcp interval=1s fall=2\n"
        )
        mux = self.upgrading(f"{RULES}{_ROUTE}{pool}", "workers = 2")
        mux.child.wait_for(f"127.0.0.1:{dead} is down")
        for _ in range(2):
            mux.upgrade()
            self.assertNotIn("tried", self.visit(mux)[0]["facts"])
        self.assertEqual(mux.child.output.count(f"127.0.0.1:{dead} is down"), 1)
        mux.stop()

    def test_turns(self) -> None:
        """Turns go on."""
        ports = [self.closing() for _ in range(3)]
        pool = "[backend pool]\nserver =" + "".join(f"\n    127.0.0.1:{port}" for port in ports)
        mux = self.upgrading(f"{RULES}{_ROUTE}{pool}\n")
        found = []
        for _ in range(4):
            found += [line["server"] for line in self.visit(mux)]
            mux.upgrade()
        self.assertEqual(found, [f"127.0.0.1:{port}" for port in [*ports, ports[0]]])
        mux.stop()

    def test_versions(self) -> None:
        """The number of the version of the rules goes on, and is the next one if they were edited; so does what the last reload said, unless it had failed."""
        admin = self.folder / "admin.sock"

        def status() -> tuple[int, list[str] | None]:
            told = ask(AdminEndpoint(UnixAddress(admin), "", ""), "GET", "/api/status")
            return told["generation"], (told["last_reload"] or {"errors": None})["errors"]

        mux = self.upgrading(RULES, f"workers = 2\nadmin = unix:{admin}")
        text = f"{mux.file.read_text()}[route r]\nmatch = ssh\nbackend = close\n"
        for said, generation, errors in ((text, 2, 0), (f"{text}colour = blue\n", 2, 1)):
            mux.file.write_text(said)
            os.kill(mux.pid, signal.SIGHUP)
            eventually(
                lambda known=(generation, errors): (status()[0], len(status()[1] or "")) == known,  # type: ignore[misc]
                "it is reloaded, or not",
            )
        known = status()
        self.assertIn("colour", str(known[1]))
        mux.file.write_text(text)
        mux.upgrade()
        self.assertEqual(status(), (known[0], []))
        mux.file.write_text(text.replace("ssh", "tls"))
        mux.upgrade()
        self.assertEqual(status(), (3, []))
        mux.stop()

    def test_history(self) -> None:
        """The charts of the page go on."""
        admin = self.folder / "admin.sock"
        mux = self.upgrading(RULES, f"admin = unix:{admin}")
        mux.upgrade()
        # One sample was taken at the start of each process, and a chart has the time between two.
        page = text_of(admin, "/")
        times = re.findall(r'data-chart="active" data-times="\[(.*)\]" data', page)
        self.assertNotEqual(times, [""])
        mux.stop()

    def test_failed(self) -> None:
        """If the upgrade fails, the old process has what it had."""
        mux = self.upgrading(f"{RULES}connection_rate_per_source = 3/h burst=3\n", "workers = 2")
        self.visit(mux, 3)
        text = mux.file.read_text()
        mux.file.write_text(f"{text}\ncolour = blue\n")
        mux.refuse("colour")
        self.assertEqual(self.visit(mux)[0]["reason"], "limit")
        mux.file.write_text(text)
        mux.upgrade()
        eventually(lambda: self.visit(mux)[0]["reason"] == "limit", "it is refused")
        mux.stop()
