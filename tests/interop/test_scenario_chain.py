"""`chain`: three services, one behind the other, with nginx and OpenSSH at the end."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import PATIENCE, output_of
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import make_certificate, proxied_site, start_nginx, start_sshd

if TYPE_CHECKING:
    from tests.interop.mux import Record

_NAME = "www.example.com"
_PUBLIC = "192.0.2.1"
_CLIENT = "203.0.113.7"
_SOURCES = tuple(f"10.0.{machine}.{number}" for machine in (1, 2) for number in (1, 2, 3))
_PORTS = 20
_SILENT = 4
"""Seconds after which who says nothing is silent."""


class ChainTests(ScenarioTestCase):
    """The example files, but for the patience of the last one."""

    addresses = (_CLIENT, *(f"192.0.2.{number}" for number in (1, 2, 3)), *_SOURCES)
    chain: ClassVar[list[Example]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.network.set("ipv4/ip_local_port_range", f"40000 {40000 + _PORTS - 1}")
        cls.certificate = make_certificate(cls.folder, _NAME)
        cls.share(
            start_nginx(cls.folder, proxied_site(cls.certificate, "$remote_addr $remote_port"))
        )
        cls.ssh = cls.share(start_sshd(cls.folder, 22))
        # On a busy machine, who speaks may need more than a second.
        patient = (EXAMPLES / "chain" / "last.ini").read_text()
        last = cls.folder / "last.ini"
        last.write_text(re.sub(r"(?<=detect_timeout).*", f" = {_SILENT}s", patient))
        files = [EXAMPLES / "chain" / f"{name}.ini" for name in ("middle", "first")]
        cls.chain = [cls.share(Example(file)) for file in (last, *files)]

    def take(self, count: int = 1) -> list[list[Record]]:
        return [mux.take(count) for mux in reversed(self.chain)]

    def test_site(self) -> None:
        """The site knows the client's address; all three logs have it, and the last two the first one's ID."""
        said = output_of(
            *("curl", "-q", "-sS", "--cacert", self.certificate.chain, "--interface", _CLIENT),
            *("--resolve", f"{_NAME}:443:{_PUBLIC}", f"https://{_NAME}/"),
        ).decode()
        first, middle, last = (lines[0] for lines in self.take())
        self.assertEqual(first["client"], said.strip().replace(" ", ":"))
        self.assertTrue(first["client"].startswith(f"{_CLIENT}:"))
        self.assertEqual((last["route"], last["backend"]), ("site", "web"))
        for line in (middle, last):
            self.assertEqual(line["client"], first["client"])
            self.assertEqual(line["facts"]["unique_id"], first["id"])

    def test_ssh(self) -> None:
        """An SSH client is let in by its own network; another one is not, whether it speaks or is silent."""
        options = (*self.ssh.options, "-p", "443")
        said = output_of("ssh", *options, "-b", _CLIENT, _PUBLIC, "echo hello")
        self.assertEqual(said, b"hello\n")
        self.assertEqual(self.take()[-1][0]["route"], "ssh")
        for said, reason in ((b"SSH-2.0-stranger\r\n", "no-route"), (b"", "silent")):
            with socket.create_connection((_PUBLIC, 443), PATIENCE, ("192.0.2.2", 0)) as stranger:
                stranger.sendall(said)
                self.assertEqual(stranger.recv(1), b"")
            self.assertEqual(self.take()[-1][0]["reason"], reason)

    def test_silent(self) -> None:
        """A client that says nothing is led on at once by the first two, and by the last one to its SSH server."""
        with socket.create_connection((_PUBLIC, 443), PATIENCE, (_CLIENT, 0)) as client:
            self.assertEqual(client.recv(8), b"SSH-2.0-")
        first, middle, last = (lines[0] for lines in self.take())
        for line in (first, middle):
            self.assertLess(float(line["detect_ms"]), 1000 * _SILENT)
        self.assertGreaterEqual(float(last["detect_ms"]), 1000 * _SILENT - 1)
        self.assertEqual((last["route"], last["server"]), ("-", "127.0.0.1:22"))

    def test_ports(self) -> None:
        """Each hop has more connections at once than one address has ports, and takes its addresses in turn."""
        secure = ssl.create_default_context(cafile=self.certificate.chain)
        count = 2 * _PORTS + 5
        with contextlib.ExitStack() as clients:
            for number in range(count):
                port = 20_000 + number
                plain = socket.create_connection((_PUBLIC, 443), PATIENCE, (_CLIENT, port))
                client = clients.enter_context(secure.wrap_socket(plain, server_hostname=_NAME))
                client.sendall(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
                self.assertIn(f"{_CLIENT} {port}\n".encode(), client.recv(4096))
        _, middle, last = self.take(count)
        for lines, machine in ((middle, 1), (last, 2)):
            peers = [line["facts"]["proxy_peer"].rpartition(":")[0] for line in lines]
            for number in (1, 2, 3):
                self.assertEqual(peers.count(f"10.0.{machine}.{number}"), count // 3)
