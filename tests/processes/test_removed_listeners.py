"""Listeners that a reload removes, and files that another program does, and that come again."""

import os
import re
import socket
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.admin.processes import ask, get
from tests.processes.manager import Manager
from tests.support.kit import PATIENCE, Service, WorkersTestCase, eventually, free_port, make_folder
from tests.support.proc import is_gone

pytestmark = pytest.mark.by_turns(each=True)


_SETTINGS = "drain_timeout = 10m"
_PUBLIC = """
[listen public]
endpoint = 127.0.0.1:0
detect_timeout = 10m
[route ssh]
under = *
match = ssh
backend = 127.0.0.1:1
"""


class RemovedListenersTests(WorkersTestCase):
    def upgraded(
        self, endpoint: str, settings: str = "", times: int = 1, before: Sequence[str] = ()
    ) -> Service:
        """Return a service with further listener, each of whose old processes still has a client that has not said anything."""
        self.listening = self.backend()
        kind = "udp:" * endpoint.startswith("udp:")
        self.section = f"[listen extra]\nendpoint = {endpoint}\ndefault = {kind}127.0.0.1:{self.listening.getsockname()[1]}\n"
        rules = f"{self.section}{_PUBLIC}"
        mux = self.upgrading(rules, f"{_SETTINGS}\n{settings}", before, program="run")
        self.old = list[list[int]]()
        for _ in range(times):
            self.upgrade(mux)
        return mux

    def upgrade(self, mux: Service) -> None:
        client = self.connect(("127.0.0.1", mux.ports["public"]))
        self.is_accepted(mux.pid, client)
        self.old.append(mux.replace())
        mux.child.wait_for(f"upgraded: process {mux.pid} ")

    def remove(self, mux: Service) -> None:
        self.assertIn("listener extra closed", mux.reload((re.escape(self.section), "")))

    def add(self, mux: Service) -> str:
        return mux.reload((r"\[listen public\]", f"{self.section}[listen public]"))

    def connect(self, address: object, family: int = socket.AF_INET) -> socket.socket:
        client = self.enterContext(socket.socket(family))
        client.settimeout(PATIENCE)
        client.connect(address)  # type: ignore[arg-type]
        return client

    def assert_served(self, address: object, family: int = socket.AF_INET) -> None:
        client = self.connect(address, family)
        client.sendall(b"hello")
        self.accept_from(self.listening, b"hello")

    def test_of_all_kinds(self) -> None:
        """New clients are refused at once, by all processes of a chain; added again, it serves. That holds for both, any number of times."""
        tcp, metrics = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
        path = make_folder(self) / "socket"
        mux = self.upgraded(
            f"127.0.0.1:{tcp[1]}\n    unix:{path}",
            f"admin = off\nmetrics = 127.0.0.1:{metrics[1]}",
            times=2,
        )
        for _ in range(2):
            self.assert_served(tcp)
            self.assert_served(str(path), socket.AF_UNIX)
            self.remove(mux)
            with self.assertRaises(ConnectionRefusedError):
                self.connect(tcp)
            self.assertFalse(path.exists())
            self.assertIn("listener extra opened", self.add(mux))
        self.assert_served(tcp)
        self.assert_served(str(path), socket.AF_UNIX)
        # The same holds for an endpoint of the administration.
        self.connect(metrics)
        mux.reload((r"metrics = .*", "metrics = off"))
        with self.assertRaises(ConnectionRefusedError):
            self.connect(metrics)
        mux.reload((r"metrics = off", f"metrics = 127.0.0.1:{metrics[1]}"))
        self.connect(metrics)
        self.assertFalse(any(all(map(is_gone, old)) for old in self.old))

    def test_before_all_is_closed(self) -> None:
        """No client is accepted by the system, and cut later: who comes while the other processes are asked is refused already."""
        ready, gate = self.late("supervisor.supervisor.Supervisor._commit_pending", after=True)
        for relay in ("auto", "portable"):
            path = make_folder(self) / "socket"
            tcp = "127.0.0.1", free_port()
            endpoints = f"127.0.0.1:{tcp[1]}\n    unix:{path}"
            mux = self.upgraded(endpoints, f"workers = 2\nrelay = {relay}", times=0)
            self.assert_served(tcp)
            self.assert_served(str(path), socket.AF_UNIX)
            mux.ask_to_reload((re.escape(self.section), ""))
            eventually(ready.exists, "the workers have the new rules")
            with self.assertRaises(ConnectionRefusedError):
                self.connect(tcp)
            with self.assertRaises(ConnectionRefusedError):
                self.connect(str(path), socket.AF_UNIX)
            gate.touch()
            mux.child.wait_for("rules reloaded: .*listener extra closed")
            self.assertNotIn("critical", mux.output)
            ready.unlink()
            gate.unlink()

    def test_systemd(self) -> None:
        """A socket of systemd stays as it is, whether a reload or an upgrade leaves it out, and can be used again."""
        for named in ("127.0.0.1:{port}", "systemd:domain=INET:index=0"):
            with socket.create_server(("127.0.0.1", 0)) as opened:
                address = opened.getsockname()
                manager = self.enterContext(closing(Manager(make_folder(self))))
                manager.store["a"] = os.dup(opened.fileno())
                units, before = make_folder(self), [*manager.environment()]
                settings = f"include = {units}/*.ini"
                mux = self.upgraded(named.format(port=address[1]), settings, 0, before)
                # A unit gets none that the operator has: by its address, it would take the operator's clients.
                (units / "u.ini").write_text(f"[listen u]\nendpoint = 127.0.0.1:{address[1]}\n")
                if "systemd:" in named:
                    self.assertIn("[listen extra] has this socket of systemd", mux.reload())
                for _ in range(5):
                    self.assert_served(address)
                (units / "u.ini").unlink()
                self.upgrade(mux)
                for _ in range(2):
                    self.remove(mux)
                    self.assertTrue(opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
                    self.assertIn("listener extra opened", self.add(mux))
                    self.assert_served(address)
                mux.file.write_text(mux.file.read_text().replace(self.section, ""))
                mux.replace()
                mux.child.wait_for(f"upgraded: process {mux.pid} ")
                self.assertTrue(opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


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
        status = make_folder(self) / "status"
        settings = f"admin = unix:{admin}\n    unix:{status}\nmetrics = unix:{metrics}"

        def reported() -> tuple[list[str], int]:
            items = get(status, "/api/status")["attention"]
            texts = [f"{one['level']} {one['text']}" for one in items if one["what"] == "accept"]
            return texts, ask(status, "GET", "/readyz")[0]

        rules = f"[listen public]\nendpoint = unix:{listen}\n"
        mux = self.upgrading(rules, settings, program="run")
        self.remove(mux)
        self.are_there(mux)
        mux.upgrade()
        self.remove(mux)
        self.are_there(mux)
        for path in self.paths:
            path.unlink()
            path.write_text("another program's")
        why = f"another program has put its own file at {self.paths[-1]}"
        expected = ([f"critical listener public: {why}"], 503)
        eventually(lambda: reported() == expected, why)
        mux.reload()
        for path in self.paths:
            self.assertEqual(path.read_text(), "another program's")
            path.unlink()
        self.are_there(mux)
        eventually(lambda: reported() == ([], 200), "all is well again")
