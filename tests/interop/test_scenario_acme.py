"""`acme/`: pebble is the authority, lego or certbot asks it for certificates, and it looks at them through txmux's ports."""

import socket
import ssl

from cryptography import x509

from tests.interop.children import write
from tests.interop.pebble import Pebble
from tests.interop.scenario import EXAMPLES, Example, ScenarioTestCase
from tests.interop.servers import start_redis
from tests.support.kit import PATIENCE, Record, eventually, mounted, output_of, require_program
from tests.support.secure import client_context

_NAME = "www.example.com"
_ACCOUNT = ("--server", "https://127.0.0.1:14000/dir", "--accept-tos", "--email", "a@example.com")
_OWN = ("--path", "/etc/ssl/acme", "--domains", _NAME, "--tls", "--tls.port", "127.0.0.1:5443")
_LEGO = ("lego", *_ACCOUNT, *_OWN)

_CERTBOT = ("--standalone", "--http-01-address", "127.0.0.1", "--http-01-port", "8081")
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_FIRST = ("openssl", "req", "-x509", *_CURVE, "-subj", f"/CN={_NAME}", "-days", "1")


class AcmeTests(ScenarioTestCase):
    """The examples, with an authority of the test; what they lead to is Redis here."""

    def lego(self, *command: str) -> str:
        """Run lego, and give the number of the certificate that new clients see afterwards."""
        before = self.serial()
        known = f"LEGO_CA_CERTIFICATES={self.folder / 'ca.pem'}"
        output_of(*self.before, "env", known, *_LEGO, *command)
        eventually(lambda: self.serial() != before, "new clients see the new certificate")
        return self.serial()

    def connect(self, port: int = 443) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        return client_context(None).wrap_socket(plain, server_hostname=_NAME)

    def serial(self, port: int = 443) -> str:
        """Give the number of the certificate that a new client is shown, and who has issued it."""
        with self.connect(port) as client:
            shown = client.getpeercert(binary_form=True)
        certificate = x509.load_der_x509_certificate(shown or b"")
        return f"{certificate.serial_number} {certificate.issuer.rfc4514_string()}"

    def test_renewed(self) -> None:
        """The authority reaches lego through the route, new clients see each new certificate, and connections go on; so it is with certbot and port 80."""
        require_program("lego")
        self.own(start_redis(self.folder, 8080))
        system, acme = self.make_folder("ssl"), self.make_folder("ssl/acme/certificates")
        output_of(*_FIRST, "-out", acme / f"{_NAME}.crt", "-keyout", acme / f"{_NAME}.key")
        self.before = mounted({"/etc/ssl": system})
        mux = self.own(Example(EXAMPLES / "acme/lego.ini", {"/etc/ssl": system}))
        self.own(Pebble(self.folder, port=14000, challenged=443, web=80, nonces=0))
        with self.connect() as client:
            client.sendall(b"PING\r\n")
            self.assertEqual(client.recv(7), b"+PONG\r\n")
            self.assertIn("Pebble", self.lego("run"))
            hook = f"kill -HUP {mux.child.pid}"
            words = ("renew", "--days", "10000", "--no-random-sleep", "--renew-hook", hook)
            self.assertIn("Pebble", self.lego(*words))
            mux.child.wait_for("rules reloaded")
            client.sendall(b"PING\r\n")
            self.assertEqual(client.recv(7), b"+PONG\r\n")

        def challenges() -> list[Record]:
            return [line for line in mux.lines() if line["route"] == "acme"]

        eventually(lambda: len(challenges()) > 1, "the authority has come by the route")
        self.assertEqual({line["server"] for line in challenges()}, {"127.0.0.1:5443"})

        require_program("certbot")
        web = self.own(Example(EXAMPLES / "acme/certbot.ini"))
        server = ("--server", "https://127.0.0.1:14000/dir", "--agree-tos", "-m", "a@example.com")
        self.certbot("certonly", *server, *_CERTBOT, "-d", _NAME)
        live = self.folder / "certbot-config/live" / _NAME
        text = "[listen public]\nendpoint = 127.0.0.1:8443\n[route site]\nmatch = tls\nbackend = 127.0.0.1:8080\n"
        text += f"terminate_tls = {live}/fullchain.pem, {live}/privkey.pem\n"
        site = self.own(Example(write(self.folder / "site.ini", text)))
        first = self.serial(8443)
        self.assertIn("Pebble", first)
        with self.connect(8443) as client:
            hook = f"kill -HUP {site.child.pid}"
            again = ("--force-renewal", "--no-random-sleep-on-renew", "--deploy-hook", hook)
            self.certbot("renew", *again)
            site.child.wait_for("rules reloaded")
            self.assertNotEqual(self.serial(8443), first)
            client.sendall(b"PING\r\n")
            self.assertEqual(client.recv(7), b"+PONG\r\n")
        eventually(lambda: bool(web.lines()), "the authority has come by the route")
        self.assertEqual({line["route"] for line in web.lines()}, {"acme"})

    def certbot(self, *command: str) -> None:
        names = ("config", "work", "logs")
        folders = [f"--{name}-dir={self.folder}/certbot-{name}" for name in names]
        known = f"REQUESTS_CA_BUNDLE={self.folder / 'ca.pem'}"
        output_of("env", known, require_program("certbot"), *command, "-n", *folders)
