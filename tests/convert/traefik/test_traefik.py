from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import PORTS, attempt, converted, looks, matchers, rules_of
from tests.support.folders import make_folder
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


class TraefikTests(SynchronousTestCase):
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

    def test_toml_means_the_same(self) -> None:
        text = f"entryPoints: {{a: {{address: ':81'}}}}\ntcp:\n  routers: {{x: {{rule: 'HostSNI(`*`)', service: a}}}}\n{_SERVICES}"
        for key in ("filename", "directory"):
            whole = f"{text}providers: {{file: {{{key}: gone}}}}\n"
            self.assertEqual(len(looks(converted(whole, name=str(self.folder / "x.yml")))), 1)
        text = """
            [entryPoints.db]
            address = ":3306"
            [tcp.routers.db]
            rule = "HostSNI(`a.example`)"
            service = "db"
            [tcp.routers.db.tls]
            passthrough = true
            [[tcp.services.db.loadBalancer.servers]]
            address = "127.0.0.1:1"
            """
        output = converted(text, name="traefik.toml")
        self.assertIn("\nmatch = tls sni=a.example\nbackend = db\n", output.text)
        self.assertNotIn("\ndefault", output.text)

    def test_one_error_where_nothing_can_be_converted(self) -> None:
        bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{b}: &{b} [{','.join(f'*{a}' for _ in range(10))}]\n"
            for a, b in zip("abcdefg", "bcdefgh", strict=True)
        )
        for text, name, why in (
            ("entryPoints: {}", "x.yml", "no tcp.routers or udp.routers"),
            ("tcp: {routers: {x: {rule: x}}}", "x.yml", "--entrypoint websecure=:443"),
            ("tcp: {", "x.yml", "x.yml:1: is not YAML"), ("tcp: &a {x: *a}", "x.yml", "nested too deeply"),
            ("[" * 5000, "x.yml", "nested too deeply"), (bomb, "x.yml", "too large"),
            ("tcp = ", "x.toml", "is not TOML"), ("x: y", "x.yml", "no tcp.routers"),
        ):  # fmt: skip
            error = self.assertRaises(ConvertError, converted, text, "traefik", name)
            self.assertIn(why, str(error))

    @given(st.lists(_TOKENS, max_size=12))
    def test_any_rule(self, words: list[str]) -> None:
        rule = " ".join(words)
        text = f"entryPoints: {{a: {{address: ':1'}}}}\ntcp:\n  routers: {{x: {{rule: '{rule}', service: a, {_PASSED}}}}}\n{_SERVICES}"
        attempt(text, "traefik")

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        attempt(text, "traefik")

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
        found = [listener.endpoints for listener in rules_of(output).listeners]
        self.assertEqual(found, [(":443",), ("udp:127.0.0.1:53",)])
        (told,) = looks(output)
        self.assertIn("router b: is left out at other: there is no such entry point", told)
        for addresses in ({}, {"web": ":80"}):
            error = self.assertRaises(ConvertError, given, **addresses)
            self.assertIn("(websecure, other, dns), as in --entrypoint websecure=:443", str(error))
        asked = (b"", "x", matchers(), PORTS.get, "nginx")
        error = self.assertRaises(ConvertError, convert, *asked, entry_points={"a": ":1"})
        self.assertIn("--entrypoint is for files of Traefik", str(error))
