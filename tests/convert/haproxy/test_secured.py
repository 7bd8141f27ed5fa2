import functools
from pathlib import Path
from textwrap import indent

from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of
from tests.convert.haproxy.pieces import frontend
from txmux.rules.model import Backend
from txmux.rules.model.client_certificate import CertificateCondition

_TLS = "bind :443 ssl crt /x alpn h2,http/1.1"
_ASKS = "bind :443 ssl crt /x ca-file /ca verify optional"
_ATTRIBUTES = st.builds(
    x509.NameAttribute,
    st.sampled_from([NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.SURNAME]),
    st.sampled_from(["alice", "ALICE", "alice,CN=alice", "x+CN=alice", "CN=alice", "a\\,CN=alice"]),
)
_SILENT = "for clients that are silent inside TLS, the route's backend alone decides"


@functools.cache
def _condition(test: str) -> CertificateCondition:
    output = rules_of(frontend(f"use_backend a if {test}", bind=_ASKS)).routes[1].client_cert
    assert output is not None
    return output


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


class CertificateTests(SynchronousTestCase):
    def routes(self, condition: str, bind: str = _ASKS) -> list[str]:
        """Give where clients of a condition go, ``a`` by it and ``b`` otherwise; what else is left out comes first."""
        output = frontend(f"use_backend a if {condition}", "default_backend b", bind=bind)
        lost = [look for look in looks(output) if _SILENT not in look]
        made = []
        for route in rules_of(output).routes:
            words = sorted(route.client_cert.words) if route.client_cert else ["all others"]
            assert isinstance(route.outcome, Backend)
            made.append(f"{' '.join(words)}: {route.outcome.name}")
        return [*(["lost"] * len(lost)), *made[1:], *made[:1]]

    def test_any_or_none(self) -> None:
        for condition, *made in (
            ("{ ssl_c_used }", "any: a", "all others: b"),
            ("{ ssl_c_used 1 } { ssl_c_verify 0 }", "any: a", "all others: b"),
            ("!{ ssl_c_used }", "any: b", "all others: a"),
            ("{ ssl_c_verify 0 }", "all others: a"),
            ("{ ssl_c_used 0 }", "lost", "all others: b"),
            ("{ ssl_c_verify 10 }", "lost", "all others: b"),
        ):
            self.assertEqual(self.routes(condition), made, condition)

    def test_names(self) -> None:
        [made, _] = self.routes("{ ssl_c_s_dn(cn) alice } { ssl_c_i_dn(CN) -i ours }")
        self.assertRegex(made, r"^any issuer=~.*\(\?i:ours\).* subject=~.*\(\?:alice\).*: a$")
        for condition in (
            "{ ssl_c_s_dn /CN=alice }", "{ ssl_c_s_dn(cn) -m reg ^a }",
            "{ ssl_c_s_dn(cn,2) alice }", "{ ssl_c_s_dn(cn) a,b }", "{ ssl_c_s_dn(o) Example }",
        ):  # fmt: skip
            self.assertEqual(self.routes(condition), ["lost", "all others: b"], condition)

    def test_certificates_that_every_client_has_or_none(self) -> None:
        required = _ASKS.replace("optional", "required")
        for bind, condition, *made in (
            (required, "{ ssl_c_used }", "all others: a"),
            (_TLS, "{ ssl_c_used }", "all others: b"),
            (_TLS, "{ ssl_c_verify 0 }", "all others: a"),
            (_TLS, "{ ssl_c_s_dn(cn) alice }", "all others: b"),
            ("bind :443", "{ ssl_c_verify 0 }"),
        ):
            self.assertEqual(self.routes(condition, bind), made, (bind, condition))
        self.assertIn("subject=", self.routes("{ ssl_c_s_dn(cn) alice }", required)[0])

    @given(st.lists(st.lists(_ATTRIBUTES, min_size=1, unique_by=lambda one: one.oid), max_size=4))
    def test_first_common_name_counts(self, parts: list[list[x509.NameAttribute[str]]]) -> None:
        name = x509.Name(map(x509.RelativeDistinguishedName, parts))
        [first, *_] = [*name.get_attributes_for_oid(NameOID.COMMON_NAME), None]
        [(_, globs)] = _condition("{ ssl_c_s_dn(cn) alice }").patterns
        fits = globs.matches(name.rfc4514_string())
        self.assertEqual(fits, first is not None and first.value == "alice")

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
        output = converted(
            f"frontend f\n    bind :1\n{text}\nbackend a\n    server s 127.0.0.1:9\n"
            "backend b\n    server s 127.0.0.1:8\n"
        )
        self.assertIn(f"\nallow = @{folder.absolute()}/networks\n", output.text)
        self.assertIn("match = tls sni=a.example,b.example,c.example\n", output.text)
        self.assertIn("names:1: is written into the rules as it is now", output.warnings[0])
