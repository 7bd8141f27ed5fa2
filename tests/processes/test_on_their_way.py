"""Connections that move from one worker to another while all are listed, explained, closed or banned."""

import os
import signal

import pytest

from tests.admin.processes import answer_to, send
from tests.processes.running import Pair
from tests.support.kit import WorkersTestCase, customize, eventually, make_folder
from tests.support.proc import workers_of

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

    def leaving(self, listener: str = "") -> Pair:
        """Relay a client's connection, and have it leave its worker."""
        held = make_folder(self) / "held"
        held.parent.chmod(0o755)  # workers may be another user's
        customize(self, _HELD.format(held=str(held)))
        server = self.backend()
        self.mux = mux = self.upgrading(
            self.relaying(server, listener), "workers = 1\nsandbox = off", admin=True
        )
        pair = self.relayed(mux, server)
        (self.row,) = self.mux.api("connections")
        os.kill(workers_of(mux.child.pid)[0], signal.SIGTERM)
        eventually(held.exists, "the connection is on its way")
        return pair

    def test_listed_explained_and_counted_for_its_source(self) -> None:
        pair = self.leaving()
        paths = ("connections", f"connections/{self.row['id']}", "clients")
        # Before it is over
        asking = [send(self.mux.admin, "GET", f"/api/{path}") for path in paths]
        (row,), explained, (client,) = (answer_to(one)[1] for one in asking)
        self.assertEqual(row["id"], self.row["id"])
        self.assertNotEqual(row["worker"], self.row["worker"])
        self.assertEqual(explained["explanation"]["route"], "all")
        self.assertEqual(client["active"], 1)
        self.all_end([pair])

    def test_closed(self) -> None:
        self.leaving()
        answer = self.mux.api("connections/close", {"backend": self.row["backend"]})
        self.assertEqual(answer["closed"], 1)
        self.assertEqual(self.mux.take()[0]["reason"], "killed")

    def test_banned(self) -> None:
        self.leaving("end_denied = yes\n")
        self.mux.api("bans", {"network": "127.0.0.1", "seconds": 600})
        self.assertEqual(self.mux.take()[0]["reason"], "denied")
