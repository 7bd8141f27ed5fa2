from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import Identity, authority, make_authority
from tests.support.folders import make_folder
from txmux.client.tls.client_certificates import (
    NOT_ALLOWED,
    UNREADABLE,
    ClientVerification,
    is_allowed,
    of_verified,
    order_rank,
)
from txmux.rules.model import TlsSettings
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.route import allowed_client
from txmux.testing import steps_in

_ID = "spiffe://example.org/ns/prod/sa/api"


class AllowedTests(SynchronousTestCase):
    def fits(self, identity: Identity, *lines: str) -> bool:
        return is_allowed(identity.certificate, [allowed_client(line) for line in lines])

    def test_common_name(self) -> None:
        alice = authority().issue("alice")
        for text, expected in (
            ("cn=alice", True), ("cn=bob,alice", True), ("cn=al*", True),
            ("cn=~(alice|bob)", True), ("cn=Alice", False), ("cn=ali", False), ("cn=~ali", False),
            ("cn=alice?", False),
        ):  # fmt: skip
            self.assertEqual(self.fits(alice, text), expected, text)

    def test_units(self) -> None:
        alice = authority().issue("alice", units=("ops", "Site Reliability"))
        self.assertTrue(self.fits(alice, "ou=ops"))
        self.assertTrue(self.fits(alice, '"ou=Site Reliability"'))
        self.assertFalse(self.fits(alice, "ou=dev"))
        self.assertFalse(self.fits(authority().issue("ops"), "ou=ops"))

    def test_alternative_names(self) -> None:
        """Each kind is compared as it is used: hosts and the domains of addresses without case, networks by their addresses."""
        one = authority().issue(
            "Host.Example", "192.0.2.7", "2001:db8::7", "Ann@B.example", "https://x.example/Y"
        )
        for kind, fitting, others in (
            ("", "host.example *.EXAMPLE host* ~Host[.](EXAMPLE|t)", "example *b.example *@*"),
            ("DNS:", "host.example host.example,x ~.*", "x 192.0.2.7"),
            ("email:", "Ann@b.Example *@b.example ~ann@.*", "ann@b.example *@host.example"),
            ("uri:", "https://x.example/Y https://*", "https://x.example/y *host*"),
            ("ip:", "192.0.2.7 192.0.2.0/24 2001:DB8:0::7 2001:db8::/32,::1", "192.0.2.8 ::/8"),
        ):
            for text in fitting.split():
                self.assertTrue(self.fits(one, f"san={kind}{text}"), (kind, text))
            for text in others.split():
                self.assertFalse(self.fits(one, f"san={kind}{text}"), (kind, text))
            self.assertFalse(self.fits(authority().issue(), f"san={kind}{fitting.split()[0]}"))
        self.assertTrue(self.fits(one, "san=*.example san=email:*@b.example"))
        self.assertFalse(self.fits(one, "san=*.example san=email:*@c.example"))

    @given(
        st.sampled_from(["dns", "email", "uri", "ip"]),
        st.sampled_from(["Host.t", "A@host.t", "https://host.t/", "192.0.2.7", "2001:db8::7"]),
    )
    def test_no_name_fits_a_pattern_of_another_kind(self, kind: str, name: str) -> None:
        its = "email" if "@" in name else "uri" if "/" in name else "ip"
        its = "dns" if name == "Host.t" else its
        pattern = {"email": "*@*", "ip": "0.0.0.0/0,::/0"}.get(kind, "*")
        self.assertEqual(self.fits(authority().issue(name), f"san={kind}:{pattern}"), its == kind)

    def test_alternative_names_of_a_kind_that_cannot_be_read(self) -> None:
        """A name by EDI (RFC 5280, section 4.2.1.6); no name of such a certificate fits, and its subject does."""
        odd = x509.SubjectAlternativeName.oid, bytes.fromhex("3008a506a1040c026162")
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now)
        certificate = builder.add_extension(x509.UnrecognizedExtension(*odd), critical=False).sign(
            key, hashes.SHA256()
        )
        self.assertFalse(is_allowed(certificate, [allowed_client("san=*")]))
        self.assertTrue(is_allowed(certificate, [allowed_client("cn=alice")]))
        self.assertEqual(of_verified(certificate).names["dns"], ())

    def test_spiffe(self) -> None:
        api = authority().issue("api", _ID)
        self.assertTrue(self.fits(api, f"spiffe={_ID}"))
        self.assertTrue(self.fits(api, "spiffe=spiffe://example.org/ns/prod/*"))
        self.assertFalse(self.fits(api, f"spiffe={_ID.upper().replace('SPIFFE', 'spiffe')}"))
        self.assertFalse(self.fits(api, "spiffe=spiffe://example.org/ns/prod"))
        both = authority().issue("api", _ID, "https://x.example/")
        self.assertFalse(self.fits(both, "spiffe=spiffe://*"))
        self.assertFalse(self.fits(authority().issue("x", "https://x.example/"), "spiffe=~.*"))

    def test_together(self) -> None:
        alice = authority().issue("alice", units=("ops",))
        self.assertTrue(self.fits(alice, "cn=alice ou=ops"))
        self.assertFalse(self.fits(alice, "cn=alice ou=dev"))
        self.assertTrue(self.fits(alice, "cn=alice ou=dev", "ou=ops"))
        self.assertFalse(self.fits(alice, "cn=bob", "ou=dev"))


