import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import crypto
from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import Identity, authority, make_authority
from tests.support.folders import make_folder
from tests.support.mux import SSH, MuxTestCase
from tests.support.secure import SecurePeer, client_context, connect_tls
from txmux.client.tls import client_certificates
from txmux.client.tls.client_certificates import is_allowed
from txmux.control.worker_answers import explain_connection
from txmux.rules.model import Backend, Route, TlsSettings
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.route import allowed_client, certificate_condition
from txmux.telemetry.record import ConnectionRecord
from txmux.testing import steps_in
from txmux.wire.proxyprotocol.decode import Decoded, decode, parse_ssl
from txmux.wire.proxyprotocol.header import SslClient, TlvType

_ID = "spiffe://example.org/ns/prod/sa/api"


class AllowedTests(SynchronousTestCase):
    def fits(self, identity: Identity, *lines: str) -> bool:
        return is_allowed(identity.certificate, [allowed_client(line) for line in lines])

    def test_subjects_and_spiffe_ids(self) -> None:
        """All of a line have to fit, of one line."""
        issue = authority().issue
        alice, api = issue("alice", units=("ops", "Site Reliability")), issue("api", _ID)
        both, other = issue("api", _ID, "https://x.example/"), issue("x", "https://x.example/")
        for identity, fitting, others in (
            (alice, ("cn=alice", "cn=bob,alice", "cn=al*", "cn=~(alice|bob)"),
             ("cn=Alice", "cn=ali", "cn=~ali", "cn=alice?")),
            (alice, ("ou=ops", '"ou=Site Reliability"', "cn=alice ou=ops"),
             ("ou=dev", "cn=alice ou=dev")),
            (issue("ops"), (), ("ou=ops",)),
            (api, (f"spiffe={_ID}", "spiffe=spiffe://example.org/ns/prod/*"),
             (f"spiffe={_ID.upper().replace('SPIFFE', 'spiffe')}",
              "spiffe=spiffe://example.org/ns/prod")),
            (both, (), ("spiffe=spiffe://*",)), (other, (), ("spiffe=~.*",)),
        ):  # fmt: skip
            for line in (*fitting, *others):
                self.assertEqual(self.fits(identity, line), line in fitting, line)
        self.assertTrue(self.fits(alice, "cn=alice ou=dev", "ou=ops"))
        self.assertFalse(self.fits(alice, "cn=bob", "ou=dev"))

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
        self.assertEqual(client_certificates.of_verified(certificate).names["dns"], ())

    def test_worst_reason_counts(self) -> None:
        """A forged certificate is neither revoked nor expired, and a revoked one that has expired is revoked."""
        not_yet, expired, revoked, forged = 9, 10, 23, 7
        ours = client_certificates.NOT_ALLOWED, client_certificates.UNREADABLE
        order = [*ours, not_yet, expired, 11, 12, revoked, forged, 20]
        self.assertEqual([*map(client_certificates.order_rank, order)], [0, 0, 1, 1, 1, 1, 2, 3, 3])

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
            found = client_certificates.ClientVerification(tls)
            steps[count] = steps_in(lambda found=found: [*found.validity()])  # type: ignore[misc]
            missing = [one.name for one in found.validity() if one.is_missing]
            self.assertEqual(missing, [f"CN={number}" for number in range(count - 1)])
        self.assertLess(steps[40], 3 * steps[20])


_VERSION_3, _VERSION_6 = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"

_VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class CertificateTests(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.good = authority().issue("any.example", usage=False)
        self.staff = authority().issue("eve.staff.example.com", usage=False)
        self.bad = authority().issue("bad.staff.example.com", usage=False)
        self.lists = self.tls.folder / "crl.pem"
        self.lists.write_bytes(authority().revoke(self.bad))

    def when(self, condition: str, name: str = "") -> Route:
        made = self.tls.inner("any", name=name or condition.partition("=")[0])
        return attrs.evolve(made, client_cert=certificate_condition(condition))

    def with_header(self, condition: str) -> Route:
        made = self.when(condition)
        assert isinstance(made.outcome, Backend)
        to = attrs.evolve(made.outcome, proxy_protocol="v2", proxy_tlvs=("ssl",))
        return attrs.evolve(made, outcome=to)

    def asking(self, *routes: Route, **end: Any) -> int:
        settings: dict[str, Any] = {"client_ca": self.tls.ca, "client_crl": self.lists, **end}
        return self.mux([self.tls.route(client="optional", **settings), *routes])

    def context(self, identity: Identity | None, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.tls.ca))
        context.minimum_version = context.maximum_version = version
        if identity is not None:
            context.load_cert_chain(identity.write(self.tls.folder / "client.pem", key=True))
        return context

    async def record(
        self,
        port: int,
        context: ssl.SSLContext,
        session: ssl.SSLSession | None = None,
        *,
        is_resumed: bool = True,
    ) -> tuple[ConnectionRecord, ssl.SSLSession | None]:
        client, count = self.tls.peer(context=context), len(self.records)
        if session is not None:
            client.tls.session = session
        await connect_tls(self, port, client)
        await client.ready()
        client.send(SSH)
        server = await self.backend.peer(len(self.backend.peers))
        await server.tell(client, b"hello")
        self.assertEqual(client.tls.session_reused, is_resumed and session is not None)
        kept = client.tls.session
        client.reset()
        await self.until_logged(count + 1)
        return self.records[-1], kept

    def clients(self) -> client_certificates.ClientVerification:
        (route,) = self.factory.configuration.top.detector.routes
        assert route.terminator is not None
        assert route.terminator.store.made is not None
        found: client_certificates.ClientVerification | None = route.terminator.store.made.clients
        assert found is not None
        return found

    async def test_resumed_certificate_that_has_expired_since_is_none(self) -> None:
        """So is one of an authority between that has, and of one whose list of revoked ones has."""
        between = authority().authorise("Between", ends=10)
        chained = between.issue("chained.example", usage=False)
        path = self.tls.folder / "chained.pem"
        path.write_bytes(chained.pem + between.pem + chained.key_pem())
        for version in _VERSIONS:
            for identity, lists, days in (
                (self.good, None, 61), (chained, None, 11), (self.good, self.lists, 3),
            ):  # fmt: skip
                port = self.asking(self.when("any"), self.when("none"), client_crl=lists)
                context = self.context(identity, version)
                if identity is chained:
                    context.load_cert_chain(path)
                first, session = await self.record(port, context)
                again, session = await self.record(port, context, session)
                self.assertEqual((first.route, again.route), ("any", "any"))
                self.clients()._store.set_time(datetime.now(UTC) + timedelta(days=days))
                expired, _ = await self.record(port, context, session)
                self.assertEqual((expired.route, expired.facts["client_cert"]), ("none", "none"))

    async def test_six_kinds_of_clients_are_told_apart_also_when_they_resume(self) -> None:
        old = authority().issue("old.staff.example.com", begins=-2, ends=-1, usage=False)
        foreign = make_authority("Stranger").issue("x.staff.example.com", usage=False)
        conditions = ("revoked", "none", "san=*.Staff.example.com", "any")
        for version in _VERSIONS:
            port = self.asking(*map(self.when, conditions))
            for identity, route, found, error in (
                (None, "none", "none", None), (self.good, "any", "CN=any.example", None),
                (old, "none", "none", "expired on"), (self.bad, "revoked", "revoked", "was revoked by"),
                (foreign, "none", "none", "is of an authority that is not in tls_client_ca"),
                (self.staff, "san", "CN=eve.staff.example.com", None),
            ):  # fmt: skip
                session, context = None, self.context(identity, version)
                for _ in range(3):
                    record, session = await self.record(port, context, session)
                    facts = record.facts
                    self.assertEqual((record.route, facts["client_cert"]), (route, found))
                    self.assertIn(error or "", facts.get("client_cert_error", ""))
                    self.assertEqual("client_cert_error" in facts, error is not None)
                    self.assertEqual("tls_client" in facts, found not in {"none", "revoked"})

    async def test_route_for_all_behind_that_of_a_certificate(self) -> None:
        end = self.tls.route(client="optional", client_ca=self.tls.ca)
        routes = [end, self.when("any"), self.tls.inner("any", name="rest")]
        for version, has_transport in zip(_VERSIONS, (False, True), strict=True):
            port = self.mux(routes, mptcp=has_transport)  # that needs one from the beginning
            for identity, its_route in ((self.staff, "any"), (None, "rest")):
                record, _ = await self.record(port, self.context(identity, version))
                self.assertEqual(record.route, its_route)

    async def test_no_session_stands_for_a_certificate_that_is_required(self) -> None:
        end = self.tls.route(client="required", client_ca=self.tls.ca)
        for version in _VERSIONS:
            port = self.mux([end, self.tls.inner("any", name="rest")])
            context = self.context(self.good, version)
            _, session = await self.record(port, context)
            await self.record(port, context, session, is_resumed=False)

    async def test_revocation_and_new_authorities_count_for_resumed_sessions_at_once(self) -> None:
        port = self.asking(self.when("revoked"), self.when("none"), self.when("any"))
        context = self.context(self.staff, _VERSIONS[0])
        _, session = await self.record(port, context)
        self.lists.write_bytes(authority().revoke(self.bad, self.staff))
        self.time.advance(1.1)
        record, _ = await self.record(port, context, session, is_resumed=False)
        self.assertEqual((record.route, record.facts["client_cert"]), ("revoked", "revoked"))

    async def test_what_of_a_certificate_counts(self) -> None:
        """All conditions have to hold; with `allow_client`, others are none."""
        digest = self.staff.certificate.fingerprint(hashes.SHA256()).hex(":").upper()
        name = "CN=eve.staff.example.com"
        for condition, holds in (
            (f"subject={name} san=eve.* issuer=CN=Test* fingerprint={digest}", True),
            (f"fingerprint={'00' * 32},{digest}", True), (f"fingerprint={'00' * 32}", False),
            ("subject=cn=eve*", False), ("san=~eve[.](staff|ops)[.].*", True),
            ("san=*.staff.example.com issuer=CN=Other", False),
        ):  # fmt: skip
            port = self.asking(self.when(condition, "right"), self.when("any"))
            record, _ = await self.record(port, self.context(self.staff, _VERSIONS[1]))
            self.assertEqual(record.route, "right" if holds else "any", condition)
        allowed = (allowed_client("cn=*.staff.example.com"),)
        port = self.asking(self.when("none"), self.when("any"), allow_client=allowed)
        for identity, route, error in (
            (self.staff, "any", None),
            (self.good, "none",
             "the certificate of 'CN=any.example' is not one of those in allow_client"),
        ):  # fmt: skip
            session, context = None, self.context(identity, _VERSIONS[1])
            for _ in range(2):
                record, session = await self.record(port, context, session)
                self.assertEqual(record.route, route)
                self.assertEqual(record.facts.get("client_cert_error"), error)

    async def test_server_learns_what_was_found_and_when_it_was_shown(self) -> None:
        shown, before = SslClient.SSL | SslClient.CERT_CONN | SslClient.CERT_SESS, SslClient.SSL
        for version in _VERSIONS:
            port = self.asking(self.with_header("any"), self.with_header("none"))
            for identity, first, again, verify, name in (
                (None, before, before, 1, None),
                (self.good, shown, shown & ~SslClient.CERT_CONN, 0, b"any.example"),
                (self.bad, shown, shown & ~SslClient.CERT_CONN, 23, None),
            ):
                session, context = None, self.context(identity, version)
                for client in (first, again):
                    _, session = await self.record(port, context, session)
                    read = decode(bytes(self.backend.peers[-1].received))
                    assert isinstance(read, Decoded)
                    ssl_info = parse_ssl(read.header.value_of(TlvType.SSL) or b"")
                    self.assertEqual((ssl_info.client, ssl_info.verify), (client, verify))
                    self.assertEqual(ssl_info.value_of(TlvType.SSL_CN), name)

    async def test_certificate_that_cannot_be_read_is_none(self) -> None:
        """OpenSSL takes it for one; with `required`, it is refused like any other."""
        odd = self.tls.folder / "odd.pem"
        encoded = self.good.certificate.public_bytes(serialization.Encoding.DER)
        encoded = encoded.replace(_VERSION_3, _VERSION_6, 1)
        odd.write_text(ssl.DER_cert_to_PEM_cert(encoded) + self.good.key_pem().decode())
        for version in self.anew(_VERSIONS):
            context = self.context(None, version)
            context.load_cert_chain(odd)
            record, _ = await self.record(self.asking(self.when("none")), context)
            self.records.clear()
            self.assertEqual(
                record.facts["client_cert_error"], "the client's certificate cannot be read"
            )
            port = self.mux([self.tls.route(client_ca=self.tls.ca), self.tls.inner()])
            await connect_tls(self, port, client := self.tls.peer(context=context))
            await client.failed()
            refused = await self.assert_logged(reason="tls-failed")
            self.assertEqual(refused.facts["tls_error"], "the client's certificate cannot be read")

    async def test_forged_certificate_is_not_revoked_though_it_names_one_that_is(self) -> None:
        encoded = bytearray(self.bad.certificate.public_bytes(serialization.Encoding.DER))
        encoded[-1] ^= 1  # of the signature
        forged = self.tls.folder / "forged.pem"
        forged.write_text(ssl.DER_cert_to_PEM_cert(encoded) + self.bad.key_pem().decode())
        for version in _VERSIONS:
            session, context = None, self.context(None, version)
            context.load_cert_chain(forged)
            port = self.asking(self.when("revoked"), self.when("none"))
            for _ in range(2):
                record, session = await self.record(port, context, session)
                self.assertEqual((record.route, record.facts["client_cert"]), ("none", "none"))
        clients = self.clients()
        shown = crypto.load_certificate(crypto.FILETYPE_PEM, forged.read_bytes())
        self.assertEqual(str(clients.judge(shown, ())), "none")
        for identity, found in ((self.bad, "revoked"), (self.good, "CN=any.example")):
            shown = crypto.X509.from_cryptography(identity.certificate)
            self.assertEqual(str(clients.judge(shown, ())), found)

    async def test_live_connection_is_explained_by_its_certificate(self) -> None:
        port = self.asking(self.when("none"), self.when("any"))
        client = await connect_tls(
            self, port, self.tls.peer(context=self.context(self.good, _VERSIONS[1]))
        )
        await client.ready()
        client.send(SSH)
        await self.backend.heard(len(SSH))
        (one,) = self.factory.connections
        routes = explain_connection(one)["routes"]
        found = [(route["route"], route["says"], route["excluded_by"]) for route in routes]
        self.assertEqual(
            found,
            [("tls", "match", None), ("none", "not asked", "client_cert"), ("any", "match", None)],
        )

    async def test_tls_inside_tls_keeps_what_the_outer_one_showed(self) -> None:
        """Unless the inner one asks, too; then nothing is told of the outer one's certificate."""
        asking: dict[str, Any] = {"client_ca": self.tls.ca, "client": "optional"}
        context = self.context(self.good, _VERSIONS[1])
        for number, (inner, route, found, shown) in enumerate(
            (({}, "any", "CN=any.example", "CN=any.example"), (asking, "none", "none", None)), 1
        ):
            made = [self.tls.route(**asking), self.tls.route("inner", under="tls", **inner)]
            made += [attrs.evolve(self.when(one), under=("inner",)) for one in ("none", "any")]
            client = SecurePeer((context, "a.example"), (client_context(self.tls.ca), "a.example"))
            await connect_tls(self, self.mux(made), client)
            await client.ready()
            client.send(SSH)
            await (await self.backend.peer(number - 1)).has(len(SSH))
            client.reset()
            await self.until_logged(number)
            facts = self.records[-1].facts
            self.assertEqual((self.records[-1].route, facts["client_cert"]), (route, found))
            self.assertEqual(facts.get("tls_client"), shown)
