import resource
import socket
import time
from functools import partial
from pathlib import Path

from tests.admin.processes import ask, get, post
from tests.support.kit import RULES, Service, WorkersTestCase, eventually, is_gone
from tests.support.limits import lowered


class ProcessesTest(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.socket = self.folder / "admin.sock"

    def service(self, settings: str = "", rules: str = RULES) -> Service:
        return self.upgrading(rules, f"admin = unix:{self.socket}\n{settings}")

    def led(self, listening: socket.socket, more: str = "") -> str:
        port = listening.getsockname()[1]
        return (
            f"{RULES}[route all]\nmatch = any\nbackend = b\n"
            f"[backend b]\nserver = 127.0.0.1:{port}\n{more}"
        )

    def test_descriptors_run_out(self) -> None:
        """Clients wait in the queue until there are some; meanwhile, the log is not filled with that. Afterwards, the endpoint may move."""
        mux = self.service()
        get(self.socket, "/readyz")
        most = max(int(file.name) for file in Path(f"/proc/{mux.pid}/fd").iterdir())
        with lowered(resource.RLIMIT_NOFILE, most + 1, mux.pid):
            for _ in range(8):
                client = self.enterContext(socket.socket(socket.AF_UNIX))
                client.connect(str(self.socket))
            mux.child.wait_for("admin.sock cannot accept: Too many open files; clients wait until")
            with mux.connect() as other:  # whom a worker serves
                other.sendall(b"x")
                other.recv(1)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertIn(b" 200 ", client.recv(100))
        client.close()
        mux.child.wait_for("no client is waiting to be accepted any longer")
        self.assertLess(mux.child.output.count("ould not accept"), 3)
        self.assertNotIn("have changed", mux.child.output)
        # A changed endpoint replaces the old file.
        moved = self.folder / "other.sock"
        mux.file.write_text(mux.file.read_text().replace(str(self.socket), str(moved)))
        post(self.socket, "/api/upgrade")
        mux.switched()
        eventually(moved.exists, "the other endpoint is there")
        self.assertEqual(get(moved, "/api/status")["pid"], mux.pid)
        eventually(lambda: not self.socket.exists(), "the old one is gone")

    def test_old_process_answers_the_request_and_the_new_one_the_next(self) -> None:
        mux = self.service("workers = 2\nmetrics = 127.0.0.1:0")
        inode = self.socket.stat().st_ino
        port = int(mux.child.wait_for(r"listening on \S+:(\d+) for \[txmux\] metrics")[1])
        for _ in range(2):
            told = post(self.socket, "/api/upgrade")
            mux.switched()
            self.assertIn(f"process {mux.pid} serves from now on", told["changes"])
            self.assertEqual(get(self.socket, "/api/status")["pid"], mux.pid)
            eventually(partial(is_gone, mux.before), "the old process has ended")
            self.assertEqual(get(self.socket, "/api/status")["pid"], mux.pid)
            self.assertEqual(get(port, "/readyz"), {"ready": True, "missing": [], "stale": []})
        self.assertEqual(self.socket.stat().st_ino, inode)
        self.assertTrue(post(self.socket, "/api/reload")["ok"])
        mux.stop()
        self.assertFalse(self.socket.exists())

    def test_stop_answers_and_ends_as_sigterm_does(self) -> None:
        listening = self.backend()
        mux = self.service("workers = 2", self.led(listening))
        client, server = self.relayed(mux, listening)
        self.assertEqual(post(self.socket, "/api/stop")["changes"], "the service is shutting down")
        mux.status = 0  # no signal has stopped it
        eventually(lambda: get(self.socket, "/api/status")["draining"], "its status says so")
        status, told = ask(self.socket, "GET", "/readyz")
        self.assertEqual((status, told["missing"]), (503, ["the service is shutting down"]))
        self.assertEqual(get(self.socket, "/healthz"), {"ok": True})
        self.answers(client, server)
        (listener,) = get(self.socket, "/api/status")["listeners"]
        self.assertFalse(listener["accepting"])
        eventually(lambda: not mux.inodes(), "no process listens")
        self.assertRaises(OSError, mux.connect)
        self.over(client, server)
        eventually(lambda: is_gone(mux.pid), "it has ended")
        self.assertEqual(mux.child.wait(), 0)
        self.assertFalse(self.socket.exists())
        mux.take(1)

    def is_unready(self) -> bool:
        return ask(self.socket, "GET", "/readyz")[0] == 503

    def test_grace_is_not_ready_and_then_closes_the_port(self) -> None:
        listening = self.backend()
        mux = self.service("grace = 2s", self.led(listening))
        client, server = self.relayed(mux, listening)
        begun = time.monotonic()
        mux.terminate()
        eventually(self.is_unready, "it says that it is not ready")
        eventually(lambda: not mux.inodes(), "it accepts no more")
        self.assertGreaterEqual(time.monotonic() - begun, 1.9)
        self.answers(client, server)
        self.over(client, server)
        mux.assert_stopped()
        mux.take(1)

    def test_second_signal_ends_grace_at_once(self) -> None:
        listening = self.backend()
        mux = self.service("grace = 1h", self.led(listening))
        mux.terminate()
        eventually(self.is_unready, "it says that it is not ready")
        client, server = self.relayed(mux, listening)
        self.answers(client, server)
        mux.terminate()
        mux.assert_stopped()
        client.close()
        server.close()
        self.assertEqual(mux.take_one()["reason"], "drained")