class RankTests(SynchronousTestCase):
    def test_worst_reason_counts(self) -> None:
        """A forged certificate is neither revoked nor expired, and a revoked one that has expired is revoked."""
        not_yet, expired, revoked, forged = 9, 10, 23, 7
        order = [NOT_ALLOWED, UNREADABLE, not_yet, expired, 11, 12, revoked, forged, 20]
        self.assertEqual([*map(order_rank, order)], [0, 0, 1, 1, 1, 1, 2, 3, 3])


class LineTests(SynchronousTestCase):
    def test_errors(self) -> None:
        for text, expected in (
            ("alice",
             "'alice' is not of the form KIND=PATTERN; write for example 'cn=alice ou=ops'"),
            ("un=x", "unknown 'un' (possible are cn=, ou=, san=, spiffe=)"),
            ("cn=", "cn='' has an empty item"),
            ("cn=a cn=b", "'cn' is given twice; put commas between the patterns"),
            ("san=a san=DNS:b", "'san=dns:' is given twice; put commas between the patterns"),
            ("san=mail:a@b",
             "unknown kind 'mail'; did you mean 'email'? (possible are dns:, email"),
            ("san=a.t:8443", "unknown kind 'a.t' (possible are dns:, email:, uri:, ip:)"),
            ("san=a,uri:x://b", "'uri:' stands only before the first pattern; give it a word"),
            ("san=email:example.org", "'example.org' has no '@'; write for example *@example.com"),
            ("san=ip:10.0.0.*", "'10.0.0.*' is not a network"),
            ("san=uri:", "'' has an empty item"),
            ("spiffe=example.org",
             "'example.org' is no SPIFFE ID; write spiffe://TRUST-DOMAIN/PATH"),
        ):  # fmt: skip
            error = self.assertRaises(InvalidValueError, allowed_client, text)
            self.assertIn(expected, str(error).replace(": ", "="), text)
        error = self.assertRaises(InvalidValueError, allowed_client, "a b")
        self.assertEqual(len(error.messages), 2)

    def test_same(self) -> None:
        """What is written alike is the same, so that a reload keeps the sessions of clients."""
        self.assertEqual(allowed_client("cn=~a|b"), allowed_client("cn=~a|b"))
        self.assertEqual(hash(allowed_client("cn=~a|b")), hash(allowed_client("cn=~a|b")))
        self.assertNotEqual(allowed_client("cn=a"), allowed_client("cn=b"))


class ListsTests(SynchronousTestCase):
    def test_steps(self) -> None:
        """Which authorities have no list of their own is found in a time that grows with their number; the names count, and the keys."""
        folder, steps = make_folder(self), {}
        authorities = [make_authority(f"{number}") for number in range(40)]
        others = [make_authority(f"{number}") for number in range(39)]
        for count in (20, 40):
            path, lists = folder / f"{count}.pem", folder / f"{count}-lists.pem"
            path.write_bytes(b"".join(one.pem for one in authorities[:count]))
            signed = [*others[: count - 1], authorities[count - 1]]
            lists.write_bytes(b"".join(one.revoke() for one in signed))
            tls = TlsSettings((path,), client_ca=path, client_crl=lists)
            found = ClientVerification(tls)
            steps[count] = steps_in(lambda found=found: [*found.validity()])  # type: ignore[misc]
            missing = [one.name for one in found.validity() if one.is_missing]
            self.assertEqual(missing, [f"CN={number}" for number in range(count - 1)])
        self.assertLess(steps[40], 3 * steps[20])
