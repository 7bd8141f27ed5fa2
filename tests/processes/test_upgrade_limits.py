"""Limits hold while connections are on their way to a new process."""

import os
import select
import signal
import socket
from pathlib import Path

from tests.admin.processes import get
from tests.interop.children import eventually
from tests.processes.running import RULES, set_limits, workers_of
from tests.processes.upgrading import UpgradeTestCase, Upgrading


class LimitsTest(UpgradeTestCase):
    """The old process hands its connections over when the test lets it; the new one accepts clients before."""

    def served(self, settings: str, listener: str) -> None:
        """Upgrade a service with two that are relayed and one that is not, which may have three."""
        gate = self.late_moves()
        listening = self.backend()
        ssh = "[route ssh]\nmatch = ssh\nbackend = 127.0.0.1:1\n"
        rules = self.relaying(listening, f"detect_timeout = 10m\n{listener}\n{ssh}")
        mux = self.upgrading(rules, f"{settings}\ndrain_timeout = 10m")
        peers = [self.relayed(mux, listening) for _ in range(2)]
        undecided = self.client(mux)
        self.is_accepted(mux.pid, undecided)
        old = mux.replace()
        self.assert_refused(mux)
        gate.touch()
        mux.child.wait_for("connections handed over: 2")
        os.kill(mux.pid, signal.SIGHUP)
        mux.child.wait_for("rules reloaded")  # so the new process has heard that no more will come
        # What has stayed in the old process does not count in the new one.
        peers.append(self.relayed(mux, listening))
        self.assert_refused(mux)
        undecided.close()
        for pair in peers:
            self.over(*pair)
        self.assertEqual(len(mux.take(4)), 4)
        self.assert_gone([old])
        self.over(*self.relayed(mux, listening))
        mux.take_one()
        mux.stop()

    def assert_refused(self, mux: Upgrading) -> None:
        with mux.connect() as client:
            self.assertEqual(client.recv(1), b"")
        self.assertEqual(mux.take_one()["reason"], "limit")

    def test_limit_of_the_service_with_one_worker(self) -> None:
        self.served("max_connections = 3", "")

    def test_limit_of_a_listener_with_two_workers(self) -> None:
        self.served("workers = 2", "max_connections = 3")

    def test_limit_of_a_source_with_two_workers(self) -> None:
        self.served("workers = 2", "max_connections_per_source = 3")


class InFlightTest(UpgradeTestCase):
    def few(self) -> list[str]:
        few = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"]
        if os.geteuid() == 0:
            few += ["setpriv", "--bounding-set=-sys_resource,-sys_admin"]
        return few

    def test_no_worker_is_killed_for_what_it_was_not_asked(self) -> None:
        """Another process of the user, such as a worker that was taken over, can have as many on their way for as long as it likes."""
        set_limits(self, {"processes.workers.worker._MOST_SILENT": 2})
        rules = "[listen x]\nendpoint = 127.0.0.1:0\n"
        mux = self.upgrading(rules, "workers = 2", before=self.few())
        before = workers_of(mux.pid)
        own, other = socket.socketpair()
        with own, other, Path(os.devnull).open("rb") as file:
            for _ in range(3):
                socket.send_fds(own, [b"x"], [file.fileno()] * 200)
            mux.file.write_text(mux.file.read_text() + rules.replace("x", "y"))
            os.kill(mux.pid, signal.SIGHUP)
            for number in (1, 2):
                mux.child.wait_for(f"nothing could be sent to worker {number} for 2 s")
        mux.child.wait_for("rules reloaded")
        self.assertEqual(workers_of(mux.pid), before)
        mux.stop()

    def test_more_sockets_for_all_workers_than_may_be_on_their_way_at_once(self) -> None:
        """Linux bounds them by user, unless a process may exceed limits (unix(7), ETOOMANYREFS)."""
        rules = "".join(f"[listen {number}]\nendpoint = 127.0.0.1:0\n" for number in range(60))
        mux = self.upgrading(rules, "workers = 8", before=self.few())
        mux.upgrade()
        mux.reload((r"\Z", "detect_timeout = 9s\n"))
        mux.stop()
        self.assertNotRegex(mux.child.output, "cannot be started|before it had served|ended")


class PlacesTest(UpgradeTestCase):
    def test_of_a_server(self) -> None:
        """Who waits in the old process gets the place of one that has moved, when that has ended; and then who waits in the new one."""
        listening = self.backend()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        gate = self.late_moves()
        mux = self.upgrading(
            f"{RULES}[route all]\nmatch = any\nbackend = b\n"
            f"[backend b]\nserver = {address}\nmax_connections = 1\nqueue = 5\nconnect_timeout = 10m\n",
            f"drain_timeout = 10m\nadmin = unix:{self.folder / 'admin.sock'}",
        )
        peers = [self.relayed(mux, listening)]
        waiting = [self.waits(mux, "a")]
        old = mux.replace()
        waiting.append(self.waits(mux, "b"))
        self.assertEqual(select.select([listening], [], [], 0)[0], [], "one more is led there")
        gate.touch()
        mux.child.wait_for("connections handed over: 1")
        for client, said in zip(waiting, (b"a", b"b"), strict=True):
            self.assertEqual(select.select([listening], [], [], 0)[0], [], "one more is led there")
            self.over(*peers.pop())
            peers.append((client, self.accept_from(listening, said)))
        self.assert_gone([old])
        self.over(*peers.pop())
        self.assertEqual({line["reason"] for line in mux.take(3)}, {"done"})

    def waits(self, mux: Upgrading, said: str) -> socket.socket:
        client = self.client(mux)
        client.sendall(said.encode())
        name = "{}:{}".format(*client.getsockname())
        asked = self.folder / "admin.sock", "/api/connections?state=connecting"
        eventually(lambda: any(one["client"] == name for one in get(*asked)), "it waits")
        return client
