from textwrap import indent
from unittest import SkipTest

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import PORTS, attempt, converted, looks, matchers, rules_of
from tests.support.folders import make_folder
from txmux.rules.model import Backend
from txmux.rules.optional import missing
from txmux_convert.formats import Conversion, convert
from txmux_convert.writer import ConvertError

_SERVICES = """\
  services:
    a: {loadBalancer: {servers: [{address: "127.0.0.1:1"}]}}
    b: {loadBalancer: {servers: [{address: "127.0.0.1:2"}]}}
"""
_PASSED = "tls: {passthrough: true}"
_TOKENS = st.sampled_from(
    [
        *("||", "&&", "HostSNI(`a.example`)", "HostSNI(`*`)", "ClientIP(`10.0.0.0/8`)"),
        *("ALPN(`h2`)", "X", *"()!,{}[]:"),
    ]
)


def points(*routers: str, more: str = "", point: str = "", top: str = "") -> Conversion:
    lines = "".join(
        f"    r{n}:\n      rule: '{rule}'\n      service: {service}\n{indent(rest.strip(), '      ')}\n"
        for n, (rule, service, rest) in enumerate(
            r.split(" -> ")[0:1] + (r.split(" -> ")[1] + "  ").split(" ", 1) for r in routers
        )
    )
    return converted(
        f"{top}entryPoints:\n  one:\n    address: ':443'\n{indent(point, '    ')}\ntcp:\n  routers:\n{lines}{_SERVICES}{more}"
    )


def led(output: Conversion) -> list[tuple[list[str], str]]:
    rules = rules_of(output)
    outcomes = [*(r.outcome for r in rules.routes), rules.listeners[0].default]
    names = [outcome.name if isinstance(outcome, Backend) else "close" for outcome in outcomes]
    lines = [[a.text for a in r.alternatives] for r in rules.routes]
    return list(zip([*lines, ["default"]], names, strict=True))


