import functools
from pathlib import Path
from textwrap import indent

from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, rules_of
from tests.convert.haproxy.pieces import frontend
from txmux.rules.model.client_certificate import CertificateCondition

_ASKS = "bind :443 ssl crt /x ca-file /ca verify optional"
_ATTRIBUTES = st.builds(
    x509.NameAttribute,
    st.sampled_from([NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.SURNAME]),
    st.sampled_from(["alice", "ALICE", "alice,CN=alice", "x+CN=alice", "CN=alice", "a\\,CN=alice"]),
)


@functools.cache
def _condition(test: str) -> CertificateCondition:
    output = rules_of(frontend(f"use_backend a if {test}", bind=_ASKS)).routes[1].client_cert
    assert output is not None
    return output


class CertificateTests(SynchronousTestCase):
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
