"""Connections of older rules, and of processes that serve no more, go on in a new process, too."""

import contextlib
import os
import re
import signal
import socket

import pytest

from tests.support.echo import EchoServer
from tests.support.kit import PATIENCE, RULES, Service, WorkersTestCase, free_port
from tests.support.proc import is_gone, workers_of

pytestmark = pytest.mark.by_turns(each=True)


class KeepingTest(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.listening = self.backend()

    def begin(self, settings: str = "", more: str = "") -> Service:
        port = self.listening.getsockname()[1]
        self.file_of_rules = (
            f"{RULES}[route first]\nunder = *\nmatch = ssh\nbackend = pool\n"
            f"[backend pool]\nserver = 127.0.0.1:{port}\n{more}"
        )
        return self.upgrading(self.file_of_rules, settings)

    def decided(self, client: socket.socket) -> socket.socket:
        client.sendall(b"SSH-2.0-x\r\n")
        return self.accept_from(self.listening, b"SSH-2.0-x\r\n")

    def test_older_rules(self) -> None:
        """Their route, backend and listener are gone; the log names them, and the limits of the service count them."""
        mux = self.begin()
        client = self.client(mux)
        server = self.decided(client)
        mux.reload(("first", "second"), ("pool", "other"), ("public", "new"))
        match = mux.child.wait_for(r"listening on \S+:(\d+) for \[listen new\]")
        mux.ports = {"new": int(match[1])}
        mux.file.write_text(mux.file.read_text().replace("[txmux]", "[txmux]\nmax_connections = 1"))
        mux.upgrade()
        with mux.connect():
            self.assertEqual(mux.take_one()["reason"], "limit")
        self.all_end([(client, server)])
        line = mux.take_one()
        told = (line["listener"], line["route"], line["backend"], line["reason"])
        self.assertEqual(told, ("public", "first", "pool", "done"))
        with self.client(mux):
            pass
        self.assertEqual(mux.take_one()["reason"], "client-gone")

    def test_timers_are_those_of_the_older_rules(self) -> None:
        mux = self.begin(more="idle_timeout = 3s\n")
        client = self.client(mux)
        server = self.decided(client)
        mux.reload(("idle_timeout = 3s", "idle_timeout = 1h"))
        mux.upgrade()
        self.assertEqual(server.recv(1), b"")
        self.assertEqual(mux.take_one()["reason"], "idle-timeout")
        client.close()

    def test_retiring_worker(self) -> None:
        """One that was not decided stayed in a worker which was not needed any more; when it is relayed, it can be moved."""
        mux = self.begin("workers = 3")
        clients = self.one_for_each(mux, workers_of(mux.pid))
        mux.reload(("workers = 3", "workers = 2"))
        pairs = [(client, self.decided(client)) for client in clients]
        self.assertEqual(len(workers_of(mux.pid)), 3)
        mux.upgrade()
        mux.child.wait_for(f"connections handed over: {len(pairs)}\\b")
        self.all_end(pairs)
        lines = mux.take(len(pairs))
        self.assertEqual({line["reason"] for line in lines}, {"done"})
        self.assertEqual({line["bytes_in"] for line in lines}, {11 + 4})

    def test_drain_removed(self) -> None:
        """Connections of a route that is gone end, though they are moved from a worker that is not needed any more."""
        mux = self.begin("workers = 3\ndrain_removed = yes\ndrain_timeout = 1s")
        for _ in range(9):
            self.decided(self.client(mux))
        mux.reload(("first", "second"), ("workers = 3", "workers = 1"))
        lines = mux.take(9)
        self.assertEqual({line["reason"] for line in lines}, {"drained"})
        self.assertFalse(re.search("Traceback|Unhandled", mux.child.output))

    def test_drain_removed_elsewhere(self) -> None:
        """They end, too, where other workers have them by then: of this process, or of the next one."""
        for goes_on in (Service.upgrade, lambda mux: os.kill(mux.workers[0], signal.SIGTERM)):
            mux = self.begin("workers = 1\ndrain_removed = yes\ndrain_timeout = 8s")
            self.decided(self.client(mux))
            [before] = mux.workers
            mux.reload(("first", "second"))
            goes_on(mux)
            self.assert_gone([before])
            self.assertEqual(mux.take_one()["reason"], "drained")
            mux.stop()


class EndedTest(WorkersTestCase):
    def test_server_that_has_finished(self) -> None:
        """Clients with TLS that ends here, whose last bytes are still in this process, keep no other connection from moving."""
        pem, trusted = self.make_certificate()
        listening = self.backend()
        backend = f"127.0.0.1:{listening.getsockname()[1]}"
        mux = self.upgrading(
            f"{RULES}[route secure]\nmatch = tls\nterminate_tls = {pem}\n"
            f"[route inside]\nmatch = any\nunder = secure\nbackend = {backend}\n"
            f"[route all]\nmatch = any\nbackend = {backend}\n",
            "drain_timeout = 10m",
        )
        pairs = [self.relayed(mux, listening) for _ in range(5)]
        downloads = []
        for size in range(2_400_000, 3_600_000, 100_000):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**12)
            client.settimeout(PATIENCE)
            client.connect(("127.0.0.1", mux.port))
            secure = self.enterContext(trusted.wrap_socket(client, server_hostname="a.example"))
            secure.sendall(b"x")
            server = self.accept_from(listening, b"x")
            server.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                server.sendall(bytes(size))
                downloads.append((secure, size))
            socket.socket.shutdown(secure, socket.SHUT_WR)
            server.close()
        pairs += [self.relayed(mux, listening) for _ in range(5)]
        old = mux.replace()
        mux.child.wait_for(f"connections handed over: {len(pairs)}, in")
        self.assertFalse(all(map(is_gone, old)))
        self.assertNotRegex(mux.child.output, "Traceback|crit")
        self.all_end(pairs)
        for secure, size in downloads:
            received = 0
            while data := secure.recv(2**16):
                received += len(data)
            self.assertEqual(received, size)
            secure.close()
        self.assert_gone(old)


