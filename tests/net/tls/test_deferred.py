"""A reactor without OpenSSL, until somebody wants TLS of it."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.backends.connect.tls_case import authority
from tests.support.folders import make_folder

_PROGRAM = """\
import sys
from txmux.net.tls.deferred import import_reactor_without_tls

import_reactor_without_tls()
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.protocol import Factory, Protocol

assert not {"OpenSSL", "cryptography", "service_identity", "twisted.protocols.tls"} & set(sys.modules)

class Echo(Protocol):
    def dataReceived(self, data):
        if data == b"STARTTLS":
            self.transport.write(b"go")
            self.transport.startTLS(contexts)
        else:
            self.transport.write(data)

class Asking(Protocol):
    def connectionMade(self):
        self.transport.write(b"STARTTLS" if self.factory.by_start else b"hello")

    def dataReceived(self, data):
        if data == b"go":
            self.transport.startTLS(CertificateOptions())
            self.transport.write(b"hello")
        else:
            print("answer", data.decode(), flush=True)
            self.transport.loseConnection()

    def connectionLost(self, reason):
        if self.factory.by_start:
            reactor.stop()
        else:
            ask(True)

def ask(by_start):
    factory = Factory.forProtocol(Asking)
    factory.by_start = by_start
    factory.doStart = factory.doStop = factory.startedConnecting = lambda *_: None
    factory.clientConnectionFailed = lambda _, reason: (print(reason), reactor.stop())
    factory.clientConnectionLost = lambda *_: None
    if by_start:
        reactor.connectTCP("127.0.0.1", plain.getHost().port, factory)
    else:
        reactor.connectSSL("127.0.0.1", secure.getHost().port, factory, CertificateOptions())

from twisted.internet.ssl import CertificateOptions, DefaultOpenSSLContextFactory
import twisted.protocols.tls

assert type(twisted.protocols.tls).__name__ == "module", twisted.protocols.tls
contexts = DefaultOpenSSLContextFactory(sys.argv[1], sys.argv[1])
plain = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
secure = reactor.listenSSL(0, Factory.forProtocol(Echo), contexts, interface="127.0.0.1")
reactor.callWhenRunning(ask, False)
reactor.callLater(300, reactor.stop)
reactor.run()
"""


class DeferredTest(SynchronousTestCase):
    """Programs that begin without TLS."""

    def test_used_later(self) -> None:
        """OpenSSL is not imported with the reactor; connections with TLS, from the start or later, work all the same."""
        folder = make_folder(self)
        pem = authority().issue("localhost").write(folder / "server.pem", key=True)
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROGRAM, str(pem)],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        self.assertEqual((done.stdout, done.stderr), ("answer hello\nanswer hello\n", ""))
