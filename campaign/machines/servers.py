"""Servers that refuse, hang, say nothing, end at any stage, and send without end."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from campaign.machines.trouble import BAD, TroubleCase, count_sockets
from tests.interop.children import PATIENCE
from tests.interop.mux import Mux
from tests.processes.running import resident
from tests.support.peers import make_stalled_port
from tests.support.ports import free_port

_FLOOD = 2**30
_GROWTH = 8 * 2**20


class Bad:
    """A server that does one thing with each connection.

    Args:
        do: What; it closes the connection if the server shall.

    Attributes:
        do: The same, for those that come.
        port: Where, at 127.0.0.1.
    """

    def __init__(self, do: Callable[[socket.socket], object]) -> None:
        self.do = do
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listening.getsockname()[1]
        self._accepted: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._listening.accept()
                self._accepted.append(accepted)
                threading.Thread(target=self._serve, args=[accepted], daemon=True).start()

    def _serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.do(accepted)

    def end(self) -> None:
        """Accept nobody any more, and leave all that came."""
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for accepted in self._accepted:
            accepted.close()


def reset(connection: socket.socket) -> None:
    """End a connection by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def heard(connection: socket.socket) -> socket.socket:
    """Wait until something has come."""
    connection.recv(100)
    return connection


def half(connection: socket.socket) -> socket.socket:
    """Give half an answer."""
    heard(connection).sendall(b"half")
    return connection


def ended(connection: socket.socket) -> socket.socket:
    """Wait for the client's end."""
    while connection.recv(100):
        pass
    return connection


STAGES: dict[str, Callable[[socket.socket], object]] = {
    "at once": lambda connection: connection,
    "after the first bytes": heard,
    "in the middle of its answer": half,
    "after the client's end": ended,
}
"""Until when a server waits before it ends."""


class ServerTrouble(TroubleCase):
    """What a server does wrong costs its own clients, and nobody else."""

    def outcome(self, client: socket.socket) -> bytes | None:
        """Give what a client hears to the end; ``None`` if that is a reset."""
        client.settimeout(PATIENCE)
        received = b""
        try:
            while data := client.recv(2**16):
                received += data
        except ConnectionError:
            return None
        return received

    def test_refuses(self) -> None:
        """Its port is closed: the client is closed at once, and logged so."""
        for relay in self.relays():
            mux = self.serve(f"relay = {relay}", f"127.0.0.1:{free_port()}")
            for _ in range(10 * self.load):
                self.assertIn(self.outcome(self.connect(mux, BAD)), (b"", None))
            self.assert_recovered(mux)
            self.assert_logged(mux, connect_refused=10 * self.load)

    def test_hangs(self) -> None:
        """It takes no connection: clients wait for connect_timeout, and others are served meanwhile."""
        for relay in self.relays():
            mux = self.serve(f"relay = {relay}", f"127.0.0.1:{make_stalled_port(self)}")
            self.assert_waited_for(mux, "connect_timeout")

    def test_is_silent(self) -> None:
        """It accepts, and says nothing: the relay ends after idle_timeout."""
        silent = self.own(Bad(lambda _: None))
        for relay in self.relays():
            mux = self.serve(f"relay = {relay}", f"127.0.0.1:{silent.port}", idle="1s")
            self.assert_waited_for(mux, "idle_timeout")

    def assert_waited_for(self, mux: Mux, reason: str) -> None:
        """See that clients of a server that does nothing are closed for a reason, and that others are served meanwhile."""
        before = count_sockets(mux.child.pid)
        waiting = [self.connect(mux, BAD) for _ in range(20 * self.load)]
        self.assertTrue(self.is_served(mux))
        for client in waiting:
            self.assertIn(self.outcome(client), (b"", None))
        self.assert_recovered(mux)
        self.assert_logged(mux, **{reason: 20 * self.load})
        self.assert_nothing_open(mux, before)

    def test_ends(self) -> None:
        """It closes or resets at each stage: the client gets what was sent, and its end has the right reason."""
        for relay in self.relays():
            server = self.own(Bad(heard))
            mux = self.serve(f"relay = {relay}", f"127.0.0.1:{server.port}")
            before, resets, self.refused = count_sockets(mux.child.pid), 0, 0
            for stage, wait in STAGES.items():
                for how in ("close", "reset"):
                    self.end_at(mux, server, wait, how, f"{relay}, {how} {stage}")
                    resets += (how == "reset") * 5 * self.load
            self.assert_recovered(mux)
            self.assert_logged(
                mux, server_reset=resets - self.refused, connect_refused=self.refused
            )
            self.assert_nothing_open(mux, before)

    def end_at(
        self, mux: Mux, server: Bad, wait: Callable[[socket.socket], object], how: str, what: str
    ) -> None:
        """Have a server end at one stage, and look at what its clients are told."""

        def do(connection: socket.socket) -> None:
            wait(connection)
            if how == "reset":
                reset(connection)
            else:
                connection.shutdown(socket.SHUT_WR)
                ended(connection)
                connection.close()

        server.do = do
        for _ in range(5 * self.load):
            client = self.connect(mux, BAD)
            if wait is ended:
                client.shutdown(socket.SHUT_WR)
            got = self.outcome(client)
            client.close()
            if how == "close":
                self.assertEqual(got, b"half" if wait is half else b"", what)
            elif not what.endswith(", reset at once") or got is None:
                # What was sent before may be lost with it; an end in order would be a lie.
                self.assertIsNone(got, what)
            else:
                # It was over before anybody saw that it was established: no server took the client.
                self.assertEqual(got, b"")
                self.refused += 1

    def test_floods(self) -> None:
        """It sends a gigabyte to a client that does not read: the service's memory stays as it is."""

        def flood(connection: socket.socket) -> None:
            heard(connection)
            piece = bytes(2**20)
            for _ in range(_FLOOD // len(piece)):
                connection.sendall(piece)

        for relay in self.relays():
            server = self.own(Bad(flood))
            mux = self.serve(f"relay = {relay}", f"127.0.0.1:{server.port}")
            worker, sockets = self.worker(mux), count_sockets(mux.child.pid)
            memory = resident(worker)
            deaf = [self.connect(mux, BAD) for _ in range(4 * self.load)]
            for client in deaf:
                self.assertEqual(client.recv(1), b"\0")
            for _ in range(50):
                self.assertTrue(self.is_served(mux))
            self.assertLess(resident(worker) - memory, _GROWTH * self.load)
            for client in deaf:
                client.close()
            self.assert_recovered(mux)
            self.assert_logged(mux)
            self.assert_nothing_open(mux, sockets)
