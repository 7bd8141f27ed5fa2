"""A peer that does not read stops the other one, at next to no memory; and clients that break off at once."""

import re
import select
import socket
import struct
import time
from itertools import product
from pathlib import Path
from unittest import SkipTest

from tests.interop.children import PATIENCE, InteropTestCase, eventually
from tests.interop.servers import files_site, start_nginx
from tests.support.echo import ThreadServer
from tests.support.ports import free_port
from tests.support.queues import until_taken
from tests.support.services import Service
from txmux.client.socket_options import keepalive_options
from txmux.net.sockets.plainsocket import set_options

_RULES = """
[route to-nginx]
match   = http
backend = 127.0.0.1:{nginx}

[route to-test]
match   = any
backend = 127.0.0.1:{test}
"""

_MIB = 2**20

_STILL = 0.3
"""Seconds without any work, after which things are taken to stand still."""


class StalledTests(InteropTestCase):
    """A file of 1 GiB that nobody reads, and an upload that nobody takes."""

    def setUp(self) -> None:
        """Start the servers and txmux, and let it serve a connection of each kind, which warms it up."""
        if not Path("/proc/self/status").exists():
            raise SkipTest("this system does not tell how much memory a process has")
        self.backend = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.backend.close)
        self.backend.settimeout(PATIENCE)
        for name, size in (("big", 1024 * _MIB), ("small", _MIB)):
            with (self.folder / name).open("wb") as file:
                file.truncate(size)
        nginx = free_port()
        self.own(start_nginx(self.folder, files_site(nginx, self.folder)))
        test = self.backend.getsockname()[1]
        self.mux = self.own(Service(self.folder, _RULES.format(nginx=nginx, test=test)))
        with self.mux.connect() as client:
            client.sendall(b"GET /small HTTP/1.0\r\n\r\n")
            self.assertGreater(len(_read(client)), _MIB)
        with self.mux.connect() as client:
            client.sendall(bytes(_MIB // 4))
            client.shutdown(socket.SHUT_WR)
            with self.backend.accept()[0] as taker:
                self.assertEqual(len(_read(taker)), _MIB // 4)
        self.mux.take(2)
        self.before = self.resident()

    def status(self, field: str) -> int:
        text = Path(f"/proc/{self.mux.child.pid}/status").read_text()
        match = re.search(rf"^{field}:\s+(\d+)", text, re.MULTILINE)
        assert match is not None
        return int(match[1])

    def resident(self) -> int:
        """Wait until txmux has nothing to do, and give its resident memory in bytes."""

        def still() -> bool:
            before = self.status("voluntary_ctxt_switches")
            time.sleep(_STILL)
            return self.status("voluntary_ctxt_switches") == before

        eventually(still, "txmux stands still")
        return self.status("VmRSS") * 1024

    def assert_no_growth(self) -> None:
        grown = self.resident() - self.before
        self.assertLessEqual(grown, 2 * _MIB)

    def test_unread_download_stops_the_server(self) -> None:
        with self.mux.connect() as client:
            client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
            self.assert_no_growth()
            with client.makefile("rb") as stream:
                self.assertEqual(len(stream.read(64 * _MIB)), 64 * _MIB)
            self.assert_no_growth()
        self.assertEqual(self.mux.take_one()["reason"], "client-reset")

    def test_unread_upload_stops_the_client(self) -> None:
        piece = bytes(range(256)) * 256
        sent = 0
        with self.mux.connect() as client:
            client.setblocking(False)  # noqa: FBT003 - the socket module's signature
            while select.select([], [client], [], _STILL)[1]:
                sent += client.send(piece[sent % len(piece) :])
            self.assert_no_growth()
            client.shutdown(socket.SHUT_WR)
            with self.backend.accept()[0] as taker:
                received = _read(taker)
        self.assertEqual(len(received), sent)
        self.assertEqual(received, (piece * (sent // len(piece) + 1))[:sent])
        self.assertEqual(self.mux.take_fields("bytes_in", "reason"), (sent, "done"))


def _read(stream: socket.socket) -> bytes:
    with stream.makefile("rb") as file:
        return file.read()


_BREAKING = 200
_EARLY = (("[route all]\nmatch = any\nbackend = {}\n", b"hello"), ("default = {}\n", b""))
_RESET = struct.pack("ii", 1, 0)
# A reset that gets lost is not sent again: whoever has not heard of it must ask.
_ASKING = "idle=1s interval=1s count=2"
_ASKS = keepalive_options(1, 1, 2)


class _Server(ThreadServer):
    orderly = 0

    def __init__(self) -> None:
        super().__init__(self._note)

    def _note(self, accepted: socket.socket) -> None:
        set_options(accepted, _ASKS)
        while accepted.recv(100):
            pass
        self.orderly += 1


class EarlyResetTests(InteropTestCase):
    """No server may take a broken stream for a whole one, however early it broke."""

    def test_broken_before_or_after_the_first_byte(self) -> None:
        for relay, (route, said) in product(("kernel", "portable"), _EARLY):
            server = self.own(_Server())
            listen = f"[listen public]\nendpoint = 127.0.0.1:0\nkeepalive = {_ASKING}\n"
            rules = f"{listen}{route.format(f'127.0.0.1:{server.port}')}"
            mux = self.own(Service(self.folder, rules, f"relay = {relay}"))
            for _ in range(_BREAKING):
                with mux.connect() as client:
                    client.sendall(said)
                    # A reset that overtakes what is before it leaves a connection that is never accepted.
                    until_taken(client)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            reasons = {line["reason"] for line in mux.take(_BREAKING)}
            self.assertLessEqual(reasons, {"client-reset", "client-gone"})
            server.wait(20)
            self.assertEqual(server.orderly, 0, (relay, route, said))
