"""Files of the service that another program removes, or puts its own in their place."""

import socket
from functools import partial
from pathlib import Path

from tests.interop.children import PATIENCE, eventually
from tests.processes.upgrading import Running, UpgradeTestCase
from tests.support.folders import make_folder


class RemovedFilesTests(UpgradeTestCase):
    def run_at(self, folder: Path) -> Running:
        names = {name: folder / name for name in ("admin", "metrics", "listen")}
        settings = f"admin = unix:{names['admin']}\nmetrics = unix:{names['metrics']}"
        rules = f"[listen public]\nendpoint = unix:{names['listen']}\n"
        mux = self.own(Running(self.folder, rules, settings))
        self.addCleanup(mux.kill)
        self.paths = [*names.values()]
        return mux

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

    def are_there(self, mux: Running) -> None:
        for path in (*self.paths, mux.pidfile):
            eventually(path.exists, f"{path} is made again")
        for path in self.paths:
            eventually(partial(self.is_reached, path), f"{path} is served")
        self.assertEqual(int(mux.pidfile.read_text()), mux.pid)

    def remove(self, mux: Running) -> None:
        for path in (*self.paths, mux.pidfile):
            path.unlink()

    def test_removed(self) -> None:
        """All are made again, also by a process that has taken the place of another one."""
        mux = self.run_at(make_folder(self))
        self.remove(mux)
        self.are_there(mux)
        mux.upgrade()
        self.remove(mux)
        self.are_there(mux)

    def test_replaced(self) -> None:
        """What another program has put there stays, until that program takes it away."""
        mux = self.run_at(make_folder(self))
        for path in self.paths:
            path.unlink()
            path.write_text("another program's")
        for path in self.paths:
            mux.child.wait_for(f"another program has put its own file at {path}, ")
        mux.reload()
        for path in self.paths:
            self.assertEqual(path.read_text(), "another program's")
            path.unlink()
        self.are_there(mux)
