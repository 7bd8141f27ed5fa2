"""OpenSSH through txmux: logins, and clients that let the server speak first."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from tests.interop.children import PATIENCE, InteropTestCase, output_of, run
from tests.interop.mux import Mux
from tests.interop.servers import start_sshd

_RULES = """
[listen public]
endpoint       = 127.0.0.1:0
detect_timeout = 1h

[listen silent]
endpoint       = 127.0.0.1:0
detect_timeout = 200ms
silent         = ssh-server

[route ssh]
match   = ssh software=OpenSSH_*
backend = ssh-server

[backend ssh-server]
server = 127.0.0.1:{port}
"""


class OpenSshTests(InteropTestCase):
    """One SSH server, reached through one listener, and by those who say nothing through another."""

    port: ClassVar[int]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ssh = cls.share(start_sshd(cls.folder))
        cls.mux = cls.share(Mux(cls.folder, _RULES.format(port=cls.ssh.port)))
        cls.port = cls.mux.ports["public"]

    def command(self, command: str, stdin: bytes = b"") -> bytes:
        port = str(self.port)
        return output_of("ssh", *self.ssh.options, "-p", port, "127.0.0.1", command, stdin=stdin)

    def test_login(self) -> None:
        """A login by key runs a command, with its input, output and exit status; each connection is one line in the log."""
        self.assertEqual(self.command("tr a-z A-Z", b"hello\n"), b"HELLO\n")
        port = str(self.port)
        done = run("ssh", *self.ssh.options, "-p", port, "127.0.0.1", "exit 7")
        self.assertEqual(done.returncode, 7)
        lines = self.mux.take(2)
        for line in lines:
            self.assertEqual(
                (line["listener"], line["route"], line["backend"], line["server"]),
                ("public", "ssh", "ssh-server", f"127.0.0.1:{self.ssh.port}"),
            )
            self.assertEqual((line["reason"], line["local"]), ("done", f"127.0.0.1:{port}"))
            self.assertRegex(line["client"], r"^127\.0\.0\.1:\d+$")
            self.assertGreater(line["bytes_in"], 0)
            self.assertGreater(line["bytes_out"], 0)
            self.assertGreaterEqual(
                line["duration_ms"], line["detect_ms"] + line["connect_ms"] - 0.2
            )
            self.assertRegex(line["facts"]["software"], "^OpenSSH_")
        self.assertNotEqual(lines[0]["id"], lines[1]["id"])

    def test_several_at_once(self) -> None:
        inputs = [os.urandom(2**20) for _ in range(8)]
        with ThreadPoolExecutor(len(inputs)) as threads:
            outputs = list(threads.map(lambda data: self.command("cat", data), inputs))
        self.assertEqual(outputs, inputs)
        self.assertEqual({line["reason"] for line in self.mux.take(len(inputs))}, {"done"})

    def test_silent_client(self) -> None:
        """A client that waits for the server to speak first is led to it, and is no longer detected then."""
        place = ("127.0.0.1", self.mux.ports["silent"])
        with socket.create_connection(place, PATIENCE) as client:
            banner = client.recv(100)
            self.assertRegex(banner, rb"^SSH-2\.0-OpenSSH_")
            client.sendall(b"SSH-2.0-other\r\n")
            self.assertNotEqual(client.recv(100), b"")
        line = self.mux.take_one()
        self.assertEqual((line["route"], line["backend"]), (None, "ssh-server"))
        self.assertGreaterEqual(line["detect_ms"], 200)
        self.assertEqual(line["bytes_in"], len(b"SSH-2.0-other\r\n"))
