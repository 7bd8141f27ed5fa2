"""`inside-tls.ini` with nginx, websockify and OpenSSH."""

from __future__ import annotations

import shlex
import socket
import ssl
from typing import TYPE_CHECKING, ClassVar

from tests.interop.children import PATIENCE, Child, output_of
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import make_certificate, start_nginx, start_redis, start_sshd
from tests.programs import require_program

if TYPE_CHECKING:
    from pathlib import Path


_SITE = """
server {
    listen 127.0.0.1:8080 proxy_protocol;
    set_real_ip_from 127.0.0.1;
    real_ip_header   proxy_protocol;
    location / { return 200 "$remote_addr\\n"; }
}
"""

# A WebSocket client of Debian's, which speaks for Debian's Python only.
_WEBSOCKET = """
import socket, ssl, sys, websocket
address, name, authority = sys.argv[1:]
secure = ssl.create_default_context(cafile=authority)
inside = secure.wrap_socket(socket.create_connection((address, 443)), server_hostname=name)
tunnel = websocket.create_connection(f"wss://{name}/tunnel", socket=inside, timeout=180)
tunnel.send_binary(b"PING\\r\\n")
sys.stdout.buffer.write(tunnel.recv())
tunnel.close()
"""

_CLIENT = "203.0.113.7"
_PUBLIC = "203.0.113.1"
_NAME = "www.example.com"


class InsideTlsTests(ScenarioTestCase):
    """The example file; what websockify leads to is Redis here."""

    addresses = (_CLIENT, _PUBLIC)
    authority: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        certificates = cls.make_folder("ssl")
        own = cls.make_folder("ssl/example.com")
        certificate = make_certificate(own, _NAME)
        cls.authority = certificate.chain.rename(own / "fullchain.pem")
        certificate.key.rename(own / "privkey.pem")
        cls.share(start_nginx(cls.folder, _SITE))
        cls.ssh = cls.share(start_sshd(cls.folder, 22))
        cls.share(start_redis(cls.folder, 6379))
        websockify = Child("websockify", "-v", "127.0.0.1:6080", "127.0.0.1:6379")
        cls.share(websockify).wait_for("proxying from")
        rules = EXAMPLES / "inside-tls.ini"
        cls.mux = cls.share(Example(rules, {"/etc/ssl": certificates}))

    def logged(self) -> tuple[str, str, str]:
        line = self.mux.take_one()
        return (line["route"], line["server"], line["facts"]["sni"])

    def test_site_knows_the_clients_address(self) -> None:
        said = output_of(
            *("curl", "-q", "-sS", "--cacert", self.authority, "--interface", _CLIENT),
            *("--resolve", f"{_NAME}:443:{_PUBLIC}", f"https://{_NAME}/"),
        )
        self.assertEqual(said.decode(), f"{_CLIENT}\n")
        self.assertEqual(self.logged(), ("site", "127.0.0.1:8080", _NAME))

    def test_websocket(self) -> None:
        require_program("wsdump")  # it is of the same package as the client
        said = output_of("/usr/bin/python3", "-c", _WEBSOCKET, _PUBLIC, _NAME, self.authority)
        self.assertEqual(said, b"+PONG\r\n")
        self.assertEqual(self.logged(), ("tunnel", "127.0.0.1:6080", _NAME))

    def test_ssh(self) -> None:
        words = ("openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile")
        proxy = shlex.join((*words, str(self.authority), "-servername", _NAME))
        options = (*self.ssh.options, f"-oProxyCommand={proxy} -connect {_PUBLIC}:443")
        self.assertEqual(output_of("ssh", *options, _NAME, "echo hello"), b"hello\n")
        self.assertEqual(self.logged(), ("ssh", "127.0.0.1:22", _NAME))

    def test_silent_inside_tls_is_greeted_by_ssh(self) -> None:
        context = ssl.create_default_context(cafile=self.authority)
        with (
            socket.create_connection((_PUBLIC, 443), timeout=PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=_NAME) as client,
        ):
            self.assertEqual(client.recv(8), b"SSH-2.0-")
        self.assertEqual(self.logged(), ("secure", "127.0.0.1:22", _NAME))
