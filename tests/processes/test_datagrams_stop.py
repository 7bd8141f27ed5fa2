"""Flows of UDP while a service stops, and those that somebody ends."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

from tests.admin.processes import ask, get
from tests.interop.children import eventually
from tests.processes.running import WorkersTestCase
from tests.processes.upgrading import Upgrading

if TYPE_CHECKING:
    from pathlib import Path

_RULES = "[listen u]\nendpoint = udp:127.0.0.1:0\ndefault = udp:127.0.0.1:%d\n"


class _Client:
    """One end of a flow."""

    def __init__(self, test: WorkersTestCase, port: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        test.addCleanup(self._socket.close)
        self._socket.connect(("127.0.0.1", port))
        self._socket.settimeout(0.2)
        self._count = 0
        self.name = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def is_answered(self) -> bool:
        """Say something new, and tell whether that comes back."""
        self._count += 1
        data = b"%d" % self._count
        self._socket.send(data)
        with contextlib.suppress(TimeoutError):
            while (heard := self._socket.recv(100)) != data:
                assert int(heard) < self._count
            return True
        return False


class _Case(WorkersTestCase):
    """A service, and its server."""

    def begin(self, settings: str) -> Upgrading:
        """Start it."""
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 0))
        serving = threading.Thread(target=self._serve, args=(server,), daemon=True)
        serving.start()
        self.addCleanup(serving.join, 60)
        self.addCleanup(self._end, server)
        self.admin: Path = self.folder / f"{os.urandom(4).hex()}.sock"
        mux = Upgrading(
            self.folder, _RULES % server.getsockname()[1], f"admin = unix:{self.admin}\n{settings}"
        )
        self.addCleanup(mux.kill)
        return mux

    def _serve(self, server: socket.socket) -> None:
        while True:
            data, peer = server.recvfrom(100)
            if not data:
                return
            server.sendto(data, peer)

    def _end(self, server: socket.socket) -> None:
        server.sendto(b"", server.getsockname())

    def flow(self, mux: Upgrading) -> _Client:
        """Begin a flow."""
        client = _Client(self, mux.port)
        eventually(client.is_answered, "the flow is answered")
        return client


class StopTest(_Case):
    """A service that stops."""

    def test_drained(self) -> None:
        """Its flows go on until `drain_timeout` is over."""
        mux = self.begin("drain_timeout = 2s")
        client = self.flow(mux)
        began = time.monotonic()
        mux.terminate()
        mux.child.wait_for("for up to 2 s")
        mux.assert_stopped()
        self.assertGreater(time.monotonic() - began, 1)
        self.assert_one_line(mux, client)

    def assert_go_on(self, *, by_api: bool) -> None:
        """See that flows go on while the service stops, that none begins, and that a second signal ends all at once."""
        mux = self.begin("workers = 2\ndrain_timeout = 10m")
        client = self.flow(mux)
        if by_api:
            status, _ = ask(self.admin, "POST", "/api/stop", {})
            self.assertEqual(status // 100, 2)
        else:
            mux.terminate()
        mux.child.wait_for("for up to 600 s")
        eventually(client.is_answered, "the flow goes on")
        self.assertFalse(_Client(self, mux.port).is_answered())
        eventually(client.is_answered, "the flow goes on")
        mux.terminate()
        mux.assert_stopped()
        self.assert_one_line(mux, client)

    def assert_one_line(self, mux: Upgrading, client: _Client) -> None:
        """See that there was one flow alone, and how it ended."""
        line = mux.take_one()
        self.assertEqual((line["client"], line["reason"]), (client.name, "drained"))

    def test_second_signal(self) -> None:
        """Meanwhile no new one begins; a second signal ends all flows at once."""
        self.assert_go_on(by_api=False)

    def test_asked_to_stop(self) -> None:
        """Over the API as by a signal."""
        self.assert_go_on(by_api=True)


class CloseTest(_Case):
    """Flows that an operator ends."""

    def test_close(self) -> None:
        """Those that a filter names end, in whichever worker they are; the others go on, and their clients may begin anew."""
        mux = self.begin("workers = 2\ndrain_timeout = 100ms")
        clients = [self.flow(mux) for _ in range(3)]
        listed = get(self.admin, "/api/connections")
        self.assertEqual({one["client"] for one in listed}, {client.name for client in clients})
        chosen = next(one["id"] for one in listed if one["client"] == clients[0].name)
        ask(self.admin, "POST", f"/api/connections/{chosen}/close", {})
        self.assertEqual(mux.take_one()["reason"], "killed")
        status, told = ask(self.admin, "POST", "/api/connections/close", {"listener": "u"})
        self.assertEqual((status, told["closed"]), (200, 2))
        self.assertEqual({line["reason"] for line in mux.take(2)}, {"killed"})
        self.assertEqual(get(self.admin, "/api/connections"), [])
        eventually(clients[0].is_answered, "it begins anew")
        mux.stop()

    def test_listener(self) -> None:
        """A listener that accepts nobody begins no flow, and those that there are go on."""
        mux = self.begin("workers = 2\ndrain_timeout = 100ms")
        client = self.flow(mux)
        ask(self.admin, "POST", "/api/listeners/u", {"accepting": False})
        other = _Client(self, mux.port)
        eventually(lambda: not _Client(self, mux.port).is_answered(), "no flow begins")
        self.assertFalse(other.is_answered())
        eventually(client.is_answered, "the flow goes on")
        ask(self.admin, "POST", "/api/listeners/u", {"accepting": True})
        eventually(other.is_answered, "flows begin again")
        mux.stop()
