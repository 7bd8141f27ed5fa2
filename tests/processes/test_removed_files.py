"""Files of the service that another program removes, or puts its own in their place."""

import socket
from functools import partial
from pathlib import Path

import pytest

from tests.admin.processes import ask, get
from tests.support.kit import PATIENCE, Service, WorkersTestCase, eventually, make_folder

pytestmark = pytest.mark.by_turns(each=True)


class RemovedFilesTests(WorkersTestCase):
    def is_reached(self, path: Path) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            try:
                client.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while client.recv(4096):
                pass
            return True

    def are_there(self, mux: Service) -> None:
        for path in (*self.paths, mux.pidfile):
            eventually(path.exists, f"{path} is made again")
        for path in self.paths:
            eventually(partial(self.is_reached, path), f"{path} is served")
        self.assertEqual(int(mux.pidfile.read_text()), mux.pid)

    def remove(self, mux: Service) -> None:
        for path in (*self.paths, mux.pidfile):
            path.unlink()

    def test_removed_and_replaced(self) -> None:
        """All are made again, also by a process that has taken the place of another one; what another program has put there stays, until it takes that away."""
        folder = make_folder(self) / "its"
        folder.mkdir()
        admin, metrics, listen = self.paths = [
            folder / name for name in ("admin", "metrics", "listen")
        ]
        self.status = make_folder(self) / "status"
        settings = f"admin = unix:{admin}\n    unix:{self.status}\nmetrics = unix:{metrics}"
        rules = f"[listen public]\nendpoint = unix:{listen}\n"
        mux = self.own(Service(self.folder, rules, settings, program="run"))
        self.remove(mux)
        self.are_there(mux)
        mux.upgrade()
        self.remove(mux)
        self.are_there(mux)
        for path in self.paths:
            path.unlink()
            path.write_text("another program's")
        self.is_reported(f"another program has put its own file at {self.paths[-1]}")
        mux.reload()
        for path in self.paths:
            self.assertEqual(path.read_text(), "another program's")
            path.unlink()
        self.are_there(mux)
        eventually(lambda: self.reported() == ([], 200), "all is well again")

    def reported(self) -> tuple[list[str], int]:
        items = get(self.status, "/api/status")["attention"]
        texts = [f"{item['level']} {item['text']}" for item in items if item["what"] == "accept"]
        return texts, ask(self.status, "GET", "/readyz")[0]

    def is_reported(self, why: str) -> None:
        expected = ([f"critical listener public: {why}"], 503)
        eventually(lambda: self.reported() == expected, why)
