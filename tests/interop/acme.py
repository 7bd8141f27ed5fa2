"""Services with certificates by ACME; Pebble is the authority, which refuses half of all nonces, and another server its front."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from base64 import urlsafe_b64decode
from datetime import UTC, datetime
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


def issuer_of(port: int, name: str | None, host: str = "127.0.0.1") -> str:
    return shown_to(port, name, host=host).issuer.rfc4514_string()


class Front(ThreadingHTTPServer):
    """The directory of an authority with more in it: when to renew, and no answer to orders until `stalls` is set.

    With `revoked`, it is asked when to renew until that is set; then one that Pebble has revoked is to be renewed at once.
    """

    def __init__(self, pebble: Pebble) -> None:
        super().__init__(("127.0.0.1", 0), _FrontHandler)
        own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        own.load_cert_chain(pebble.own, pebble.key)
        self.socket = own.wrap_socket(self.socket, server_side=True)
        self.pebble = pebble
        self.url = f"https://127.0.0.1:{self.server_port}"
        self.directory = pebble.get(pebble.directory) | {"renewalInfo": f"{self.url}/ari"}
        self.revoked: threading.Event | None = None
        self.window = (0.0, 0.0)
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
        if front.revoked is not None and self.path != "/dir":
            front.revoked.wait(PATIENCE)
            serial = int.from_bytes(urlsafe_b64decode(f"{self.path.rpartition('.')[2]}=="), "big")
            is_good = front.pebble.status(serial) == "Valid"
            at = time.time() + 10**6 * is_good
            front.window = (at - 60, at)  # one without a length would be no answer
        start, end = (
            f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" for at in front.window
        )
        answer: Any = {"suggestedWindow": {"start": start, "end": end}}
        self._answer(front.directory | orders if self.path == "/dir" else answer)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        self.server.stalls.wait(PATIENCE)

    def _answer(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Retry-After", "21600")
        self.send_header("Replay-Nonce", "QUFB")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
