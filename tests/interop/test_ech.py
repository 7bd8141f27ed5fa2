"""Pages by hidden names: Chromium, curl with BoringSSL, and servers with OpenSSL 4, which accept the hidden hello."""

import base64
import contextlib
import re
import socket
import ssl
import sys
import threading
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import SkipTest

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.names import dns

from tests.browser.driving import Browser
from tests.interop.quic.case import require_curl
from tests.interop.servers import Certificate, make_certificate
from tests.support.kit import PATIENCE, InteropTestCase, ThreadServer, eventually, output_of
from tests.support.services import Service

_HIDDEN, _ASKS_AGAIN, _PUBLIC = "hidden.example", "retry.example", "public.example"
_ENDS = "ends.example"
_RULES = """
[listen public]
endpoint = 127.0.0.1:0
ech_keys = {keys}
[route hidden]
match   = tls sni=hidden.example
backend = 127.0.0.1:{hidden}
[route retry]
match   = tls sni=retry.example
backend = 127.0.0.1:{retry}
[route ends]
match   = tls sni=ends.example
terminate_tls = {both}
backend = 127.0.0.1:{plain}
[route public]
match   = tls sni=public.example
backend = 127.0.0.1:{public}
"""


class _Server(ThreadServer):
    """Answers every request with its name; by TLS with a certificate, and with a curve, it asks clients for a key share of that."""

    def __init__(
        self, name: str, certificate: Certificate | None, curve: ec.EllipticCurve | None = None
    ) -> None:
        self._name = name.encode()
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD) if certificate is not None else None
        if self._context is not None and certificate is not None:
            self._context.use_certificate_chain_file(str(certificate.chain))
            self._context.use_privatekey_file(str(certificate.key))
            if curve is not None:
                self._context.set_tmp_ecdh(curve)
        super().__init__(self._answer)

    def _answer(self, client: socket.socket) -> None:
        client.settimeout(None)
        peer: Any = client
        with contextlib.suppress(SSL.Error):
            if self._context is not None:
                peer = SSL.Connection(self._context, client)
                peer.set_accept_state()
            peer.recv(4096)
            length = f"Content-Length: {len(self._name)}".encode()
            peer.sendall(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (length, self._name))
            if self._context is not None:
                peer.shutdown()


class _Tap(ThreadServer):
    def __init__(self, port: int) -> None:
        self._port, self.seen = port, b""
        super().__init__(self._pass_on)

    def _pass_on(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
            back.start()
            self.seen = self._copy(client, server)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> bytes:
        seen = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                seen += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        return seen


class _Names(ThreadServer):
    """A DNS server over HTTPS (RFC 8484), by which each name is here, and clients of one port hide theirs (RFC 9460)."""

    def __init__(self, certificate: Certificate, port: int, configs: bytes) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.both)
        self._known = port, configs
        super().__init__(self._talk)
        self.template = f"https://127.0.0.1:{self.port}/{{?dns}}"

    def _talk(self, client: socket.socket) -> None:
        inside = self._context.wrap_socket(client, server_side=True)
        with inside, inside.makefile("rb") as lines:
            while asked := re.search(rb"dns=(\S+)", lines.readline()):
                while lines.readline().strip():
                    pass
                answer = _answer(base64.urlsafe_b64decode(asked[1] + b"=="), *self._known)
                kind = b"Content-Type: application/dns-message\r\nContent-Length: %d" % len(answer)
                inside.sendall(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (kind, answer))


def _answer(asked: bytes, port: int, configs: bytes) -> bytes:
    message = dns.Message()
    message.fromStr(asked)
    message.answer, query = 1, message.queries[0]
    name, parameter = query.name.name.decode(), b"\0\5" + len(configs).to_bytes(2, "big")
    host = name.removeprefix(f"_{port}._https.")
    if not host.endswith(".example"):
        message.rCode = dns.ENAME
    elif query.type == dns.A:
        message.answers = [dns.RRHeader(name, payload=dns.Record_A("127.0.0.1"), type=dns.A)]
    elif host != name:
        target = BytesIO()
        dns.Name(host).encode(target)
        record = dns.UnknownRecord(b"\0\1" + target.getvalue() + parameter + configs)
        message.answers = [dns.RRHeader(name, query.type, payload=record)]
    message.additional = []
    return bytes(message.toStr())


def _new_key(path: Path) -> str:
    made = output_of(sys.executable, "-m", "txmux", "ech", "new", _PUBLIC, "--output", path)
    return made.decode().partition(' ech="')[2].partition('"')[0]


