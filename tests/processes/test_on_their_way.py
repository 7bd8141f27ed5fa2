"""Connections that move from one worker to another while all are listed, explained, closed or banned."""

import os
import signal

import pytest

from tests.admin.processes import answer_to, send
from tests.processes.running import Pair
from tests.support.kit import WorkersTestCase, customize, eventually, make_folder

pytestmark = pytest.mark.by_turns(each=True)

_HELD = """
import os, sys
if "txmux" in sys.orig_argv:
    from txmux.processes.worker.handover import Adopting

    adopt = Adopting._adopt

    def adopt_late(self, *batch, **fields):
        from twisted.internet import reactor

        received = self.channel.dataReceived

        def receive_late(data):
            reactor.callLater(0.5, received, data)
            if b'go_on' in data:
                open({held!r}, "w").close()

        self.channel.dataReceived = receive_late
        return adopt(self, *batch, **fields)

    Adopting._adopt = adopt_late
"""


class OnTheirWayTests(WorkersTestCase):
    """The worker that takes a connection gets to know half a second late that it is its own; the other one has none by then."""

    def leaving(self) -> Pair:
        """Relay a client's connection, and have it leave its worker."""
        eventually(lambda: len(self.mux.workers) == 1, "the one before has ended")
        self.held.unlink(missing_ok=True)
        pair = self.relayed(self.mux, self.server)
        (self.row,) = self.mux.api("connections")
        os.kill(self.mux.workers[0], signal.SIGTERM)
        eventually(self.held.exists, "the connection is on its way")
        return pair

    def test_on_their_way(self) -> None:
        self.held = make_folder(self) / "held"
        self.held.parent.chmod(0o755)  # workers may be another user's
        customize(self, _HELD.format(held=str(self.held)))
        self.server = self.backend()
        rules = self.relaying(self.server, "end_denied = yes\n")
        self.mux = mux = self.upgrading(rules, "workers = 1\nsandbox = off", admin=True)
        # It is listed, explained, and counted for its source.
        pair = self.leaving()
        paths = ("connections", f"connections/{self.row['id']}", "clients")
        # Before it is over
        asking = [send(mux.admin, "GET", f"/api/{path}") for path in paths]
        (row,), explained, (client,) = (answer_to(one)[1] for one in asking)
        self.assertEqual(row["id"], self.row["id"])
        self.assertNotEqual(row["worker"], self.row["worker"])
        self.assertEqual(explained["explanation"]["route"], "all")
        self.assertEqual(client["active"], 1)
        self.all_done(mux, [pair])
        # It is closed, and another one is banned.
        for path, asked, closed, reason in (
            ("connections/close", {"backend": self.row["backend"]}, 1, "killed"),
            ("bans", {"network": "127.0.0.1", "seconds": 600}, None, "denied"),
        ):
            self.leaving()
            answer = mux.api(path, asked)
            self.assertEqual(answer.get("closed"), closed)
            self.assertEqual(mux.take()[0]["reason"], reason)
