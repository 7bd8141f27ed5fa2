"""Listeners that a reload removes, and adds again, while a process that an upgrade has replaced still lives."""

import os
import re
import socket
from collections.abc import Sequence
from contextlib import closing

import pytest

from tests.processes.manager import Manager
from tests.support.kit import PATIENCE, Service, WorkersTestCase, eventually, make_folder
from tests.support.ports import free_port
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
        mux = self.own(
            Service(self.folder, rules, f"{_SETTINGS}\n{settings}", before=before, program="run")
        )
        self.old = []
        for _ in range(times):
            client = self.connect(("127.0.0.1", mux.ports["public"]))
            self.is_accepted(mux.pid, client)
            self.old.append(mux.replace())
            mux.child.wait_for(f"upgraded: process {mux.pid} ")
        return mux

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
            self.assertNotIn("critical", mux.child.output)
            ready.unlink()
            gate.unlink()

    def test_systemd(self) -> None:
        """A socket of systemd stays as it is, whether a reload or an upgrade leaves it out, and can be used again."""
        for named in ("127.0.0.1:{port}", "systemd:domain=INET:index=0"):
            with socket.create_server(("127.0.0.1", 0)) as opened:
                address = opened.getsockname()
                manager = self.enterContext(closing(Manager(make_folder(self))))
                manager.store["a"] = os.dup(opened.fileno())
                mux = self.upgraded(named.format(port=address[1]), before=[*manager.environment()])
                self.assert_served(address)
                for _ in range(2):
                    self.remove(mux)
                    self.assertTrue(_listens(opened))
                    self.assertIn("listener extra opened", self.add(mux))
                    self.assert_served(address)
                mux.file.write_text(mux.file.read_text().replace(self.section, ""))
                mux.replace()
                mux.child.wait_for(f"upgraded: process {mux.pid} ")
                self.assertTrue(_listens(opened))

    def test_systemd_of_another_owner(self) -> None:
        """A unit gets no socket of systemd that the operator has: by its address, it would take the operator's clients."""
        with socket.create_server(("127.0.0.1", 0)) as opened:
            address = opened.getsockname()
            manager = self.enterContext(closing(Manager(make_folder(self))))
            manager.store["a"] = os.dup(opened.fileno())
            units = make_folder(self)
            (units / "u.ini").write_text(f"[listen u]\nendpoint = 127.0.0.1:{address[1]}\n")
            named, before = "systemd:domain=INET:index=0", [*manager.environment()]
            mux = self.upgraded(named, f"include = {units}/*.ini", times=0, before=before)
            self.assertIn("[listen extra] has this socket of systemd", mux.reload())
            for _ in range(5):
                self.assert_served(address)


def _listens(opened: socket.socket) -> bool:
    return bool(opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
