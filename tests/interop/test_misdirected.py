"""One certificate for the names of several sites: Chromium gets each site from its own server."""

import sys
from typing import ClassVar

from tests.browser.driving import Browser
from tests.interop.children import InteropTestCase, output_of
from tests.interop.servers import make_certificate, start_nginx
from tests.support.ports import free_port
from tests.support.services import Service

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


_PASSED = f"""[listen public]
endpoint = 127.0.0.1:0
[route a]
match = tls sni={_A}
backend = 127.0.0.1:{{tls}}
[route b]
match = tls sni={_B}
backend = 127.0.0.1:{{b}}
"""


class MisdirectedTests(InteropTestCase):
    muxes: ClassVar[list[Service]]
    ports: ClassVar[dict[str, int]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.certificate = make_certificate(cls.folder, "*.site.example")
        cls.ports = ports = {"a": free_port(), "b": free_port(), "tls": free_port()}
        sites = ((ports["a"], _A), (ports["b"], _B))
        lines = "".join(_SITE.format(port=port, name=name) for port, name in sites)
        lines += _SITE.format(port=f"{ports['tls']} ssl", name=_A)
        pem, key = cls.certificate.chain, cls.certificate.key
        lines += f"ssl_certificate {pem}; ssl_certificate_key {key};\n"
        cls.share(start_nginx(cls.folder, lines))
        rules = (text.format(pem=cls.certificate.both, **ports) for text in (_TWO, _UNDER))
        cls.muxes = [cls.share(Service(cls.folder, text, "drain_timeout = 0s")) for text in rules]

    def test_chromium_and_check(self) -> None:
        """It sends requests for the one site by its connection for the other, and again when that is answered 421."""
        browser = self.own(
            Browser("--host-resolver-rules=MAP *.site.example 127.0.0.1", self.certificate.trusted)
        )
        for mux in self.muxes:
            for name in (_A, _B, _A):
                browser.open(f"https://{name}:{mux.port}/")
                self.assertEqual(browser.text("body"), name)
            mux.stop()  # so that all is in the log
            found = {line["facts"].get("misdirected_host") for line in mux.lines()}
            self.assertIn(_B, found)

        # `txmux check` looks at the certificate that a server shows, where TLS is passed on.
        rules = self.make_folder() / "rules.ini"
        rules.write_text(_PASSED.format(**self.ports))
        said = output_of(sys.executable, "-m", "txmux", "check", "--connect", rules).decode()
        self.assertIn(
            f"rules.ini:5: warning: [route a] backend: for '{_A}' the server shows a certificate, and offers HTTP/2, "
            f"that is also for '{_B}', which belongs to [route b]: browsers ",
            said,
        )
        self.assertNotIn("[route b] backend", said)
