"""stunnel beside txmux."""

import socket
import ssl

from tests.interop.converted.sidebyside import SideBySideTestCase
from tests.interop.originals import Named
from tests.interop.servers import make_certificate

_ONE = """\
[one]
accept = 127.0.0.1:<port>
connect = <one>
cert = <folder>/a.example.both
"""


class ServerTests(SideBySideTestCase):
    program = "stunnel"

    def setUp(self) -> None:
        super().setUp()
        self.site = make_certificate(self.own_folder, "a.example", "*.a.example")
        self.ours = make_certificate(self.own_folder, "client.example")
        self.other = make_certificate(self.own_folder, "other.example")

    def test_certificates_of_clients(self) -> None:
        for lines, looks, known, unknown, without in (
            ("verify = 2", 0, "one", "", ""),
            ("verifyChain = yes\ncheckHost = client.example", 1, "one", "", ""),
            ("verifyChain = yes\ncheckHost = x.example", 1, "", "", ""),
            ("verifyPeer = yes", 1, "one", "", ""),
            ("verify = 1", 1, "one", "", "one"),
            ("verify = 0", 0, "one", "one", "one"),
        ):
            self.setUp()
            self.start(f"{_ONE}{lines}\nCAfile = <folder>/client.example.pem\n")
            self.assertEqual(self.found.text.count("# LOOK:"), looks, lines)
            led = {
                f"tls cert={self.ours.both} text": known,
                f"tls cert={self.other.both} text": unknown,
                "tls text": without,
            }
            if lines == "verify = 1":
                del led[f"tls cert={self.other.both} text"]  # it is what differs
            self.assert_alike(led)

    def test_postgresql_asks_for_tls_first(self) -> None:
        self.start(
            """
            [pg]
            accept = 127.0.0.1:<port>
            connect = <pg>
            protocol = pgsql
            cert = <folder>/a.example.both
            """
        )
        context = ssl.create_default_context(cafile=str(self.site.chain))
        for ports in self.ports:
            for name, said in (("a.example", b"pg\n"), (None, b"pg\n")):
                context.check_hostname = name is not None
                with socket.create_connection(("127.0.0.1", ports["port"]), 60) as plain:
                    plain.sendall(bytes.fromhex("0000000804d2162f"))
                    self.assertEqual(plain.recv(1), b"S")
                    with context.wrap_socket(plain, server_hostname=name) as inside:
                        self.assertEqual(inside.recv(10), said)
            with socket.create_connection(("127.0.0.1", ports["port"]), 60) as plain:
                plain.sendall(bytes.fromhex("0000000900030000") + b"\0")
                self.assertRaises(ConnectionResetError, plain.recv, 1)

    def serve_far(self) -> None:
        """Serve by TLS, also behind a proxy: what is said tells whether a client has shown its certificate."""
        site = make_certificate(self.own_folder, "localhost", "b.example")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(site.both)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(self.ours.chain)

        def answer(connection: socket.socket) -> None:
            with context.wrap_socket(connection, server_side=True) as inside:
                shown = inside.getpeercert()
                inside.sendall(b"known\n" if shown else b"tls\n")
                inside.recv(1)

        def tunnel(connection: socket.socket) -> None:
            asked = connection.recv(4096).split(b"\r\n")[0]
            self.assertEqual(asked, b"CONNECT b.example:443 HTTP/1.1")
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            answer(connection)

        self.servers["far"] = Named(self, "far", answer=answer)
        self.servers["proxy"] = Named(self, "proxy", answer=tunnel)

    def test_verified_servers(self) -> None:
        self.serve_far()
        self.prove(
            """
            client = yes
            verifyChain = yes
            CAfile = <folder>/localhost.pem
            [one]
            accept = 127.0.0.1:<port>
            connect = localhost:<far.port>
            checkHost = localhost
            [two]
            accept = 127.0.0.1:<port1>
            connect = <far>
            checkHost = b.example
            cert = <folder>/client.example.both
            sni = b.example
            [three]
            accept = 127.0.0.1:<port2>
            connect = <far>
            checkHost = c.example
            sni = c.example
            [four]
            accept = 127.0.0.1:<port3>
            connect = <far>
            CAfile = <folder>/client.example.pem
            checkHost = b.example
            sni = b.example
            [five]
            accept = 127.0.0.1:<port4>
            connect = <proxy>
            protocol = connect
            protocolHost = b.example:443
            checkHost = b.example
            """,
            {"tls": "silent, text"},
            {"known": "text"},
            {"": "text"},
            {"": "text"},
            {"tls": "text"},
            looks=5,
        )

    def test_what_is_not_verified_is_to_be_looked_at(self) -> None:
        self.serve_far()
        self.start(
            """
            client = yes
            [one]
            accept = 127.0.0.1:<port>
            connect = <far>
            """
        )
        self.assertIn("stunnel takes any certificate", self.found.text)
        self.assertEqual(self.answers([{"text": "tls"}]), [[{"text": "tls"}], [{"text": ""}]])
