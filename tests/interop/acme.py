"""Services with certificates by ACME; Pebble is the authority, which refuses half of all nonces, and another server its front."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509

from tests.interop.children import PATIENCE
from tests.interop.pebble import Pebble
from tests.support.secure import client_context

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


def shown_to(
    port: int, name: str | None, *protocols: str, host: str = "127.0.0.1"
) -> x509.Certificate:
    """Return the certificate that a client is shown that asks for a name, or for none."""
    context = client_context(None, alpn=protocols)
    with (
        socket.create_connection((host, port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=name or None) as client,
    ):
        return x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")


def names_of(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return extension.value


def issuer_of(port: int, name: str | None, host: str = "127.0.0.1") -> str:
    return shown_to(port, name, host=host).issuer.rfc4514_string()


class Front(ThreadingHTTPServer):
    """The directory of an authority, by which orders get no answer until `stalls` is set while it is `busy`."""

    def __init__(self, pebble: Pebble) -> None:
        super().__init__(("127.0.0.1", 0), _FrontHandler)
        own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        own.load_cert_chain(pebble.own, pebble.key)
        self.socket = own.wrap_socket(self.socket, server_side=True)
        self.pebble = pebble
        self.url = f"https://127.0.0.1:{self.server_port}"
        self.directory = pebble.get(pebble.directory)
        self.asked: list[str] = []
        self.busy = False
        self.stalls = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def end(self) -> None:
        self.shutdown()
        self._thread.join(PATIENCE)
        self.server_close()


class _FrontHandler(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        front = self.server
        front.asked.append(self.path)
        orders = {"newOrder": f"{front.url}/busy"} if front.busy else {}
        body = json.dumps(front.directory | orders).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Replay-Nonce", "QUFB")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        self.server.stalls.wait(PATIENCE)

    def log_message(self, *_: Any) -> None:
        pass
