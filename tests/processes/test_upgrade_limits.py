"""Limits hold while connections are on their way to a new process."""

import contextlib
import os
import select
import signal
import socket
import ssl
import time
from pathlib import Path

import pytest

from tests.processes.running import with_more
from tests.support.echo import EchoServer
from tests.support.kit import PATIENCE, RULES, Service, WorkersTestCase, eventually, set_limits
from tests.support.proc import halted

pytestmark = pytest.mark.by_turns(each=True)
_DRAINED = 4.0
"""Seconds after which a service has ended all connections that it does not spare, with a `drain_timeout` of 2 seconds."""
_FEW = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
_UNPRIVILEGED = (
    *_FEW,
    *(("setpriv", "--bounding-set=-sys_resource,-sys_admin") * (os.geteuid() == 0)),
)


class StayingTest(WorkersTestCase):
    """Connections with TLS that ends here stay, upgrade after upgrade, and count."""

    def begin(self, settings: str, **limits: str) -> Service:
        """Start a service with a listener for each limit: of its own, or of its backend."""
        pem, self.trusted = self.make_certificate()
        server = f"server = 127.0.0.1:{self.own(EchoServer()).port}"
        self.open: dict[str, list[ssl.SSLSocket]] = {}
        rules = ""
        for name, limit in limits.items():
            self.open[name] = []
            of_backend = name in {"backend", "server"}
            rules += (
                f"[listen {name}]\nendpoint = 127.0.0.1:0\n{limit * (not of_backend)}\n"
                f"[route tls-{name}]\nunder = {name}\nmatch = tls\nterminate_tls = {pem}\n"
                f"[route in-{name}]\nunder = tls-{name}\nmatch = any\nbackend = {name}\n"
                f"[backend {name}]\n{server}{limit * of_backend}\n"
            )
        return self.upgrading(rules, f"drain_timeout = 10m\n{settings}")

    def enter(self, mux: Service, name: str) -> bool:
        """Connect, and return whether the client is served."""
        client = socket.create_connection(("127.0.0.1", mux.ports[name]), PATIENCE)
        try:
            secure = self.trusted.wrap_socket(client, server_hostname="a.example")
        except OSError:
            client.close()
            return False
        self.addCleanup(secure.close)
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            secure.sendall(b"x")
            if secure.recv(1):
                self.open[name].append(secure)
                return True
        secure.close()
        return False

    def leave(self, name: str) -> None:
        secure = self.open[name].pop(0)
        secure.sendall(b"y")  # it is served to its end
        self.assertEqual(secure.recv(1), b"y")
        secure.close()

    def test_limits(self) -> None:
        """Services that are full are upgraded again and again: there never is room for more."""
        most = "max_connections = 3"
        for settings, limits in (
            (most, {"service": ""}),
            ("workers = 2", {"listener": most, "source": "max_connections_per_source = 3"}),
            ("", {"backend": f"\n{most}", "server": " max_connections=3"}),
        ):
            mux = self.begin(settings, **limits)
            for _ in range(2):
                for name in limits:
                    while len(self.open[name]) < 3:
                        eventually(lambda: self.enter(mux, name), "there is room")  # noqa: B023
                    self.assertFalse(self.enter(mux, name))
                mux.replace()
                for name in limits:
                    self.assertFalse(self.enter(mux, name))
                    self.leave(name)
                    eventually(lambda: self.enter(mux, name), "there is room")  # noqa: B023
                    self.assertFalse(self.enter(mux, name))
                    self.leave(name)
            for name, left in self.open.items():
                while left:
                    self.leave(name)

    def test_limit_of_a_server_in_a_worker_that_retires(self) -> None:
        """The one that takes its place counts what stays in it."""
        mux = self.begin("", server=" max_connections=3")
        for _ in range(3):
            self.assertTrue(self.enter(mux, "server"))
        (old,) = mux.workers
        os.kill(old, signal.SIGTERM)
        mux.child.wait_for("worker 2 takes its place")
        eventually(lambda: len(mux.workers) == 2, "another worker serves")
        with halted({old}):
            for _ in range(3):
                self.assertFalse(self.enter(mux, "server"))
        self.leave("server")
        eventually(lambda: self.enter(mux, "server"), "there is room")
        self.assertFalse(self.enter(mux, "server"))


