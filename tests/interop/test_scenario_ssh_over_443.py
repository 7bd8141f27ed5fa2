"""`ssh-https.ini` with OpenSSH, nginx, OpenVPN and fail2ban's filter."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import PATIENCE, Child, output_of
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import make_certificate, proxied_site, start_nginx, start_sshd

if TYPE_CHECKING:
    from pathlib import Path


_CLIENT = "203.0.113.7"
_DENIED = "198.51.100.7"
_PUBLIC = "203.0.113.1"


class SshOver443Tests(ScenarioTestCase):
    """The example file, with every server on its usual port."""

    addresses = (_CLIENT, _DENIED, _PUBLIC)
    vpn: ClassVar[Child]
    log: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "www.example.com")
        cls.ssh = cls.share(start_sshd(cls.folder, 22))
        cls.share(start_nginx(cls.folder, proxied_site(cls.certificate, "$remote_addr")))
        cls.vpn = cls.share(
            Child(
                *("openvpn", "--dev", "null", "--tls-server", "--dh", "none"),
                *("--proto", "tcp-server", "--local", "127.0.0.1", "--port", "1194"),
                *cls.credentials(),
            )
        )
        cls.vpn.wait_for("Listening for incoming TCP connection")
        logs = cls.make_folder("log")
        cls.log = cls.make_folder("log/txmux") / "access.log"
        rules = EXAMPLES / "ssh-https.ini"
        cls.mux = cls.share(Example(rules, {"/var/log": logs}, cls.log))

    @classmethod
    def credentials(cls) -> tuple[str | Path, ...]:
        chain = cls.certificate.chain
        return ("--ca", chain, "--cert", chain, "--key", cls.certificate.key)

    def logged(self) -> tuple[str, str, str]:
        line = self.mux.take_one()
        return (line["client"].rpartition(":")[0], line["backend"], line["reason"])

    def test_ssh(self) -> None:
        options = (*self.ssh.options, "-b", _CLIENT, "-p", "443")
        self.assertEqual(output_of("ssh", *options, _PUBLIC, "echo hello"), b"hello\n")
        self.assertEqual(self.logged(), (_CLIENT, "ssh-server", "done"))

    def test_silent_ssh(self) -> None:
        with socket.create_connection((_PUBLIC, 443), PATIENCE, (_CLIENT, 0)) as client:
            self.assertEqual(client.recv(8), b"SSH-2.0-")
        self.assertEqual(self.logged()[:2], (_CLIENT, "ssh-server"))

    def test_site_is_told_the_clients_address(self) -> None:
        said = output_of(
            *("curl", "-q", "-sS", "--cacert", self.certificate.chain, "--interface", _CLIENT),
            *("--resolve", f"www.example.com:443:{_PUBLIC}", "https://www.example.com/"),
        )
        self.assertEqual(said.decode(), f"{_CLIENT}\n")
        self.assertEqual(self.logged(), (_CLIENT, "web", "done"))

    def test_openvpn(self) -> None:
        client = Child(
            *("openvpn", "--dev", "null", "--tls-client", "--proto", "tcp-client"),
            *("--remote", _PUBLIC, "443", "--nobind", *self.credentials()),
        )
        client.wait_for("Initialization Sequence Completed")
        client.end()
        self.assertEqual(self.logged()[:2], (_PUBLIC, "vpn"))

    def test_fail2ban(self) -> None:
        """A client of a network that is not let in is closed, and fail2ban's filter finds its address, not the others'."""
        with socket.create_connection((_PUBLIC, 443), PATIENCE, (_DENIED, 0)) as client:
            self.assertEqual(client.recv(1), b"")
        self.assertEqual(self.logged(), (_DENIED, "-", "denied"))
        ban = EXAMPLES / "fail2ban/filter.d/txmux.conf"
        found = output_of("fail2ban-regex", "--out", "ip", str(self.log), str(ban))
        self.assertEqual(found.decode().split(), [_DENIED])