class EchTests(InteropTestCase):
    def setUp(self) -> None:
        require_curl()
        if SSL.OPENSSL_VERSION_NUMBER < 0x4000_0000:
            raise SkipTest("this OpenSSL does not accept hidden hellos")
        self.certificate = make_certificate(self.folder, _HIDDEN, _ASKS_AGAIN, _PUBLIC, _ENDS)
        keys = self.make_folder()
        self.configs = _new_key(keys / "a.pem")
        curves = {_HIDDEN: None, _ASKS_AGAIN: ec.SECP384R1(), _PUBLIC: None}
        made = (self.own(_Server(name, self.certificate, curve)) for name, curve in curves.items())
        ports = {name.partition(".")[0]: its.port for name, its in zip(curves, made, strict=True)}
        plain = self.own(_Server(_ENDS, None)).port
        rules = _RULES.format(keys=keys, both=self.certificate.both, plain=plain, **ports)
        self.mux = self.own(Service(self.folder, rules))

    def page(self, name: str, ech: str, port: int | None = None, curves: str = "") -> bytes | int:
        """Return the page, or the number of curl's error."""
        from curl_cffi import Curl, CurlError, CurlOpt  # noqa: PLC0415 - it may not be there

        curl, body, at = Curl(), BytesIO(), port or self.mux.port
        for option, value in (
            (CurlOpt.URL, f"https://{name}:{at}/".encode()),
            (CurlOpt.RESOLVE, [f"{one}:{at}:127.0.0.1".encode() for one in (name, _PUBLIC)]),
            (CurlOpt.CAINFO, str(self.certificate.chain).encode()),
            (CurlOpt.PROXY, b""),
            (CurlOpt.ECH, ech.encode()),
            (CurlOpt.WRITEDATA, body),
            (CurlOpt.TIMEOUT, 30),
            *([(CurlOpt.SSL_EC_CURVES, curves.encode())] if curves else []),
        ):
            curl.setopt(option, value)
        try:
            curl.perform()
        except CurlError as error:
            return int(error.code)
        finally:
            curl.close()
        return body.getvalue()

    def test_curl(self) -> None:
        """The access log has the hidden name, and the network the public one alone."""
        tap = _Tap(self.mux.port)
        self.assertEqual(self.page(_HIDDEN, f"ecl:{self.configs}", tap.port), _HIDDEN.encode())
        tap.wait(PATIENCE)
        self.assertNotIn(_HIDDEN.encode(), tap.seen)
        self.assertIn(_PUBLIC.encode(), tap.seen)
        route, facts = self.mux.take_fields("route", "facts")
        self.assertEqual(route, "hidden")
        wanted = {"ech": "inner", "sni": _HIDDEN, "outer_sni": _PUBLIC}
        self.assertLessEqual(wanted.items(), facts.items())

        self.assertEqual(self.page(_ASKS_AGAIN, f"ecl:{self.configs}"), _ASKS_AGAIN.encode())
        route, facts = self.mux.take_fields("route", "facts")
        self.assertEqual((route, facts["ech"], facts["ech_retry"]), ("retry", "inner", "yes"))

        # OpenSSL accepts the hidden hello; it asks for a key share that it likes better.
        for curves, retry in (("", None), ("P-384:X25519", "yes")):
            self.assertEqual(self.page(_ENDS, f"ecl:{self.configs}", curves=curves), _ENDS.encode())
            route, facts = self.mux.take_fields("route", "facts")
            found = route, facts["ech"], facts["sni"], facts.get("ech_retry")
            self.assertEqual(found, ("ends", "inner", _ENDS, retry))

        # Others come to the public name: those that hide nothing, have another key, or only pretend.
        other = _new_key(self.make_folder() / "other.pem")
        self.assertIsInstance(self.page(_HIDDEN, f"ecl:{other}"), int)
        self.assertEqual(self.page(_PUBLIC, "grease"), _PUBLIC.encode())
        self.assertEqual(self.page(_HIDDEN, "false"), _HIDDEN.encode())
        told = [(line["route"], line["facts"].get("ech")) for line in self.mux.take(3)]
        self.assertCountEqual(told, [("public", "outer"), ("public", "outer"), ("hidden", None)])

    def test_chromium(self) -> None:
        """It knows the key by DNS over HTTPS, as everybody's browser does."""
        mux = self.mux
        names = self.own(_Names(self.certificate, mux.port, base64.b64decode(self.configs)))
        there = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE *.example"
        state = {"dns_over_https": {"mode": "secure", "templates": names.template}}
        browser = self.own(Browser(there, self.certificate.trusted, state=state))
        browser.open(f"https://{_HIDDEN}:{mux.port}/")
        self.assertEqual(browser.text("body"), _HIDDEN)
        eventually(lambda: bool(mux.lines()), "it is in the access log")
        line = mux.lines()[0]
        self.assertEqual(line["route"], "hidden")
        wanted = {"ech": "inner", "sni": _HIDDEN, "outer_sni": _PUBLIC}
        self.assertLessEqual(wanted.items(), line["facts"].items())
