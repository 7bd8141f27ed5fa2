"""Services with certificates by ACME; Pebble is the authority, which refuses half of all nonces, and another server its front."""

import json
import socket
import ssl
import threading

from cryptography import x509

from tests.interop.pebble import Pebble
from tests.support.kit import PATIENCE, ThreadServer, client_context

ONE, OTHER = "www.example.com", "example.com"
RENEW = ("certificates", "--renew")
SITE = """\
[listen public]
endpoint = 127.0.0.1:{port}
[route site]
match = tls sni=www.example.com,Example.com
terminate_tls = acme
backend = {redis}
"""


def shown_to(port: int, name: str, *alpn: str, host: str = "127.0.0.1") -> x509.Certificate:
    """Return the certificate that a client is shown that asks for a name, or for none."""
    context = client_context(None, alpn=alpn)
    plain = socket.create_connection((host, port), PATIENCE)
    with plain, context.wrap_socket(plain, server_hostname=name or None) as client:
        return x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")


def names_of(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def issuer_of(port: int, name: str, host: str = "127.0.0.1") -> str:
    return shown_to(port, name, host=host).issuer.rfc4514_string()


class Front(ThreadServer):
    """The directory of an authority, by which orders get no answer until `stalls` is set while it is `busy`."""

    def __init__(self, pebble: Pebble) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(pebble.own, pebble.key)
        self._directory = pebble.get(pebble.directory)
        self.asked: list[str] = []
        self.busy = False
        self.stalls = threading.Event()
        super().__init__(self._talk)
        self.url = f"https://127.0.0.1:{self.port}"

    def _talk(self, plain: socket.socket) -> None:
        client = self._context.wrap_socket(plain, server_side=True)
        with client, client.makefile("rb") as said:
            while request := said.readline().decode().split():
                self.asked.append(request[1])
                while said.readline().strip():
                    pass
                if request[0] == "POST":
                    self.stalls.wait(PATIENCE)
                    return
                orders = {"newOrder": f"{self.url}/busy"} if self.busy else {}
                body = json.dumps(self._directory | orders)
                head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nReplay-Nonce: QUFB\r\n"
                head += f"Content-Length: {len(body)}\r\n\r\n"
                client.sendall(f"{head}{'' if request[0] == 'HEAD' else body}".encode())
