"""What the conversion says to write is right: in the configuration, or in the rules that it has become."""

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import PORTS, looks, matchers
from tests.rules.test_suggestions import hints_of
from txmux.rules.reading.parser import parse
from txmux_convert import Program, formats
from txmux_convert.formats import Conversion
from txmux_convert.writer import ConvertError

_ACL = "frontend f\n    bind :1 ssl crt c.pem\n    use_backend b if {{ {} }}\nbackend b\n    server s 192.0.2.1:1\n"
_SERVER = "listen x\n    bind :9\n    server s {}\n"
_SSLH = 'listen: ( {{ host: "{}"; port: "{}"; is_udp: {}; }} );\nprotocols: ( {{ name: "ssh"; host: "h"; port: "{}"; {} }} );\n'
_STUNNEL = "[x]\naccept = 1\nconnect = 192.0.2.1:1\n{}"
_TRAEFIK = (
    "entryPoints: {{web: {{address: ':80{}'}}, other: {{address: ':81'}}}}\ntcp:\n  routers:\n"
    "    a: {{rule: '{}', service: s, entryPoints: [{}], tls: {{passthrough: true}}}}\n"
    "  services: {{s: {{loadBalancer: {{servers: [{{address: '10.0.0.1:53'}}]{}}}}}}}\n"
    "{}"
)
_UDP = (
    "udp:\n  routers: {{c: {{service: u, entryPoints: [{}]}}}}\n"
    '  services: {{u: {{loadBalancer: {{servers: [{{address: "10.0.0.1:53"}}]}}}}}}\n'
)
_COMPOSE = (
    "services:\n  p: {image: traefik, command: [--entrypoints.web.address=:1]}\n"
    "  s: {labels: ['traefik.tcp.routers.r.rule=HostSNI(`a`)', 'traefik.tcp.routers.r.tls.passthrough=true']}\n"
)
_SNIPROXY = "resolver {\n search example.net\n}\nlistener 127.0.0.1:1 {\n proto tls\n table t\n}\ntable t {\n a.example b:1\n}\n"
_VERIFIED = "ssl verify required ca-file @system-ca"
_MAP = "stream {{ map $remote_addr $b {{ {} default 192.0.2.1:1; }} server {{ listen 1; proxy_pass $b; }} }}"

