"""Why handshakes failed, where clients of tests cannot be brought to do so."""

import contextlib
import socket
import ssl

from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.client.tls.test_store import credulous
from tests.support.certificates import authority
from tests.support.folders import make_folder
from txmux.client.tls.store import CertificateStore
from txmux.client.tls.terminator import TlsTerminator, cause_of
from txmux.rules.model import TlsSettings


class AgreedTests(SynchronousTestCase):
    def test_protocol(self) -> None:
        """Each client has the one that it has offered, and one that has offered none has none."""
        path = authority().issue("a.example").write(make_folder(self) / "site.pem", key=True)
        settings = TlsSettings((path,), alpn=("h2", "http/1.1"))
        terminator = TlsTerminator(CertificateStore(settings, Clock().seconds, "site"))
        for offered, agreed in ((["http/1.1"], "http/1.1"), ([], None), (["h2"], "h2")):
            below, other = socket.socketpair()
            self.addCleanup(below.close)
            self.addCleanup(other.close)
            context = credulous()
            if offered:
                context.set_alpn_protocols(offered)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = context.wrap_bio(incoming, outgoing)
            shake, is_done = terminator.shake(below, None, None, None), False
            while not is_done:
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.do_handshake()
                is_done = shake.receive(outgoing.read())
                incoming.write(shake.output)
            self.assertEqual(shake.agreed().facts().get("tls_alpn"), agreed)


class CauseTests(SynchronousTestCase):
    def test_causes(self) -> None:
        failed, no_tls = "the TLS handshake failed: ", "what the client sent is not TLS"
        for problem, cause in (
            (("a", "b", "c d"), f"{failed}c d"),
            (("", "", "record layer failure"), f"{failed}record layer failure"),
            (("a", "b", "certificate verify failed"), f"{failed}certificate verify failed"),
            (("a", "b", "http request"), no_tls),
            (("a", "b", "wrong version number"), no_tls),
        ):
            self.assertEqual(cause_of(SSL.Error([problem])), cause)
        self.assertEqual(cause_of(SSL.Error([])), f"{failed}[]")
        why = "the certificate of 'CN=Test Authority' is not accepted (X509_V_ERR 34 of OpenSSL)"
        found = cause_of(
            SSL.Error([("a", "b", "certificate verify failed")]), (34, authority().certificate)
        )
        self.assertEqual(found, why)
        for left in (SSL.ZeroReturnError(), ConnectionResetError("reset")):
            why = "the client left in the middle of the TLS handshake"
            self.assertEqual(cause_of(left), why)
