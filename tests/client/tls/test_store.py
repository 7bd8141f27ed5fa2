import contextlib
import errno
import itertools
import os
import ssl
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import authority, make_authority, rsa_pem
from tests.support.folders import make_folder
from txmux.client.tls.client_certificates import NOT_ALLOWED
from txmux.client.tls.contexts import Contexts
from txmux.client.tls.store import CertificateStore
from txmux.client.tls.terminators import TlsTerminators
from txmux.files import state_at
from txmux.net import watched
from txmux.net.tls.errors import TLSFileError
from txmux.rules.model import Route, Rules, Settings, TlsSettings
from txmux.rules.reading.route import allowed_client
from txmux.telemetry.formatting import utc_time


class Handshake:
    """A client and a server that shake hands in memory, with session tickets and all."""

    def __init__(
        self, server: SSL.Context | SSL.Connection, client: ssl.SSLContext, **options: Any
    ) -> None:
        if isinstance(server, SSL.Context):
            server = SSL.Connection(server, None)
        self.server = server
        self.server.set_accept_state()
        self.server.set_app_data(SimpleNamespace(distrusted=None))
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client.wrap_bio(self._incoming, self._outgoing, **options)

    def step(self) -> None:
        """Go a step further; what the server says reaches the client even if it raises."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.client.do_handshake()
            self.client.read(1)
        if self._outgoing.pending:
            self.server.bio_write(self._outgoing.read())
        try:
            with contextlib.suppress(SSL.WantReadError):
                self.server.do_handshake()
        finally:
            with contextlib.suppress(SSL.WantReadError):
                self._incoming.write(self.server.bio_read(2**16))

    def finish(self) -> ssl.SSLObject:
        for _ in range(3):
            self.step()
        return self.client


def credulous(own: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if own is not None:
        context.load_cert_chain(own)
    return context


def is_resumed(before: SSL.Context, after: SSL.Context) -> bool:
    """Tell whether a client's session with one context goes on with another."""
    context = credulous()
    client = Handshake(before, context).finish()
    return bool(Handshake(after, context, session=client.session).finish().session_reused)


def shown(context: SSL.Context, ciphers: str = "") -> x509.Certificate:
    expected = credulous()
    if ciphers:
        expected.maximum_version = ssl.TLSVersion.TLSv1_2
        expected.set_ciphers(ciphers)
    client = Handshake(context, expected).finish()
    return x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")


