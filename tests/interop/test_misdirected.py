"""One certificate for the names of several sites: Chromium gets each site from its own server."""

import sys

from tests.browser.driving import Browser
from tests.interop.servers import make_certificate, start_nginx
from tests.support.kit import InteropTestCase, Service, free_port, output_of

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
    def test_chromium_and_check(self) -> None:
        """It sends requests for the one site by its connection for the other, and again when that is answered 421. `txmux check` looks at the certificate that a server shows, where TLS is passed on."""
        certificate = make_certificate(self.folder, "*.site.example")
        ports = {"a": free_port(), "b": free_port(), "tls": free_port()}
        sites = ((ports["a"], _A), (ports["b"], _B), (f"{ports['tls']} ssl", _A))
        lines = "".join(_SITE.format(port=port, name=name) for port, name in sites)
        lines += f"ssl_certificate {certificate.chain}; ssl_certificate_key {certificate.key};\n"
        self.own(start_nginx(self.folder, lines))
        passed = self.make_folder() / "rules.ini"
        passed.write_text(_PASSED.format(**ports))
        said = output_of(sys.executable, "-m", "txmux", "check", "--connect", passed).decode()
        warning = (
            f"[route a] backend: for '{_A}' the server shows a certificate, and offers HTTP/2, "
        )
        warning += f"that is also for '{_B}', which belongs to [route b]: browsers "
        self.assertIn(f"rules.ini:5: warning: {warning}", said)
        self.assertNotIn("[route b] backend", said)
        there = "--host-resolver-rules=MAP *.site.example 127.0.0.1"
        browser = self.own(Browser(there, certificate.trusted))
        for text in (_TWO, _UNDER):
            rules = text.format(pem=certificate.both, **ports)
            mux = self.own(Service(self.folder, rules, "drain_timeout = 0s"))
            for name in (_A, _B, _A):
                browser.open(f"https://{name}:{mux.port}/")
                self.assertEqual(browser.text("body"), name)
            mux.stop()  # so that all is in the log
            self.assertIn(_B, {line["facts"].get("misdirected_host") for line in mux.lines()})
