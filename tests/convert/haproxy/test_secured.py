"""What becomes of decisions on TLS that has ended, and of tests that read files."""

from pathlib import Path
from textwrap import indent

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of
from tests.convert.haproxy.pieces import frontend
from txmux.rules.model import Backend

_TLS = "bind :443 ssl crt /x alpn h2,http/1.1"


def ended(*lines: str) -> list[tuple[str, str]]:
    return [
        (
            (
                f"{route.alternatives[0].text}{' in ' if not route.terminate_tls else ''}"
                f"{'' if route.terminate_tls else ','.join(route.under)}"
            ),
            route.outcome.name if isinstance(route.outcome, Backend) else "close",
        )
        for route in rules_of(frontend(*lines, bind=_TLS)).routes
    ]


class SecuredTests(SynchronousTestCase):
    def test_narrower_names_come_first(self) -> None:
        self.assertEqual(
            ended(
                "use_backend a if { ssl_fc_sni -m end .example }",
                "use_backend b if { ssl_fc_sni x.example y }",
            ),
            [
                ("tls sni=x.example", "a"),
                ("tls sni=*.example", "a"),
                ("tls sni=x.example,y", "b"),
                ("tls", "close"),
            ],
        )

    def test_only_protocols_before_the_agreed_one_count(self) -> None:
        self.assertEqual(
            ended("use_backend a if { ssl_fc_alpn http/1.1 }", "default_backend b"),
            [("tls alpn=h2", "b"), ("tls alpn=http/1.1", "a"), ("tls", "b")],
        )

    def test_routes_inside_of_each_tls_route(self) -> None:
        self.assertEqual(
            ended("use_backend a if HTTP", "use_backend b if { ssl_fc_sni x }"),
            [
                ("tls sni=x", "b"),
                ("http in f-tls", "a"),
                ("tls", "close"),
                ("http in f-tls-2", "a"),
            ],
        )

    def test_networks_alone_decide_before_anything_is_read(self) -> None:
        text = frontend("use_backend a if { src 10.0.0.0/8 }", "default_backend b", bind=_TLS).text
        self.assertIn(
            "match = tls\nterminate_tls = /x\nalpn = h2, http/1.1\nbackend = a\nfrom = 10.0.0.0/8\n",
            text,
        )

    def test_tests_before_the_handshake_are_lost(self) -> None:
        for line, why in (
            ("use_backend a if { ssl_fc_alpn spdy }", "a protocol that bind does not speak"),
            (
                "use_backend a if { ssl_fc_sni -m reg ^a } or { ssl_fc_sni -m end b }",
                "at once; all clients are closed",
            ),
        ):
            found = frontend(line, "default_backend b", bind=_TLS)
            self.assertIn(why, looks(found)[0])
            self.assertIn("backend = close\n", found.text)
        found = frontend("use_backend a if HTTP or { src ::1 }", bind=_TLS)
        self.assertIn("silent inside of TLS", looks(found)[0])

    def test_no_tls_facts_without_tls(self) -> None:
        lines = ("use_backend a if { ssl_fc }", "use_backend a if { ssl_fc_sni x }")
        self.assertEqual(rules_of(frontend(*lines, "default_backend b")).routes, ())


class FileTests(SynchronousTestCase):
    def test_files_of_networks_stay_and_names_are_written_out(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "names").write_text("a.example\n# no\n\nb.example\n")
        (folder / "networks").write_text("10.0.0.0/8\n")
        lines = (
            f"acl office src -f {folder.absolute()}/networks",
            f"acl ours req.ssl_sni -i -f {folder.absolute()}/names c.example",
            "tcp-request connection reject if !office",
            "use_backend a if ours",
            "default_backend b",
        )
        text = indent("\n".join(lines), "    ")
        found = converted(
            f"frontend f\n    bind :1\n{text}\nbackend a\n    server s 127.0.0.1:9\n"
            "backend b\n    server s 127.0.0.1:8\n"
        )
        self.assertIn(f"\nallow = @{folder.absolute()}/networks\n", found.text)
        self.assertIn("match = tls sni=a.example,b.example,c.example\n", found.text)
        self.assertIn("names:1: is written into the rules as it is now", found.warnings[0])

    def test_part_of_the_networks_of_a_file(self) -> None:
        found = frontend("use_backend a if { src 10.0.0.0/8 } { src -f /n }", "default_backend b")
        self.assertIn("asks for @/n and for other networks at once", looks(found)[0])
