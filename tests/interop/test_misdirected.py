"""One certificate for the names of several sites: Chromium gets each site from its own server."""

import base64
import hashlib
from typing import ClassVar

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_pem_x509_certificate

from tests.browser.driving import Browser
from tests.interop.children import InteropTestCase
from tests.interop.mux import Mux
from tests.interop.servers import make_certificate, start_nginx
from tests.support.ports import free_port

_A, _B = "a.site.example", "b.site.example"
_SITE = "server {{ listen 127.0.0.1:{port} http2; default_type text/html; location / {{ return 200 {name}; }} }}\n"
_ENDS = "terminate_tls = {pem}\nalpn = h2\n"
_TWO = f"""
[route a]
match = tls sni={_A}
backend = 127.0.0.1:{{a}}
{_ENDS}
[route b]
match = tls sni={_B}
backend = 127.0.0.1:{{b}}
{_ENDS}
"""
_UNDER = f"""
[route ends]
match = tls
{_ENDS}
[route a]
match = http host={_A}
under = ends
backend = 127.0.0.1:{{a}}
[route b]
match = http host={_B}
under = ends
backend = 127.0.0.1:{{b}}
"""


class MisdirectedTests(InteropTestCase):
    muxes: ClassVar[list[Mux]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "*.site.example")
        ports = {"a": free_port(), "b": free_port()}
        sites = ((ports["a"], _A), (ports["b"], _B))
        lines = "".join(_SITE.format(port=port, name=name) for port, name in sites)
        cls.share(start_nginx(cls.folder, lines))
        rules = (text.format(pem=cls.certificate.both, **ports) for text in (_TWO, _UNDER))
        cls.muxes = [cls.share(Mux(cls.folder, text)) for text in rules]

    def test_chromium(self) -> None:
        """It sends requests for the one site by its connection for the other, and again when that is answered 421."""
        certificate = load_pem_x509_certificate(self.certificate.chain.read_bytes())
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = base64.b64encode(hashlib.sha256(key).digest()).decode()
        browser = self.own(
            Browser(
                "--host-resolver-rules=MAP *.site.example 127.0.0.1",
                f"--ignore-certificate-errors-spki-list={digest}",
            )
        )
        for mux in self.muxes:
            for name in (_A, _B, _A):
                browser.open(f"https://{name}:{mux.port}/")
                self.assertEqual(browser.text("body"), name)
            mux.stop()  # so that all is in the log
            found = {line["facts"].get("misdirected_host") for line in mux.lines()}
            self.assertIn(_B, found)