class LeftOutTest(WorkersTestCase):
    """The new rules have less listeners, while a connection keeps the old process."""

    def setUp(self) -> None:
        super().setUp()
        self.local = self.folder / f"{os.urandom(4).hex()}.sock"
        self.port, self.datagrams, self.metrics = free_port(), free_port(), free_port()
        self.left_out = (
            f"[listen gone]\nendpoint = 127.0.0.1:{self.port}\n    unix:{self.local}\n"
            f"[listen packets]\nendpoint = udp:127.0.0.1:{self.datagrams}\n"
        )
        port = self.own(EchoServer()).port
        route = f"[route all]\nunder = *\nmatch = any\nbackend = 127.0.0.1:{port}\n"
        self.ready, self.gate = self.late_upgrade("_have_it_serve", after=True)
        self.service = self.upgrading(
            f"{RULES}{self.left_out}{route}",
            f"workers = 2\ndrain_timeout = 10m\nmetrics = 127.0.0.1:{self.metrics}",
        )
        self.service.ports = {"public": self.service.ports["public"]}
        self.undecided = self.client(self.service)
        self.is_accepted(self.service.pid, self.undecided)
        text = self.service.file.read_text().replace(self.left_out, "")
        self.service.file.write_text(text.replace("metrics", "# metrics"))

    def fate(self, address: tuple[str, int] | str) -> str:
        """Give what becomes of a client that says something, if it need not wait for that."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as client:
            client.settimeout(PATIENCE)
            try:
                client.connect(address)
                client.sendall(b"SSH-2.0-x\r\n")
                return "answered" if client.recv(1) else "ended"
            except (ConnectionError, FileNotFoundError):
                return "refused"
            except TimeoutError:
                return "waits"

    def test_nobody_waits(self) -> None:
        places = (("127.0.0.1", self.port), str(self.local), ("127.0.0.1", self.metrics))
        self.assertEqual(self.fate(places[0]), "answered")
        fates: list[str] = []
        self.service.ask()
        while "waits" not in fates and (len(fates) < 150 or not self.ready.exists()):
            fates += [self.fate(place) for place in places]
        self.gate.touch()
        old = self.service.switched()
        self.service.child.wait_for("upgraded: ")
        self.assertNotIn("waits", {*fates})
        self.assertEqual([self.fate(place) for place in places], ["refused"] * 3)
        self.assertFalse(all(map(is_gone, old)))
        # What is added again does not wait for the old workers.
        self.assertIn("listeners gone, packets opened", self.service.reload((r"\Z", self.left_out)))
        self.assertEqual([self.fate(place) for place in places[:2]], ["answered"] * 2)
        self.undecided.close()
        self.assert_gone(old)
        self.service.stop()
