"""Twisted without asyncio, and a reactor without OpenSSL, until somebody uses them."""

import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import authority, make_folder, run

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

_ASYNCIO = """\
import sys
from txmux.net.tls.deferred import import_reactor_without_tls

import_reactor_without_tls()
from twisted.internet.defer import Deferred, succeed
from twisted.python.compat import cookielib, escape
from twisted.python.zippath import ZipArchive

async def add():
    return 1 + await succeed(1)

Deferred.fromCoroutine(add()).addCallback(print)
seldom = {"asyncio", "http.cookiejar", "http.client", "ssl", "zipfile"}
assert not seldom & set(sys.modules)
assert "coverage" in sys.modules or "html" not in sys.modules
import asyncio

async def convert():
    return await Deferred.fromCoroutine(add()).asFuture(asyncio.get_running_loop())

print(asyncio.run(convert()), asyncio.__file__ is not None, cookielib.CookieJar.__name__)
try:
    ZipArchive("/nonexistent")
except FileNotFoundError:
    print(escape("<"))
"""

_WEB = """\
import sys
from txmux.net.tls.deferred import import_reactor_without_tls, import_web_without_email

import_reactor_without_tls()
import_web_without_email()
assert not {"calendar", "email", "email.message"} & set(sys.modules)
from twisted.web import http

print(http.stringToDatetime(b"Sun, 06 Nov 1994 08:49:37 GMT"))
print(http.EmailMessage().is_multipart(), http.message_from_bytes(b"A: b").items())
"""

_AT_ONCE = """\
import sys
from txmux.net.tls.deferred import _AsyncIO

sys.modules["asyncio"] = _AsyncIO("asyncio")
from asyncio import iscoroutine, run

print(run.__module__, type(sys.modules["asyncio"]).__name__)
"""


class DeferredTest(SynchronousTestCase):
    def output(self, program: str, *arguments: str) -> str:
        done = run(sys.executable, "-W", "ignore", "-c", program, *arguments)
        self.assertEqual(done.stderr, b"")
        return done.stdout.decode()

    def test_programs(self) -> None:
        """Coroutines are run without asyncio, which can be used later, as can what Twisted has of the HTTP client.

        Twisted's HTTP server can do what it needs e-mail and a calendar for; a Twisted that needs more of asyncio at once has it imported.
        """
        for program, output in (
            (_ASYNCIO, "2\n2 True CookieJar\n&lt;\n"), (_WEB, "784111777\nFalse [('A', 'b')]\n"),
            (_AT_ONCE, "asyncio.runners module\n"),
        ):  # fmt: skip
            self.assertEqual(self.output(program), output)

    def test_used_later(self) -> None:
        """OpenSSL is not imported with the reactor; connections with TLS, from the start or later, work all the same."""
        folder = make_folder(self)
        pem = authority().issue("localhost").write(folder / "server.pem", key=True)
        self.assertEqual(self.output(_PROGRAM, str(pem)), "answer hello\nanswer hello\n")
