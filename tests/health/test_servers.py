"""Servers that fail without a check to say so: what breaks is real, and every view is read."""

import contextlib
import itertools
import socket
import threading

from tests.health.views import Views
from tests.interop.children import eventually
from tests.processes.running import RULES, WorkersTestCase
from tests.support.ports import free_port, stop_listening


def pool(*ports: int, more: str = "") -> str:
    servers = "".join(f"\n    127.0.0.1:{port}" for port in ports)
    return f"{RULES}[route all]\nmatch = any\nbackend = web\n[backend web]\nserver = {servers}\n{more}\n"


class ServerTests(WorkersTestCase):
    """Serves rules, and reads all views of them."""

    def views(self, rules: str, settings: str = "workers = 2") -> Views:
        admin = self.folder / "admin.sock"
        return Views(
            self.start(rules, f"admin = unix:{admin}\ndrain_timeout = 0s\n{settings}"), admin
        )

    def ask_until(self, views: Views, what: str) -> None:
        """Connect clients that say something, one after the other, until a topic needs attention."""
        sources = itertools.cycle(("127.0.0.1", "127.0.0.2", "127.0.0.3"))

        def is_shown() -> bool:
            with contextlib.suppress(OSError), views.mux.connect(next(sources)) as client:
                client.settimeout(0.5)
                client.sendall(b"x")
                client.recv(1)
            return views.attention(what) is not None

        eventually(is_shown, f"{what} needs attention")

    def server_state(self, views: Views, number: int = 0) -> str:
        return str(views.api("backends")[0]["servers"][number]["state"])

    def test_dead_lone_server_without_check(self) -> None:
        port = free_port()
        views = self.views(pool(port))
        self.ask_until(views, "backend")
        views.show("backend", "critical", "connection refused", log="is failing", ready=False)
        self.assertEqual(self.server_state(views), "failing")
        state = (
            f'txmux_backend_server_state{{backend="web",server="127.0.0.1:{port}",state="failing"}}'
        )
        self.assertEqual(views.metric(state), 1)
        # It recovers without a client.
        listening = socket.create_server(("127.0.0.1", port))
        self.addCleanup(stop_listening, listening)
        views.clear("backend")
        eventually(views.is_ready, "the service is ready")
        self.assertEqual(self.server_state(views), "up")
        # Each trouble has its own line, and a start is none.
        self.assertNotIn("needs attention", views.mux.child.output)

    def test_server_that_resets_every_client(self) -> None:
        listening = self.backend()
        threading.Thread(target=_reset_all, args=[listening], daemon=True).start()
        views = self.views(pool(listening.getsockname()[1]))
        self.ask_until(views, "backend")
        views.show("backend", "critical", "reset", log="is failing", ready=False)

    def test_server_that_accepts_and_never_answers(self) -> None:
        listening = self.backend()
        more = "check = tcp interval=1s"
        views = self.views(pool(listening.getsockname()[1], more=more))
        clients = [views.mux.connect(f"127.0.0.{1 + number % 3}") for number in range(6)]
        for client in clients:
            self.addCleanup(client.close)
            client.sendall(b"x")
        eventually(lambda: views.attention("backend") is not None, "the backend needs attention")
        views.show("backend", "critical", "silent", log="is silent", ready=False)
        self.assertEqual(self.server_state(views), "silent")
        server = self.accept_from(listening, b"x")
        server.sendall(b"y")
        views.clear("backend")

    def test_one_of_two_dead_by_its_check(self) -> None:
        listening = self.backend()
        dead = free_port()
        more = "check = tcp interval=1s fall=1"
        views = self.views(pool(dead, listening.getsockname()[1], more=more))
        views.show("backend", "warning", str(dead), log="is down")

    def test_drained_server_is_no_failure(self) -> None:
        listening = self.backend()
        port = listening.getsockname()[1]
        views = self.views(pool(port, more="check = tcp interval=1s"))
        code, said = views.command("drain", "web")
        self.assertEqual(code, 0, said)
        up = f'txmux_backend_server_up{{backend="web",server="127.0.0.1:{port}"}}'
        self.assertEqual(views.metric(up), 1)
        state = (
            f'txmux_backend_server_state{{backend="web",server="127.0.0.1:{port}",state="drain"}}'
        )
        self.assertEqual(views.metric(state), 1)


def _reset_all(listening: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listening.accept()
            client.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
