"""What has only begun when another process takes the place is served whole by the old one."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.processes.handshake import Handshake
from tests.processes.running import is_gone
from tests.processes.test_upgrade import UpgradeTestCase
from tests.support.certificates import make_authority
from txmux.cli.remote.ask import ask
from txmux.cli.remote.find import AdminEndpoint, UnixAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.processes.upgrading import Upgrading

_HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n"


class PendingTest(UpgradeTestCase):
    """Half a PROXY header, half a hello of TLS that ends here, and half of what a route asks for."""

    def test_served(self) -> None:
        """All three are decided and served as the rules of the old process say, which ends after them."""
        admin = self.folder / "admin.sock"
        authority = make_authority()
        ca = authority.write(self.folder / "ca.pem")
        pem = authority.issue("a.example").write(self.folder / "a.pem", key=True)
        listening = self.backend()
        backend = f"127.0.0.1:{listening.getsockname()[1]}"
        mux = self.upgrading(
            "[listen public]\nendpoint = 127.0.0.1:0\naccept_proxy_from = 127.0.0.2\n"
            "proxy_timeout = 10m\ndetect_timeout = 10m\n"
            f"[route secure]\nmatch = tls\nterminate_tls = {pem}\n"
            f"[route ssh]\nmatch = ssh\nbackend = {backend}\n"
            f"[route inside]\nmatch = any\nunder = secure\nbackend = {backend}\n",
            f"workers = 2\ndrain_timeout = 10m\nadmin = unix:{admin}",
        )
        handshake = Handshake(str(ca))
        hello = handshake.hello()
        clients = [
            self.begun(mux, said, source)
            for said, source in (
                (_HEADER[:20], "127.0.0.2"),
                (hello[:100], "127.0.0.1"),
                (b"SS", "127.0.0.1"),
            )
        ]
        place = AdminEndpoint(UnixAddress(admin), "", "")

        def undecided() -> int:
            return int(ask(place, "GET", "/api/status")["connections"]["undecided"])

        eventually(lambda: undecided() == len(clients), "all have been accepted")
        mux.ask()
        old = mux.switched()
        mux.child.wait_for("connections handed over: 0")
        self.assertFalse(is_gone(old))
        proxied, secure, plain = clients
        proxied.sendall(_HEADER[20:] + b"SSH-2.0-x\r\n")
        self.assert_answered(listening, b"SSH-2.0-x\r\n", lambda: proxied.recv(100))
        plain.sendall(b"H-2.0-y\r\n")
        self.assert_answered(listening, b"SSH-2.0-y\r\n", lambda: plain.recv(100))
        secure.sendall(hello[100:])
        handshake.finish(secure)
        handshake.say(secure, b"z")
        self.assert_answered(listening, b"z", lambda: handshake.hear(secure))
        for client in clients:
            client.recv(
                4096
            )  # the server's end; what is not read would make a reset of the client's
            client.close()
        eventually(lambda: is_gone(old), "the old process has ended")
        lines = mux.take(3)
        self.assertEqual(
            sorted((line["client"].partition(":")[0], line["route"]) for line in lines),
            [("127.0.0.1", "inside"), ("127.0.0.1", "ssh"), ("192.0.2.7", "ssh")],
        )
        self.assertEqual({line["reason"] for line in lines}, {"done"})
        mux.stop()

    def begun(self, mux: Upgrading, said: bytes, source: str) -> socket.socket:
        """Connect a client from an address that has said this."""
        client = socket.create_connection(("127.0.0.1", mux.port), 60, (source, 0))
        self.addCleanup(client.close)
        client.sendall(said)
        return client

    def assert_answered(
        self, listening: socket.socket, said: bytes, heard: Callable[[], bytes]
    ) -> None:
        """See that the server hears this, and that the client hears what it answers."""
        server, _ = listening.accept()
        with server:
            server.settimeout(60)
            self.assertEqual(server.recv(len(said), socket.MSG_WAITALL), said)
            server.sendall(b"answer")
            self.assertEqual(heard(), b"answer")