# The program, its configuration, and what is written in place of what there; from '=>' on in the rules.
_CASES: tuple[tuple[Program, str, str, str], ...] = (
    ("haproxy", "// x\n" + _SERVER.format("192.0.2.1:1"), "//", "#"),
    ("haproxy", _ACL.format("req.len 3"), "=>[listen f]", "[listen f]\nsilent = b"),
    ("haproxy", _ACL.format("req.proto_http 0"), "{ req.proto_http 0 }", "!HTTP"),
    ("haproxy", _ACL.format("ssl_c_verify 10"), "10", "0"),
    ("haproxy", _ACL.format("ssl_c_used 0"), "{ ssl_c_used 0 }", "!{ ssl_c_used }"),
    ("haproxy", _ACL.format("req.ssl_sni -M -f /x"), "-M -f /x", "a.example"),
    ("haproxy", _SERVER.format(":4431 check"), "=>{local}", "127.0.0.1"),
    ("haproxy", "frontend f\n    mode http\n    bind :1\n" + _SERVER.format("h:1"), "mode http", "mode tcp"),
    ("haproxy", _ACL.format('req.ssl_sni "${NAME}"').replace("{{NAME}}", "{NAME}"), "${NAME}", "a.example"),
    ("haproxy", _SERVER.format(f"a.example:1 {_VERIFIED} sni ssl_fc_sni"), "=>tls = yes", "tls = yes\ntls_name = a"),
    ("haproxy", _SERVER.format(f"192.0.2.1:1 {_VERIFIED}"), "=>tls = yes", "tls = yes\ntls_name = a"),
    ("haproxy", "frontend f\n    bind :1\n    use_backend b if { lua.x a }\nbackend b\n    server s h:1\n", "{ lua.x a }", "HTTP"),
    ("nginx", _MAP.format("~^10 192.0.2.2:1;"), "map $remote_addr $b { ~^10", "geo $b { 10.0.0.0/8"),
    ("nginx", "stream { upstream u { server 192.0.2.9:1; server a.example service=_x; } server { listen 1; proxy_pass u; } }", "=>[backend u]", "[backend u]\nserver = srv:_x._tcp.a.example"),
    ("sslh", _SSLH.format("<x>", 1, "false", 22, ""), "<x>", "127.0.0.1"),
    ("sslh", _SSLH.format("127.0.0.1", "no-such", "false", 22, ""), "no-such", "1"),
    ("sslh", _SSLH.format("127.0.0.1", 1, "false", "no-such", ""), "no-such", "1"),
    ("sslh", _SSLH.format("127.0.0.1", 1, "false", 22, "proxyprotocol: true;"), "=>[backend ssh]", "[backend ssh]\nproxy_protocol = v2"),
    ("sslh", _SSLH.format("127.0.0.1", 1, "false", 22, 'service: "x";'), "=>[route ssh]", "[route ssh]\nfrom = 10.0.0.0/8"),
    ("sslh", _SSLH.format("a.example", 1, "true", 22, "is_udp: true;"), "=>0.0.0.0", "192.0.2.1"),
    ("sniproxy", _SNIPROXY, " search example.net\n", ""),
    ("stunnel", _STUNNEL.format("client = yes\nverifyChain = yes\nCAfile = /etc/ssl/certs/ca-certificates.crt"), "=>tls = yes", "tls = yes\ntls_name = a"),
    ("stunnel", _STUNNEL.format("cert = c.pem\nverifyChain = yes\nCApath = /d"), "CApath = /d", "CAfile = /d.pem"),
    ("traefik", _TRAEFIK.format("", "HostSNI(`a`)", "web, gone", "", ""), ", gone", ""),
    ("traefik", _TRAEFIK.format("", "HostSNI(`a`)", "other", "", _UDP.format("web")), ":80'", ":80/udp'"),
    ("traefik", _COMPOSE, "labels: [", "labels: [traefik.tcp.services.s.loadbalancer.server.port=1, "),
    ("traefik", _TRAEFIK.format("", "HostSNIRegexp(`{x:a}`)", "web", "", ""), "{x:a}", "^a$"),
)  # fmt: skip

_NOT_HERE = ("convert sslh -- ARGUMENTS", "txmux_convert/command.py", "txmux_convert/writer.py")
"""A command line, which `sslh/test_arguments.py` tries, the command itself, and what finds the hints of rules."""


def _looks(text: str, program: Program) -> tuple[list[str], Conversion | None]:
    try:
        output = formats.convert(text.encode(), "x.cfg", matchers(), PORTS.get, program)
    except ConvertError as error:
        return [str(error)], None
    return looks(output), output


class SuggestionTests(SynchronousTestCase):
    def test_each_is_right_and_provoked(self) -> None:
        said: list[str] = []
        hints = [*hints_of("txmux_convert")]
        for program, text, old, new in _CASES:
            before, output = _looks(text, program)
            about = [line for line in before if any(form.search(line) for _, form in hints)]
            self.assertTrue(about, f"{text}\n{before}")
            said += about
            place, arrow, in_rules = old.partition("=>")
            if arrow:
                assert output is not None
                lines = output.text.replace(in_rules, new, 1).split("\n")
                self.assertNotEqual(lines, output.text.split("\n"), output.text)
                kept = [line for line in lines if not line.startswith("# LOOK:")]
                parse("\n".join(kept), "rules.ini", matchers())
            else:
                self.assertIn(place, text)
                after, later = _looks(text.replace(place, new, 1), program)
                self.assertIsNotNone(later, after)
                self.assertFalse(
                    [line for line in after if any(form.search(line) for _, form in hints)]
                )
        missing = [
            hint
            for hint, form in hints
            if not any(map(form.search, said)) and not any(text in hint for text in _NOT_HERE)
        ]
        self.assertEqual(missing, [], "no case provokes these")
