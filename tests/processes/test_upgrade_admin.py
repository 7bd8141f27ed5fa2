"""What an upgrade has replaced does nothing for clients of `admin` that were connected before."""

import json
import socket
from contextlib import closing

import pytest

from tests.admin.processes import UnixConnection
from tests.support.kit import RULES, Service, WorkersTestCase, eventually

pytestmark = pytest.mark.by_turns(each=True)


class ReplacedTest(WorkersTestCase):
    def begin(self) -> tuple[Service, socket.socket]:
        """Begin a service, with a client that stays in its first process."""
        rules = f"{RULES}[route ssh]\nmatch = ssh\nbackend = 127.0.0.1:1\n"
        mux = self.upgrading(rules, "drain_timeout = 10m", admin=True)
        client = self.client(mux)
        client.sendall(b"S")
        return mux, client

    def test_requests(self) -> None:
        """What a client asks whom the old process has accepted is left to the new one, which it has to ask."""
        ready, gate = self.late_upgrade("_have_it_serve")
        mux, _ = self.begin()
        paths = ("/api/bans", "/api/reload", "/api/stop", "/api/connections/close")
        connections = [UnixConnection(mux.admin) for _ in paths]
        for connection in connections:
            self.addCleanup(connection.close)
            connection.connect()
        mux.api("status")  # so all have been accepted
        self.upgrade_until(mux, ready)
        for path, connection in zip(paths, connections, strict=True):
            body = json.dumps({"network": "192.0.2.1"} if path == "/api/bans" else {})
            connection.request("POST", path, body, {"Content-Type": "application/json"})
        gate.touch()
        for connection in connections:
            answer = connection.getresponse()
            self.assertEqual(answer.status, 503)
            told = json.loads(answer.read())
            self.assertIn("an upgrade has replaced this process", told["error"])
        mux.switched()
        self.assertEqual((mux.api("bans"), mux.api("status")["pid"]), ([], mux.pid))
        self.assertEqual(len(mux.api("connections")), 1)

    def test_nothing_is_said_while_connections_move(self) -> None:
        """That connections stay in the old process is said when all have moved that can, and not before. Events end."""
        gate = self.late_moves()
        mux, client = self.begin()
        connection = self.enterContext(closing(UnixConnection(mux.admin)))
        connection.request("GET", "/api/events")
        answer = connection.getresponse()
        mux.replace()
        for _ in range(5):
            self.assertEqual(mux.attention("upgrade"), [])
        gate.touch()
        eventually(lambda: mux.attention("upgrade") != [], "what has stayed is said")
        self.assertIn("1 connection stays in workers", mux.attention("upgrade")[0]["text"])
        self.assertTrue(answer.read().rpartition(b"event: ")[2].startswith(b"stop\n"))
        client.close()
        eventually(lambda: mux.attention("upgrade") == [], "it is over")