class DescriptorsTest(WorkersTestCase):
    """What moves has its room before clients that wait, where descriptors are few."""

    def test_streams_for_which_there_is_no_room(self) -> None:
        """They outlast `drain_timeout` in the old process, and move when others have ended."""
        set_limits(self, {"processes.upgrade.worker_transfers._STILL": 1})
        settings = "drain_timeout = 2s\nworkers = 2"
        mux, listening = self.start_relaying(settings, before=_FEW)
        workers = mux.workers
        pairs = []
        for worker in workers:
            with halted({*workers} - {worker}):
                pairs += [self.relayed(mux, listening) for _ in range(80)]
        mux.file.write_text(mux.file.read_text().replace("workers = 2", "workers = 1"))
        old = mux.replace()
        mux.child.wait_for("draining connections: ")
        began = time.monotonic()
        for pair in pairs:
            self.answers(*pair)
        eventually(lambda: time.monotonic() - began > _DRAINED, "it would have ended them")
        for pair in pairs:
            self.answers(*pair)
        for pair in pairs[::2]:
            self.over(*pair)
        self.assert_gone(old)
        self.all_end(pairs[1::2])
        self.assertEqual({line["reason"] for line in mux.take(len(pairs))}, {"done"})

    def test_streams_before_clients_that_wait(self) -> None:
        mux, listening = self.start_relaying("drain_timeout = 2s", before=_FEW)
        pairs = [self.relayed(mux, listening) for _ in range(80)]
        waiting = [self.client(mux) for _ in range(60)]
        for client in waiting:
            client.sendall(b"x")
        mux.child.wait_for("cannot accept: ")
        mux.ask()
        old = mux.switched()
        mux.child.wait_for("connections handed over: ")
        self.assert_gone(old)
        for pair in pairs:
            self.answers(*pair)
            self.over(*pair)
        for client, server in [(one, self.accept_from(listening, b"x")) for one in waiting]:
            client.shutdown(socket.SHUT_WR)
            server.shutdown(socket.SHUT_WR)
        lines = mux.take(len(pairs) + len(waiting))
        self.assertEqual({line["reason"] for line in lines}, {"done"})


class InFlightTest(WorkersTestCase):
    def test_no_worker_is_killed_for_what_it_was_not_asked(self) -> None:
        """Another process of the user, such as a worker that was taken over, can have as many on their way for as long as it likes."""
        set_limits(self, {"processes.liveness.MOST_SILENT": 2})
        rules = "[listen x]\nendpoint = 127.0.0.1:0\n"
        mux = self.upgrading(rules, "workers = 2", before=_UNPRIVILEGED)
        before = mux.workers
        own, other = socket.socketpair()
        with own, other, Path(os.devnull).open("rb") as file:
            for _ in range(3):
                socket.send_fds(own, [b"x"], [file.fileno()] * 200)
            mux.ask_to_reload(with_more(rules.replace("x", "y")))
            for number in (1, 2):
                mux.child.wait_for(f"nothing could be sent to worker {number} for 2 s")
        mux.child.wait_for("rules reloaded")
        self.assertEqual(mux.workers, before)

    def test_more_sockets_for_all_workers_than_may_be_on_their_way_at_once(self) -> None:
        """Linux bounds them by user, unless a process may exceed limits (unix(7), ETOOMANYREFS)."""
        rules = "".join(f"[listen {number}]\nendpoint = 127.0.0.1:0\n" for number in range(60))
        mux = self.upgrading(rules, "workers = 8", before=_UNPRIVILEGED)
        mux.upgrade()
        mux.reload((r"\Z", "detect_timeout = 9s\n"))
        mux.stop()
        self.assertNotRegex(mux.output, "cannot be started|before it had served|ended")

    def test_many_backends_whose_clients_count(self) -> None:
        sites = range(1, 4000)
        rules = "".join(
            f"[route {number}]\nmatch = tls sni={number}.example\nbackend = 127.0.0.2:{number}\n"
            for number in sites
        )
        mux = self.upgrading(f"[listen x]\nendpoint = 127.0.0.1:0\n{rules}", "drain_timeout = 1s")
        mux.upgrade()

    def test_of_a_server_while_a_worker_serves_again(self) -> None:
        """A connection that went to another worker still counts here when this one serves again, since clients may wait here for its place."""
        listening = self.backend()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        mux = self.upgrading(
            f"{RULES}[route all]\nmatch = any\nbackend = b\n"
            f"[backend b]\nserver = {address}\nmax_connections = 1\nqueue = 5\nconnect_timeout = 10m\n",
            "workers = 2\ndrain_timeout = 10m",
            admin=True,
        )
        workers = mux.workers
        relayed = self.one_for_each(mux, workers)
        undecided = self.one_for_each(mux, workers)  # each keeps its worker
        peers = [self.relayed(mux, listening, client) for client in relayed]
        mux.reload(("workers = 2", "workers = 1"))
        asked = "connections?state=relaying"
        eventually(lambda: len({one["worker"] for one in mux.api(asked)}) == 1, "one has moved")
        mux.reload(("workers = 1", "workers = 2"))
        self.assertEqual(mux.workers, workers)
        for client in undecided:
            client.sendall(b"a")
            name = "{}:{}".format(*client.getsockname())
            eventually(
                lambda n=name: f"'client': '{n}'" in str(mux.api("connections?state=connecting")),  # type: ignore[misc]
                "it waits",
            )
        self.assertEqual(select.select([listening], [], [], 0)[0], [], "one more is led there")
        for pair in peers:
            self.over(*pair)
        servers = [self.accept_from(listening, b"a") for _ in undecided]  # in either order
        for client in undecided:
            client.close()
        for server in servers:
            self.assertEqual(server.recv(1), b"")
            server.close()
        self.assertEqual({line["reason"] for line in mux.take(4)}, {"done"})
