"""Clients that wait for a server, over reloads, workers and upgrades."""

import contextlib
import socket
import ssl

import pytest

from tests.processes.running import customize
from tests.support.kit import PATIENCE, RULES, Service, WorkersTestCase, eventually, free_port
from tests.support.proc import connecting_to, is_gone
from txmux.net.sockets.plainsocket import reset_on_close

pytestmark = pytest.mark.by_turns(each=True)
_ENDS_LATE = """
import os

from txmux.serving.ending import GradualEnd

end = GradualEnd._end


def late(self, identities):
    if os.path.exists({gate!r}):
        end(self, identities)
    else:
        self.call_later(0.01, lambda: late(self, identities))


GradualEnd._end = late
"""
"""Has who was served stay until a file is there, so that no time is too short for an answer."""


def break_off(client: socket.socket) -> None:
    reset_on_close(client)
    client.close()


def _is_reset(client: ssl.SSLSocket) -> bool:
    """Wait for a reset, which `ssl` reports as an end before Python 3.12.3."""
    with contextlib.suppress(ConnectionResetError):
        return client.recv(1) == b""
    return True


class HeldTests(WorkersTestCase):
    def begin(self, backend: str, settings: str = "", *, default: str = "pool") -> Service:
        self.place = free_port()
        rules = (
            f"{RULES}default = {default}\n"
            f"[backend pool]\nserver = 127.0.0.1:{self.place}\n{backend}\n"
        )
        self.mux = self.upgrading(rules, settings, admin=True)
        return self.mux

    def waiting(self, count: int) -> None:
        eventually(lambda: self.mux.api("backends")[0]["held"] == count, f"{count} wait")

    def say(self, mux: Service, said: bytes) -> socket.socket:
        client = self.client(mux)
        client.sendall(said)
        return client

    def come_up(self) -> socket.socket:
        server = self.enterContext(socket.create_server(("127.0.0.1", self.place), backlog=100))
        server.settimeout(PATIENCE)
        return server

    def served(self, clients: list[socket.socket], server: socket.socket) -> None:
        for _ in clients:
            self.accept_from(server, b"x").close()
        for client in clients:
            self.assertEqual(client.recv(1), b"")
            client.close()

    def test_upgrade_moves_clients_that_wait(self) -> None:
        first = f"[backend first]\nserver = 127.0.0.1:{free_port()}\nhold = 3s\nfallback = pool"
        mux = self.begin(f"hold = 10m\n{first}", default="first")
        clients = [self.say(mux, b"%d" % number) for number in range(3)]
        self.waiting(3)
        clients[0].shutdown(socket.SHUT_WR)
        mux.upgrade()  # the old process has ended
        self.waiting(3)
        clients[2].sendall(b"more")
        break_off(clients[1])
        self.waiting(2)
        server = self.come_up()
        for number, said in ((2, b"2more"), (0, b"0")):
            end = self.accept_from(server, said)
            if number == 0:
                self.assertEqual(end.recv(1), b"")
                end.sendall(b"answer")
                self.assertEqual(clients[number].recv(6), b"answer")
            else:
                self.answers(clients[number], end)
            clients[number].close()
            end.close()
        lines = mux.take(3)
        self.assertEqual(sorted(line["reason"] for line in lines), ["client-gone", "done", "done"])
        self.assertEqual(sorted(line["bytes_in"] for line in lines), [1, 1, 5 + 4])
        for line in lines:  # in both lines, and both processes
            waited = line["connect_ms"] or line["duration_ms"]
            self.assertLess(abs(float(line["facts"]["held"][:-1]) - waited / 1000), 0.5)

    def test_upgrade_moves_clients_whose_turn_it_is(self) -> None:
        """A try at a server that does not answer takes long; it is broken off, and the client goes on in its place."""
        mux = self.begin("hold = 10m\nconnect_timeout = 5m")
        mux.api("backends/pool/hold", {})
        clients = [self.say(mux, b"x") for _ in range(2)]
        self.waiting(2)
        server = self.enterContext(socket.create_server(("127.0.0.1", self.place), backlog=0))
        full = [socket.socket() for _ in range(3)]  # more than its queue holds
        for filling in full:
            self.addCleanup(filling.close)
            filling.settimeout(0)
            filling.connect_ex(server.getsockname())
        mux.api("backends/pool/release", {})
        eventually(lambda: connecting_to(self.place) == len(full), "the first client tries it")
        mux.upgrade()
        self.waiting(2)
        for closed in (*full, server):
            closed.close()
        self.served(clients, self.come_up())
        self.assertEqual({line["reason"] for line in mux.take(2)}, {"done"})

    def test_reload_while_clients_wait_moves_their_server(self) -> None:
        for is_kept in (True, False):
            with self.subTest(is_kept=is_kept):
                mux = self.begin("# none", "workers = 2")
                old, new = self.come_up(), self.backend()
                place, hold = new.getsockname()[1], "backends/pool"
                self.mux.api(f"{hold}/hold", {"seconds": 3600})
                clients = [self.say(mux, b"x") for _ in range(6)]
                self.waiting(6)
                rules = f"default = pool\n[backend pool]\nserver = 127.0.0.1:{place}\n"
                other = rules if is_kept else f"default = 127.0.0.1:{place}\n"
                said = mux.reload((r"default = pool(?s:.*)", other))
                self.assertIn("rules reloaded", said)
                (waiting,) = mux.attention()
                self.assertIn("6 clients wait", waiting["text"])
                self.mux.api(f"{hold}/release", {})
                self.served(clients, new if is_kept else old)
                for line in mux.take(6):
                    self.assertEqual((line["reason"], line["backend"]), ("done", "pool"))
                    self.assertIn("held", line["facts"])
                mux.stop()

    def test_upgrade_waits_for_clients_that_cannot_move(self) -> None:
        """They end `drain_timeout` after they were served, or the service stopped, however many upgrades follow."""
        pem, trusted = self.make_certificate()
        other, gate = self.backend(), self.folder / "gate"
        customize(self, _ENDS_LATE.format(gate=str(gate)))
        secure = (
            f"[route secure]\nmatch = tls\nterminate_tls = {pem}\n[route inside]\nunder = secure\n"
            f"match = payload text=2\nbackend = 127.0.0.1:{other.getsockname()[1]}"
        )
        for how in ("hold", "release", "end", "stop"):
            hold = "hold = 10m" if how == "hold" else "retries = 2"
            mux = self.begin(f"{hold}\n{secure}", "workers = 2\ndrain_timeout = 1s")
            if how != "hold":
                server = self.come_up()
                self.mux.api("backends/pool/hold", {"seconds": 3600})
            held, relayed = (
                trusted.wrap_socket(self.client(mux), server_hostname="a.example") for _ in range(2)
            )
            held.sendall(b"1")
            relayed.sendall(b"2")
            self.waiting(1)
            self.accept_from(other, b"2")
            old = [*mux.replace(), *(mux.replace() if how == "hold" else ())]
            mux.child.wait_for(f"upgraded: process {mux.pid}")
            self.assertTrue(_is_reset(relayed))  # `drain_timeout` is over
            self.assertEqual(mux.take_fields("reason"), ("drained",))
            self.assertFalse(all(map(is_gone, old)))
            self.waiting(1)
            (attention,) = mux.attention("hold")
            self.assertIn(": 1 client waits", attention["text"])
            if how == "hold":
                server = self.come_up()
            elif how == "end":
                self.mux.api("backends/pool/hold", {"seconds": 1})
            elif how == "release":
                self.mux.api("backends/pool/release", {})
            else:
                mux.terminate()
            if how != "stop":
                self.answers(held, self.accept_from(server, b"1"))
            gate.touch()
            self.assertTrue(_is_reset(held))
            self.assertEqual(mux.take_fields("reason"), ("drained",))
            self.assert_gone(old)
            mux.stop()
            ends = mux.output.count("backend pool: the hold by an operator has ended")
            self.assertEqual(ends, how == "end")
            held.close()
            relayed.close()
            gate.unlink()

    def test_limit_counts_all_workers_and_those_of_the_process_before(self) -> None:
        mux = self.begin("hold = 10m\nhold_limit = 3", "workers = 2")

        def refused(count: int) -> None:
            for _ in range(count):
                self.addCleanup(self.say(mux, b"x").close)
            self.assertEqual({line["reason"] for line in mux.take(count)}, {"limit"})

        clients = []
        for number in range(3):
            clients.append(self.say(mux, b"x"))
            self.waiting(number + 1)
        refused(4)
        mux.upgrade()
        self.waiting(3)
        refused(4)
        break_off(clients.pop())
        mux.take_one()
        self.waiting(2)
        clients.append(self.say(mux, b"x"))
        self.waiting(3)
        refused(2)
        self.served(clients, server := self.come_up())
        mux.take(3)
        # Rules without `hold` have one try more, and then the fallback.
        server.close()
        other = self.backend()
        fallback = f"127.0.0.1:{other.getsockname()[1]}"
        mux.reload(("hold_limit = 3", f"fallback = {fallback}"))
        client = self.say(mux, b"x")
        self.waiting(1)
        mux.edit(("hold = 10m\n", ""))
        mux.upgrade()
        end = self.accept_from(other, b"x")
        self.answers(client, end)
        client.close()
        end.close()
        line = mux.take_one()
        self.assertEqual((line["reason"], line["server"]), ("done", fallback))
