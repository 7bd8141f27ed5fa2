"""Why handshakes failed, where clients of tests cannot be brought to do so."""

import contextlib
import socket
import ssl

from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.client.tls.test_store import credulous
from tests.support.kit import authority, make_folder
from tests.tcp.stages.test_second_hello import CHANGED, hello
from txmux.client.tls.contexts import NoCommonProtocolError
from txmux.client.tls.store import CertificateStore
from txmux.client.tls.terminator import ClientShake, TlsTerminator, cause_of
from txmux.rules.model import TlsSettings
from txmux.wire.client_hello import ClientHello, parse_client_hello


class ShakeTests(SynchronousTestCase):
    def shake(
        self, first: ClientHello | None = None, alpn: tuple[str, ...] = ("h2", "http/1.1")
    ) -> ClientShake:
        path = authority().issue("a.example").write(make_folder(self) / "site.pem", key=True)
        settings = TlsSettings((path,), alpn=alpn)
        terminator = TlsTerminator(CertificateStore(settings, Clock().seconds, "site"))
        below, other = socket.socketpair()
        self.addCleanup(below.close)
        self.addCleanup(other.close)
        return terminator.shake(below, first, None, None)

    def test_protocol(self) -> None:
        """Each client has the first one of this side that it has offered; one that has offered none has none, as where there is no key."""
        both = ("h2", "http/1.1")
        for alpn, offered, agreed in (
            (both, ["http/1.1", "h2"], "h2"), (both, ["spdy/3", "http/1.1"], "http/1.1"), (both, [], None),
            (both, ["h2"], "h2"), ((), ["h2"], None),
        ):  # fmt: skip
            context = credulous()
            if offered:
                context.set_alpn_protocols(offered)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = context.wrap_bio(incoming, outgoing)
            shake, is_done = self.shake(alpn=alpn), False
            while not is_done:
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.do_handshake()
                is_done = shake.receive(outgoing.read())
                incoming.write(shake.output)
            self.assertEqual(shake.agreed().facts.get("tls_alpn"), agreed)
            self.assertEqual(client.selected_alpn_protocol(), agreed)

    def test_second_hello(self) -> None:
        """It has to ask for the same as the first, and what comes after it is OpenSSL's affair alone."""
        for second, why in (
            (hello(share=True), None), (hello(name="vip.test", share=True), "other server name"),
            (CHANGED * 6000, "the second hello is too long"),
        ):  # fmt: skip
            shake = self.shake(parse_client_hello(hello(), None).hello)
            shake.receive(hello())
            self.assertIsNone(shake.problem)
            shake.receive(CHANGED)
            shake.receive(second)
            self.assertEqual(shake.problem is None, why is None)
            if why:
                self.assertIn(why, str(shake.problem))

    def test_causes(self) -> None:
        failed, no_tls = "the TLS handshake failed: ", "what the client sent is not TLS"
        for reasons, cause in (
            (["c d"], f"{failed}c d"),
            (["record layer failure"], f"{failed}record layer failure"),
            (["bad record type", "record layer failure"], no_tls),
            (["certificate verify failed"], f"{failed}certificate verify failed"),
            (["sslv3 alert bad certificate"],
             "the client ended the TLS handshake with the alert 'bad certificate'"),
            (["http request"], no_tls),
            (["wrong version number"], no_tls),
        ):  # fmt: skip
            self.assertEqual(cause_of(SSL.Error([("a", "b", one) for one in reasons])), cause)
        self.assertEqual(cause_of(NoCommonProtocolError("no h2")), "no h2")
        self.assertEqual(cause_of(SSL.Error([])), f"{failed}[]")
        why = "the certificate of 'CN=Test Authority' is not accepted (X509_V_ERR 34 of OpenSSL)"
        found = cause_of(
            SSL.Error([("a", "b", "certificate verify failed")]), (34, authority().certificate)
        )
        self.assertEqual(found, why)
        for left in (SSL.ZeroReturnError(), ConnectionResetError("reset")):
            why = "the client left in the middle of the TLS handshake"
            self.assertEqual(cause_of(left), why)