def name_of(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


class CertificatesTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.clock = Clock()
        self.authority = make_authority()
        self._times = itertools.count(10**9)
        self.events: list[Any] = []
        observe: Any = self.events.append
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def pem(self, *names: str, file: str = "") -> Path:
        identity = authority().issue(*names)
        path = identity.write(self.folder / (file or f"{names[0]}.pem"), key=True)
        # Older kernels would give what is written within some milliseconds the same time.
        seconds = next(self._times)
        os.utime(path, (seconds, seconds))
        return path

    def pem_rsa(self, name: str, bits: int = 2048, *, alternative: bool = True) -> Path:
        path = self.folder / f"rsa-{name}.pem"
        path.write_bytes(rsa_pem(name, bits, alternative=alternative))
        return path

    def test_by_name(self) -> None:
        """The first of a name counts, and a common name where there is no other."""
        named = "first.example", "*.example", "x.example", "a.test b.test", "b.test"
        files = [self.pem(*names.split()) for names in named]
        files.append(self.pem_rsa("old.test", alternative=False))
        contexts = Contexts(TlsSettings((*files,)))
        for name, expected in (
            ("x.example", "x.example"), ("y.example", "*.example"), ("a.y.example", "first.example"),
            ("example", "first.example"), ("", "first.example"), ("b.test", "a.test"), ("old.test", "old.test"),
        ):  # fmt: skip
            self.assertEqual(name_of(shown(contexts.context_for(name))), expected, name)

    def test_by_address(self) -> None:
        """Clients without a name see the certificate of the address that they came to; there may be several of one kind."""
        issued = [authority().issue(name) for name in ("a.example", "192.0.2.1", "2001:db8::1")]
        paths = (self.folder / f"{number}.pem" for number in range(3))
        files = (its.write(path, key=True) for its, path in zip(issued, paths, strict=True))
        contexts = Contexts(TlsSettings(tuple(files)))
        for name, its in (("192.0.2.1", 1), ("2001:db8::1", 2), ("192.0.2.2", 0), (None, 0)):
            self.assertEqual(shown(contexts.context_for(name)), issued[its].certificate)

    def test_kinds_of_keys(self) -> None:
        """Of two certificates for the same names that differ in the kind of key, each client gets one it can take; a second one of a kind is ignored."""
        contexts = Contexts(TlsSettings((self.pem_rsa("a.example"), self.pem("a.example"))))
        for ciphers, kind in (("aRSA", "RSA"), ("aECDSA", "EC")):
            found = shown(contexts.context_for("a.example"), ciphers)
            self.assertIn(kind, type(found.public_key()).__name__)
        first, second = self.pem("a.example", file="1.pem"), self.pem("a.example", file="2.pem")
        found = shown(Contexts(TlsSettings((first, second))).context_for(None))
        self.assertEqual(found, x509.load_pem_x509_certificate(first.read_bytes()))

    def test_weak_certificate(self) -> None:
        """It is refused, as are files without authorities."""
        path = self.pem_rsa("weak.example", 1024)
        error = self.assertRaises(TLSFileError, Contexts, TlsSettings((path,)))
        why = "OpenSSL rejects the certificate: ee key too small"
        self.assertEqual(str(error), f"'{path}': {why}; get one with a stronger key or signature")
        end = TlsSettings((self.pem("a.example"),), client_ca=self.folder / "none.pem")
        self.assertEqual(self.assertRaises(TLSFileError, Contexts, end).key, "tls_client_ca")

    # Clients with certificates.

    @cached_property
    def ca(self) -> Path:
        return self.authority.write(self.folder / "ca.pem")

    @cached_property
    def bob(self) -> Path:
        return self.authority.issue("bob", usage=False).write(self.folder / "bob.pem", key=True)

    def context(self, **settings: Any) -> SSL.Context:
        end = TlsSettings((self.pem("site.example"),), client_ca=self.ca, **settings)
        return Contexts(end).context_for(None)

    def refused(self, context: SSL.Context, version: ssl.TLSVersion) -> str:
        expected = credulous(self.bob)
        expected.minimum_version = expected.maximum_version = version
        hands = Handshake(context, expected)
        try:
            for _ in range(4):
                with contextlib.suppress(SSL.Error):  # the client is told why
                    hands.step()
        except ssl.SSLError as problem:
            return problem.reason
        return ""

    def test_session_of_a_client_that_is_not_allowed(self) -> None:
        """OpenSSL, and so the session, knows nothing of `allow_client`."""
        for name, is_allowed in (("alice", False), ("bob", True)):
            allowed = (allowed_client(f"cn={name}"),)
            context = self.context(client="optional", allow_client=allowed)
            expected, session = credulous(self.bob), None
            for is_resumed in (False, True):
                hands = Handshake(context, expected, session=session)
                session = hands.finish().session
                self.assertEqual(hands.client.session_reused, is_resumed)
                distrusted = hands.server.get_app_data().distrusted
                found, why = context.get_app_data().client_certificate(hands.server, distrusted)
                self.assertEqual("any" in found.kinds, is_allowed)
                self.assertEqual(why and why[0], None if is_allowed else NOT_ALLOWED)

    def test_alerts(self) -> None:
        connection = SSL.Connection(self.context(), None)
        connection.set_accept_state()
        (told,) = connection.get_client_ca_list()
        self.assertEqual(told.CN, "Test Authority")
        others = (allowed_client("cn=alice"),)
        revoked = self.folder / "crl.pem"
        revoked.write_bytes(self.authority.revoke(ends=-1))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for settings, alert in (
                ({}, ""), ({"allow_client": (allowed_client("cn=bob"),)}, ""),
                ({"allow_client": others}, "SSLV3_ALERT_CERTIFICATE_UNKNOWN"),
                ({"client_crl": revoked}, "SSLV3_ALERT_CERTIFICATE_EXPIRED"),
            ):  # fmt: skip
                self.assertEqual(self.refused(self.context(**settings), version), alert)

    # Files that change.

    def logged(self) -> list[str]:
        its = [one for one in self.events if "CertificateStore" in one.get("log_namespace", "")]
        lines = [event["log_format"].format(**event) for event in its]
        self.events.clear()
        self.flushLoggedErrors()
        return lines

    def store(self, *files: Path, **settings: Any) -> CertificateStore:
        return CertificateStore(TlsSettings(files, **settings), self.clock.seconds, "site")

    def served(self, store: CertificateStore, after: float = 1.0) -> str:
        """Let a client come, and return the name of the certificate that it is shown."""
        self.clock.advance(after)
        return name_of(shown(store.connection().get_context()))

    def test_certificate_that_is_damaged_within(self) -> None:
        """Its names are read only when they are needed, and OpenSSL takes less than what loads it."""
        path = self.pem("a.example", file="site.pem")
        store = self.store(path)
        identity = authority().issue("b.example")
        der = identity.certificate.public_bytes(serialization.Encoding.DER)
        for wrong in (b"\xff.example", b"b\x00xample"):
            text = ssl.DER_cert_to_PEM_cert(der.replace(b"b.example", wrong))
            path.write_bytes(text.encode() + identity.key_pem())
            self.assertEqual(self.served(store), "a.example")
            self.assertIn("a certificate is damaged", store.trouble)
        self.logged()

    def test_rules_that_change(self) -> None:
        """Only a new route is made; those that stay are looked at, and those that go are not."""

        def rules(*names: str) -> Rules:
            routes = [Route(n, (), None, terminate_tls=TlsSettings((files[n],))) for n in names]
            return Rules(Path("x.ini"), Settings(), (), (*routes,))

        files = {name: self.pem(f"{name}.example") for name in "abc"}
        terminators = TlsTerminators(self.clock)
        terminators.prepare(rules("a", "b")).commit()
        prepared = terminators.prepare(rules("b", "c"))
        self.assertEqual([*prepared.problems], [])
        self.assertEqual({one.trouble for one in terminators.watched()}, {""})
        self.assertEqual([name for name, _ in prepared.made], ["c"])
        self.assertEqual([name for name, _ in prepared.removed], ["a"])
        prepared.commit()
        self.pem("d.example", file="b.example.pem")
        prepared = terminators.prepare(rules("b"))
        self.assertEqual(terminators.shown()[0]["names"], ["b.example"])
        prepared.commit()
        self.assertEqual([one["names"] for one in terminators.shown()], [["d.example"]])

    def test_changed_file_is_read_within_a_second(self) -> None:
        """At once if that is asked for, so that what is reported of a process without clients is right."""
        store = self.store(self.pem("a.example", file="site.pem"))
        before = store.connection().get_context()
        self.clock.advance(1000)
        self.assertIs(store.connection().get_context(), before)
        self.assertEqual(self.logged(), [])
        self.pem("b.example", file="site.pem")
        self.assertEqual(self.served(store, after=0), "a.example")
        self.assertEqual(self.served(store), "b.example")
        self.assertEqual(self.logged(), ["[route site] terminate_tls: certificates reloaded"])
        store.read_again()()  # as a reload does
        self.assertEqual(self.logged(), [])
        self.pem("c.example", file="site.pem")
        store.read_again()()
        self.assertEqual([one["names"] for one in store.shown()], [["c.example"]])

    def test_put_in_its_place(self) -> None:
        """So is one that is put in its place, even by a link, with the time and the size of the old one."""
        first, second = self.pem("a.example", file="1.pem"), self.pem("b.example", file="2.pem")
        link, other = self.folder / "site.pem", self.folder / "new.pem"
        link.symlink_to(first)
        store = self.store(link)
        os.utime(second, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))
        other.symlink_to(second)
        other.replace(link)
        self.assertEqual(self.served(store), "b.example")

    def test_bad_change_keeps_certificates_and_logs_once(self) -> None:
        path = self.pem("a.example", file="site.pem")
        store = self.store(path)
        good = path.read_bytes()
        path.write_bytes(authority().issue("b.example").pem)
        for _ in range(3):
            self.assertEqual(self.served(store), "a.example")
        (line,) = self.logged()
        until = utc_time(x509.load_pem_x509_certificate(good).not_valid_after_utc.timestamp())
        why = f"'{path}': no private key for its certificate"
        kept = f"what is in use is kept, until {until}"
        self.assertEqual(line, f"[route site] terminate_tls: {why}; {kept}")
        path.unlink()
        self.served(store)
        (line,) = self.logged()
        self.assertIn("No such file or directory", line)
        path.write_bytes(good)
        self.served(store)
        self.assertEqual(self.logged(), ["[route site] terminate_tls: certificates reloaded"])
        # A wrong file is read again though it looks the same, as one whose rights are mended,
        # or that is written twice within one tick of the file system's clock.
        for content, said in ((b"x" * len(good), "no certificate in it"), (good, "reloaded")):
            path.write_bytes(content)
            os.utime(path, (5, 5))
            self.served(store)
            (line,) = self.logged()
            self.assertIn(said, line)
        self.assertEqual(store.trouble, "")
        # A silent helper is logged once; when it answers again, the files are read again.
        self.patch(watched, "state_at", Mock(side_effect=OSError(errno.EPIPE, "silent")))
        for _ in range(3):
            self.served(store)
        why = "[route site] terminate_tls: the helper that looks at the files does not answer"
        self.assertEqual(self.logged(), [why])
        self.patch(watched, "state_at", state_at)
        path.write_bytes(b"nonsense")
        self.served(store)
        self.assertIn("no certificate in it", store.trouble)
        self.logged()

    def test_kept_until_the_revocation_list_ends(self) -> None:
        """Authorities are watched, too."""
        lists = self.folder / "crl.pem"
        lists.write_bytes(authority().revoke(ends=1))
        ends = x509.load_pem_x509_crl(lists.read_bytes()).next_update_utc
        store = self.store(self.pem("a.example"), client_ca=self.ca, client_crl=lists)
        before = store.connection().get_context()
        make_authority("Other").write(self.ca)
        self.clock.advance(1)
        self.assertIsNot(store.connection().get_context(), before)
        self.logged()
        lists.write_bytes(b"")
        self.clock.advance(1)
        store.look()
        (line,) = self.logged()
        assert ends is not None
        self.assertEqual(line.partition(", until ")[2], utc_time(ends.timestamp()))

    def test_certificate_that_may_be_lacking(self) -> None:
        """It is logged once why clients are refused, and then that the certificate is in use."""
        path = self.folder / "a.example.pem"
        store = self.store(path, may_lack=True)
        self.assertEqual(([*store.validity()], [*store.shown()]), ([], []))
        for _ in range(3):
            self.assertTrue(store.is_lacking())
            self.clock.advance(1)
        (line,) = self.logged()
        self.assertEqual(line, store.trouble)
        self.assertIn("; its clients are refused until it can be used", line)
        self.pem("a.example")
        self.assertFalse(store.is_lacking())
        self.assertEqual(self.logged(), ["[route site] terminate_tls: certificates reloaded"])
        self.assertEqual([one.file for one in store.validity()], [str(path)])

    def test_sessions(self) -> None:
        """A client goes on with its session when the same certificates have been read again, and not when others have."""
        path = self.pem("a.example", file="site.pem")
        store = self.store(path, self.pem("b.example"))
        before = store.connection().get_context()
        store.read_again()()
        self.assertTrue(is_resumed(before, store.connection().get_context()))
        self.pem("a.example", file="site.pem")
        store.read_again()()
        self.assertFalse(is_resumed(before, store.connection().get_context()))

    # Sessions of TLS 1.3 go on with any process that was forked with the same keys, and with the same rules and certificates.

    @cached_property
    def usual(self) -> dict[str, Any]:
        return {"files": (self.pem("site.example"),)}

    def shake(
        self,
        version: str = "1.3",
        session: ssl.SSLSession | None = None,
        *,
        name: str = "site.example",
        route: str = "site",
        **settings: Any,
    ) -> ssl.SSLObject:
        store = CertificateStore(TlsSettings(**self.usual | settings), self.clock.seconds, route)
        context = self.contexts[version]
        return Handshake(store.connection(name, version), context, session=session).finish()

    def resumes(self, session: ssl.SSLSession | None, **how: Any) -> bool:
        return bool(self.shake(session=session, **how).session_reused)

    @cached_property
    def contexts(self) -> dict[str, ssl.SSLContext]:
        contexts = {"1.2": credulous(self.bob), "1.3": credulous(self.bob)}
        contexts["1.2"].maximum_version = ssl.TLSVersion.TLSv1_2
        return contexts

    def test_another_worker(self) -> None:
        """Whoever learnt the keys later could read all that was said in sessions of TLS 1.2: they are not for all workers."""
        client = self.shake()
        self.assertEqual((client.version(), client.session_reused), ("TLSv1.3", False))
        again = self.shake(session=client.session)
        self.assertEqual((again.version(), again.session_reused), ("TLSv1.3", True))
        self.assertTrue(self.resumes(again.session))
        self.assertFalse(self.resumes(self.shake("1.2").session, version="1.2"))

    def test_no_other_name_route_or_certificate(self) -> None:
        session = self.shake().session
        others: tuple[dict[str, Any], ...] = (
            {"name": "b.site.example"}, {"route": "other"}, {"minimum": "1.3"}, {"alpn": ("h2",)},
            {"files": (self.pem("site.example", file="renewed.pem"),)},
        )  # fmt: skip
        for other in others:
            self.assertFalse(self.resumes(session, **other), other)
        self.assertTrue(self.resumes(session))

    def test_clients_that_are_asked_for_a_certificate(self) -> None:
        """Neither a session from before, nor one of another worker, passes by the request for a certificate."""
        other = make_authority("Other").write(self.folder / "other.pem")
        for client in ("optional", "required"):
            asked: dict[str, Any] = {"client_ca": self.ca, "client": client}
            self.assertFalse(self.resumes(self.shake().session, **asked))
            shown = self.shake(**asked).session
            self.assertFalse(self.resumes(shown, **asked))
            changed = asked | {"client_ca": other}
            if client == "optional":
                self.assertFalse(self.resumes(shown, **changed))
            else:
                self.assertRaises(SSL.Error, self.shake, session=shown, **changed)
            self.assertFalse(self.resumes(shown))

    def test_settings_hold(self) -> None:
        """The certificate, its chain, the application protocol and the versions are those of the route."""
        identity = authority().issue("chain.example")
        path = identity.write(self.folder / "chain.pem", key=True)
        path.write_bytes(path.read_bytes() + authority().pem)
        self.contexts["1.3"].set_alpn_protocols(["http/1.1", "h2"])
        store = self.store(path, alpn=("h2", "http/1.1"), minimum="1.3")
        hands = Handshake(store.connection("chain.example", "1.3"), self.contexts["1.3"])
        client = hands.finish()
        self.assertEqual(client.selected_alpn_protocol(), "h2")
        der = client.getpeercert(binary_form=True) or b""
        self.assertEqual(name_of(x509.load_der_x509_certificate(der)), "chain.example")
        chain = client._sslobj.get_unverified_chain()  # type: ignore[attr-defined]  # public from Python 3.13 on
        self.assertEqual(len(chain), 2)
        self.contexts["1.3"].maximum_version = ssl.TLSVersion.TLSv1_2
        hands = Handshake(store.connection("chain.example", "1.3"), self.contexts["1.3"])
        self.assertRaises(SSL.Error, hands.finish)