class RouterTests(SynchronousTestCase):
    def test_operators(self) -> None:
        for rule, lines in (
            ("HostSNI(`a.example`) && ALPN(`h2`)", ["tls sni=a.example alpn=h2"]),
            ("(HostSNI(`a.example`) || HostSNI(`b.example`)) && ClientIP(`10.0.0.1`)",
             ["tls sni=a.example", "tls sni=b.example"]),
            ("HostSNI(`a.example`, `b.example`)", ["tls sni=a.example", "tls sni=b.example"]),
            ("HostSNI(`a.example`) && !ClientIP(`10.0.0.0/8`)", ["tls sni=a.example"]),
            ("HostSNIRegexp(`^.*$`)", ["tls"]),
            ("HostSNI(`none`)", ["tls sni=~none"]),
        ):  # fmt: skip
            output = points(f"{rule} -> a {_PASSED}")
            self.assertEqual(led(output)[0], (lines, "a"), output.text)
            self.assertEqual(looks(output), [])
        self.assertIn(
            "not_from = 10.0.0.0/8", points(f"!ClientIP(`10.0.0.0/8`) -> a {_PASSED}").text
        )

    def test_lost_rules_are_a_look(self) -> None:
        for router in (
            f"!HostSNI(`a.example`) -> a {_PASSED}", f"HostSNI(`a.example`) & -> a {_PASSED}",
            f"HostSNI(`a.example` -> a {_PASSED}", f"Host(`a.example`) -> a {_PASSED}",
            f"HostSNIRegexp(`{{x:[a-z]+}}.example`) -> a {_PASSED}",
            f"ClientIP(`x`) -> a {_PASSED}", "HostSNI(`a.example`) -> a",
            f"HostSNI(`a.example`) -> nobody {_PASSED}",
            f"HostSNI(`a.example`) -> a {_PASSED}\nmiddlewares: [nobody]",
            "HostSNI(`a.example`) -> a tls: {certResolver: x}",
        ):  # fmt: skip
            output = points(router)
            self.assertEqual(len(looks(output)), 1, output.text)
            self.assertNotIn("\n[route a]", output.text)

    def resolved(self, router: str, acme: str) -> Conversion:
        return points(router, more=f"certificatesResolvers:\n  le: {{acme: {{{acme}}}}}\n")

    def test_resolver(self) -> None:
        """What Traefik gets by ACME, txmux gets, too, for the names of the rule or of the domains; else somebody has to look."""
        if why := missing("acme"):
            raise SkipTest(why)
        acme = "email: ops@a.example, storage: acme.json, tlsChallenge: {}"
        output = self.resolved("HostSNI(`a.example`) -> a tls: {certResolver: le}", acme)
        settings = output.text[: output.text.index("[listen")]
        for line in ("acme = letsencrypt", "acme_terms = yes", "acme_email = ops@a.example"):
            self.assertIn(line, settings)
        (end,) = [route.terminate_tls for route in rules_of(output).routes]
        self.assertEqual(end and end.managed, ("a.example",))
        self.assertEqual(looks(output), [])
        domains = "tls: {certResolver: le, domains: [{main: b.example, sans: [c.example]}]}"
        staged = f"{acme}, caServer: https://acme-staging-v02.api.letsencrypt.org/directory"
        output = self.resolved(f"HostSNI(`*`) -> a {domains}", staged)
        self.assertIn("acme = letsencrypt-staging", output.text)
        self.assertIn("terminate_tls = acme b.example, c.example", output.text)
        for router, told, at in (
            ("HostSNI(`*`) -> a tls: {certResolver: le}", acme, 10),
            ("HostSNI(`a.example`) -> a tls: {certResolver: le}", "dnsChallenge: {provider: x}", 7),
            ("HostSNI(`*`) -> a tls: {options: gone,\n certResolver: le}", acme, 7),
        ):
            output = self.resolved(router, told)
            self.assertIn(f"line {at}: router r0: its clients are closed", looks(output)[-1])
            self.assertNotIn("\nterminate_tls", output.text)

    def test_other_tls_options_are_warned_of(self) -> None:
        for option, word in (
            ("maxVersion: VersionTLS12", "TLS 1.3 is always spoken"),
            ("minVersion: VersionTLS10", "TLS 1.2 and 1.3 are spoken"),
            ("cipherSuites: [TLS_AES_128_GCM_SHA256]", "txmux chooses the ciphers"),
            ("curvePreferences: [X25519]", "txmux chooses the curves"),
            ("disableSessionTickets: true", "txmux has fixed settings of TLS"),
            ("sniStrict: true", "get the first one"),
        ):
            more = f"tls:\n  certificates: [{{certFile: /b.pem, keyFile: /b.key}}]\n  options: {{default: {{{option}}}}}\n"
            output = points("HostSNI(`a.example`) -> a tls: {}", more=more)
            (told,) = output.warnings
            self.assertIn(f"{option.partition(':')[0]}: has no counterpart", told)
            self.assertIn(word, told)
            self.assertEqual(looks(output), [])
            output = points("HostSNI(`*`) -> a tls: {}", more=more)
            self.assertEqual(len(looks(output)), option.startswith("sniStrict"))
        for option in ("maxVersion: VersionTLS13", "minVersion: VersionTLS12", "sniStrict: false"):
            more = f"tls:\n  certificates: [{{certFile: /b.pem, keyFile: /b.key}}]\n  options: {{default: {{{option}}}}}\n"
            self.assertEqual(points("HostSNI(`a.example`) -> a tls: {}", more=more).warnings, ())

    def test_entry_points_of_the_caller(self) -> None:
        text = (
            "tcp:\n  routers:\n"
            f"    a: {{rule: HostSNI(`a`), service: a, entryPoints: [websecure], {_PASSED}}}\n"
            f"    b: {{rule: HostSNI(`b`), service: b, entryPoints: [websecure, other], {_PASSED}}}\n"
            f"{_SERVICES}udp:\n  routers: {{c: {{service: c, entryPoints: [dns]}}}}\n"
            '  services: {c: {loadBalancer: {servers: [{address: "10.0.0.1:53"}]}}}\n'
        ).encode()

        def given(**addresses: str) -> Conversion:
            return convert(text, "x.yml", matchers(), PORTS.get, entry_points=addresses)

        output = given(websecure=":443", dns="127.0.0.1:53/udp")
        self.assertEqual(
            [listener.endpoints for listener in rules_of(output).listeners],
            [(":443",), ("udp:127.0.0.1:53",)],
        )
        (told,) = looks(output)
        self.assertIn("router b: is left out at other: there is no such entry point", told)
        for addresses in ({}, {"web": ":80"}):
            error = self.assertRaises(ConvertError, given, **addresses)
            self.assertIn("(websecure, other, dns), as in --entrypoint websecure=:443", str(error))
        error = self.assertRaises(
            ConvertError,
            convert,
            b"",
            "x",
            matchers(),
            PORTS.get,
            "nginx",
            entry_points={"a": ":1"},
        )
        self.assertIn("--entrypoint is for files of Traefik", str(error))


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)

    def test_provided_files_and_their_lines(self) -> None:
        (self.folder / "dynamic").mkdir()
        file = self.folder / "dynamic" / "tcp.toml"
        file.write_text(
            '[tcp.routers.db]\nentryPoints = ["db"]\nrule = "HostSNI(`*`)"\nservice = "db"\n'
            '[tcp.routers.bad]\nrule = "Host(`*`)"\nservice = "db"\n'
            '[tcp.services.db.loadBalancer]\n[[tcp.services.db.loadBalancer.servers]]\naddress = "127.0.0.1:1"\n'
        )
        (self.folder / "one.yml").write_text("tcp: {}\n")
        main = self.folder / "traefik.yml"
        output = converted(
            "entryPoints:\n  db:\n    address: :3306\nproviders:\n  docker: {}\n"
            "  file: {directory: dynamic, filename: one.yml}\n",
            name=str(main),
        )
        self.assertEqual(len(rules_of(output).listeners), 1)
        told = [warning.partition(" ")[0] for warning in output.warnings]
        self.assertEqual(told, [f"{main}:5:", f"{file}:5:"])

    def test_missing_file(self) -> None:
        text = f"entryPoints: {{a: {{address: ':81'}}}}\ntcp:\n  routers: {{x: {{rule: 'HostSNI(`*`)', service: a}}}}\n{_SERVICES}"
        for key in ("filename", "directory"):
            output = converted(
                f"{text}providers: {{file: {{{key}: gone}}}}\n", name=str(self.folder / "x.yml")
            )
            self.assertEqual(len(looks(output)), 1)

    def test_toml(self) -> None:
        output = converted(
            """
            [entryPoints.db]
            address = ":3306"
            [tcp.routers.db]
            rule = "HostSNI(`a.example`)"
            service = "db"
            [tcp.routers.db.tls]
            passthrough = true
            [[tcp.services.db.loadBalancer.servers]]
            address = "127.0.0.1:1"
            """,
            name="traefik.toml",
        )
        self.assertEqual(led(output), [(["tls sni=a.example"], "db"), (["default"], "close")])

    def test_one_error_where_nothing_can_be_converted(self) -> None:
        bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{b}: &{b} [{','.join(f'*{a}' for _ in range(10))}]\n"
            for a, b in zip("abcdefg", "bcdefgh", strict=True)
        )
        for text, name, why in (
            ("entryPoints: {}", "x.yml", "no tcp.routers or udp.routers"),
            ("tcp: {routers: {x: {rule: x}}}", "x.yml", "--entrypoint websecure=:443"),
            ("tcp: {", "x.yml", "x.yml:1: is not YAML"),
            ("tcp: &a {x: *a}", "x.yml", "nested too deeply"),
            ("[" * 5000, "x.yml", "nested too deeply"),
            (bomb, "x.yml", "too large"),
            ("tcp = ", "x.toml", "is not TOML"),
            ("x: y", "x.yml", "no tcp.routers"),
        ):
            error = self.assertRaises(ConvertError, converted, text, "traefik", name)
            self.assertIn(why, str(error))

    @given(st.lists(_TOKENS, max_size=12))
    def test_any_rule(self, words: list[str]) -> None:
        rule = " ".join(words)
        attempt(
            f"entryPoints: {{a: {{address: ':1'}}}}\ntcp:\n  routers: {{x: {{rule: '{rule}', service: a, {_PASSED}}}}}\n{_SERVICES}",
            "traefik",
        )

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        attempt(text, "traefik")
