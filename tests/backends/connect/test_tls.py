import socket
import ssl
import threading
from functools import partial
from pathlib import Path
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,  # noqa: A004 - this one is wanted
)
from twisted.internet.ssl import CertificateOptions, TLSVersion, trustRootFromCertificates
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.certificates import Identity, authority, make_authority, rsa_pem
from tests.support.kit import change_environment, free_port, make_folder
from tests.support.peers import Peer, PeerClientFactory, PeerFactory, listen, reactor
from tests.support.secure import CLOSE_NOTIFY
from txmux.backends.connect.client import ProxyClient, ProxyClientFactory
from txmux.backends.connect.tls import BackendTLS
from txmux.net.header_first import HeaderFirst
from txmux.net.sockets.client import SocketConnector
from txmux.net.sockets.poller import Poller
from txmux.net.tls.errors import HandshakeError, TLSFileError
from txmux.rules.model import ServerTLS


class _Greeter(Peer):
    def __init__(self, greeting: bytes) -> None:
        super().__init__()
        self._greeting = greeting

    def connectionMade(self) -> None:
        self.send(self._greeting)
        if not self._greeting:
            self.close()


class LastReceiver(Peer):
    def __init__(self) -> None:
        super().__init__()
        self.gone: Deferred[None] = Deferred()
        self.has_finished: Deferred[None] = Deferred()

    def data_received(self, data: bytes) -> None:
        self.dataReceived(data)

    def peer_finished(self) -> None:
        self.has_finished.callback(None)

    def connection_lost(self, reason: Failure) -> None:
        self.reason = reason
        self.gone.callback(None)


class TlsTests(TestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.ca = authority().write(self.folder / "ca.pem")
        self.peers = PeerFactory()

    def tls(self, name: str = "a.example", *, ca: bool = True, **settings: Any) -> BackendTLS:
        return BackendTLS(ServerTLS(name, self.ca if ca else None, **settings))

    async def attempt(
        self, tls: BackendTLS, port: int, name: str = "127.0.0.1", alpn: Any = (), header: Any = b""
    ) -> ProxyClient:
        done: Deferred[ProxyClient] = Deferred()

        def connected(client: ProxyClient) -> None:
            client.receiver = LastReceiver()
            done.callback(client)

        factory: Any = tls.wrap(ProxyClientFactory(connected, done.errback), name, alpn)
        if header:
            factory = HeaderFirst(factory, header)
        poller = Poller.for_reactor(reactor)
        SocketConnector(poller, reactor, socket.AF_INET, ("127.0.0.1", port), factory).connect(60)
        client = await done
        receiver: Any = client.receiver
        self.addCleanup(self.end, client, receiver)
        return client

    def end(self, client: Any, receiver: LastReceiver) -> Deferred[None]:
        client.transport.abortConnection()
        return receiver.gone

    async def why_not(self, tls: BackendTLS, port: int, server_name: str = "127.0.0.1") -> str:
        attempt = Deferred.fromCoroutine(self.attempt(tls, port, server_name))
        failure = await self.assertFailure(attempt, HandshakeError)
        return str(failure)

    def serve(self, identity: Identity, **settings: Any) -> int:
        private = identity.private()
        key, pem = private.privateKey.original, private.original
        options = CertificateOptions(privateKey=key, certificate=pem, **settings)
        port = reactor.listenSSL(0, self.peers, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def test_name(self) -> None:
        port = self.serve(authority().issue("a.example", "b.example"))
        client: Any = await self.attempt(self.tls(), port)
        client.transport.write(b"question")
        peer = await self.peers.heard(8)
        self.assertEqual(peer.transport.getHandle().get_servername(), b"a.example")
        peer.send(b"answer")
        await client.receiver.has(6)
        port = self.serve(authority().issue("a.example"))  # contexts
        tls = self.tls()
        clients: list[Any] = [await self.attempt(tls, port) for _ in range(2)]
        first, second = (client.transport.getHandle().get_context() for client in clients)
        self.assertIs(first, second)

    async def test_authorities_of_the_system(self) -> None:
        """They count where the rules name none, and only there."""
        port, tls = self.serve(authority().issue("a.example")), self.tls(ca=False)
        change_environment(self, SSL_CERT_FILE=str(self.ca))
        await self.attempt(tls, port)
        expired = self.serve(authority().issue("a.example", ends=-1))
        self.assertIn("its certificate expired", await self.why_not(tls, expired))
        other = make_authority("Another").write(self.folder / "other.pem")
        change_environment(self, SSL_CERT_FILE=str(other))
        self.assertIn("unknown authority", await self.why_not(self.tls(ca=False), port))
        await self.attempt(self.tls(), port)

    async def test_names(self) -> None:
        port = self.serve(authority().issue("b.example", "127.0.0.1", "fe80::1"))
        for name in ("b.example", "b.example.", "127.0.0.1", "fe80::1%lo"):
            await self.attempt(self.tls(""), port, name)
        # Names that are for other uses, or that nothing may have, do not matter.
        port = self.serve(authority().issue("a.example", "*", "spiffe://b.example:1/x"))
        await self.attempt(self.tls(), port)
        why = await self.why_not(self.tls("b.example"), port)
        self.assertEqual(why, "its certificate is for a.example, not for b.example; see tls_name")
        port = self.serve(authority().issue("*.example"))  # unreadable
        why = await self.why_not(self.tls(), port)
        told = r"^its certificate is unreadable \(.*'\*\.example' has too few .*\), not "
        self.assertRegex(why, told)

    async def test_refused_certificates(self) -> None:
        issue = authority().issue
        several = issue("192.0.2.1", "*.b.example")
        expired, early = issue("a.example", ends=-1), issue("a.example", begins=1)
        ended = f"{expired.certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        begins = f"{early.certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        for identity, name, server_name, why in (
            (issue("b.example"), "a.example", "b.example", "is for b.example, not for a.example"),
            (several, "", "127.0.0.1", "is for *.b.example, 192.0.2.1, not for 127.0.0.1"),
            (
                issue(), "a.example", "",
                "has only a common name, which nobody checks any more: it needs a.example as a subjectAltName; see tls_name",
            ),
            (expired, "a.example", "", f"expired on {ended}"),
            (early, "a.example", "", f"is valid only from {begins} on"),
            (issue("a.example", usage=False), "a.example", "", "is not meant for servers"),
        ):  # fmt: skip
            found = await self.why_not(self.tls(name), self.serve(identity), server_name)
            hint = "; see tls_name" if ", not for" in why else ""
            self.assertEqual(found, f"its certificate {why}{hint}")

    async def test_self_signed(self) -> None:
        lonely = make_authority("lonely", "a.example")
        port = self.serve(lonely)
        why = await self.why_not(self.tls(), port)
        self.assertEqual(why, "its certificate is self-signed and not trusted; tls_ca can name it")
        lonely.write(self.ca)
        await self.attempt(self.tls(), port)
        # An authority that is not trusted is named; the system's are trusted without ``tls_ca``, and no others.
        port = self.serve(make_authority("Somebody Else").issue("a.example"))
        for ca in (True, False):
            why = await self.why_not(self.tls(ca=ca), port)
            unknown = "its certificate comes from an unknown authority, 'CN=Somebody Else'"
            self.assertEqual(why, f"{unknown}; tls_ca can name one to trust")

    async def test_no_tls(self) -> None:
        closed = "it closed the connection instead of answering with TLS"
        ssh, no_tls = b"SSH-2.0-OpenSSH_9.2\r\n", "it answered with something that is not TLS"
        for greeting, said in ((ssh, no_tls), (b"", closed), (CLOSE_NOTIFY, closed)):
            port = listen(self, PeerFactory(partial(_Greeter, greeting)))
            self.assertEqual(await self.why_not(self.tls(), port), said)
        attempt = Deferred.fromCoroutine(self.attempt(self.tls(), free_port()))  # refused
        await self.assertFailure(attempt, ConnectionRefusedError)

    async def test_no_common_version(self) -> None:
        for settings, why in (
            ({"trustRoot": trustRootFromCertificates([authority().private()]), "lowerMaximumSecurityTo": TLSVersion.TLSv1_2},
             "it ended the TLS handshake with the alert 'handshake failure'"),
            ({"insecurelyLowerMinimumTo": TLSVersion.TLSv1_0, "lowerMaximumSecurityTo": TLSVersion.TLSv1_1}, "TLS handshake"),
        ):  # fmt: skip
            port = self.serve(authority().issue("a.example"), **settings)
            self.assertIn(why, await self.why_not(self.tls(), port))
        port = self.serve(authority().issue("a.example"), acceptableProtocols=[b"h2", b"imap"])
        for configured, given, agreed in (
            ((), (), None), ((), (b"imap",), b"imap"), (("http/1.1", "h2"), (b"imap",), b"h2"),
        ):  # fmt: skip
            client: Any = await self.attempt(self.tls(alpn=configured), port, alpn=given)
            self.assertEqual(client.transport.negotiatedProtocol, agreed)

    async def test_client_certificate(self) -> None:
        own = authority().issue("txmux.example", usage=False)
        path = own.write(self.folder / "client.pem", key=True)
        root = trustRootFromCertificates([authority().private()])
        port = self.serve(authority().issue("a.example"), trustRoot=root)
        client: Any = await self.attempt(self.tls(certificate=(path,)), port)
        client.transport.write(b"?")  # this side's handshake is done before the other's
        peer = await self.peers.heard(1)
        self.assertEqual(peer.transport.getPeerCertificate().to_cryptography(), own.certificate)

    async def test_header_first(self) -> None:
        header = b"PROXY UNKNOWN\r\n"
        port = listen(self, self.peers)
        attempt = Deferred.fromCoroutine(self.attempt(self.tls(), port, header=header))
        record = len(header) + 5  # what follows this is of the length that its last two bytes tell
        peer = await self.peers.heard(record)
        await peer.has(record + int.from_bytes(peer.received[record - 2 : record], "big"))
        self.assertTrue(peer.received.startswith(header + b"\x16\x03"))
        peer.close()
        await self.assertFailure(attempt, HandshakeError)

    async def closed_by_server(self, end: type[Exception], *, close_notify: bool) -> None:
        path = authority().issue("a.example").write(self.folder / "server.pem", key=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)

        def serve(listening: socket.socket) -> None:
            accepted, _ = listening.accept()
            with context.wrap_socket(accepted, server_side=True) as secure:
                secure.sendall(b"hello")
                if close_notify:
                    secure.recv(1)  # it is the close-notify

        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = threading.Thread(target=serve, args=[listening])
            server.start()
            client: Any = await self.attempt(self.tls(), listening.getsockname()[1])
            await client.receiver.has(5)
            if close_notify:
                client.transport.loseConnection()
            await client.receiver.gone
            server.join()
        self.assertIs(client.receiver.reason.type, end)

    async def test_close_notify(self) -> None:
        """Without one, nobody knows whether all has come, so it is no good end; one without an answer is."""
        await self.closed_by_server(ConnectionDone, close_notify=True)
        await self.closed_by_server(ConnectionLost, close_notify=False)

    async def test_server_has_finished(self) -> None:
        port = self.serve(authority().issue("a.example"))
        client: Any = await self.attempt(self.tls(), port)
        receiver = client.receiver
        server = await self.peers.peer()
        server.send(b"all")
        server.close()
        await receiver.has_finished
        self.assertEqual(receiver.received, b"all")
        client.transport.write(b"more")
        await server.has(4)
        client.transport.loseConnection()
        await receiver.gone
        await server.is_lost()
        self.assertFalse(server.was_reset())
        self.assertIs(receiver.reason.type, ConnectionDone)
        # A server that is broken off gets no close-notify, which would make what it has got look whole.
        client = await self.attempt(self.tls(), port)
        receiver = client.receiver
        client.transport.write(b"half")
        server = await self.peers.heard(4, 1)
        client.transport.abortConnection()
        await server.is_lost()
        self.assertTrue(server.was_reset())
        await receiver.gone

    async def test_given_up(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            reported: list[object] = []
            made = ProxyClientFactory(reported.append, reported.append)
            factory = self.tls().wrap(made, "a.example")
            poller = Poller.for_reactor(reactor)
            place = listening.getsockname()
            SocketConnector(poller, reactor, socket.AF_INET, place, factory).connect(60)
            client: Any = made.client
            client.give_up()
            client.receiver = LastReceiver()
            await client.receiver.gone
        self.assertEqual(reported, [])

    async def test_protocols_of_others(self) -> None:
        port = self.serve(authority().issue("a.example"))
        factory = PeerClientFactory()
        connector = reactor.connectTCP("127.0.0.1", port, self.tls().wrap(factory, "a.example"))
        self.addCleanup(connector.disconnect)
        peer = await factory.connected
        server = await self.peers.peer()
        server.send(b"hello")
        await peer.has(5)
        peer.close()
        await server.is_lost()

    # What servers of these tests cannot be brought to do.

    def explained(self, *problems: tuple[str, str, str]) -> str:
        tls = self.tls()
        connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        return tls._explain(SSL.Error(*([[*problems]] if problems else ())), connection)

    def test_weak_certificate(self) -> None:
        mallory = authority().issue("mallory")  # who is no authority
        shown = (its.certificate for its in (mallory.issue("a.example"), mallory))
        why = "the certificate of 'CN=mallory' is not accepted: invalid CA certificate"
        chain = [*map(crypto.X509.from_cryptography, shown)]
        self.assertEqual(self.tls()._distrust(chain), why)
        # What OpenSSL would refuse to present is known when it is read, not with each connection.
        self.assert_refused(
            "tls_client_certificate",
            "'weak.pem': OpenSSL rejects the certificate: ee key too small; get one with a stronger key or signature",
            certificate=(self.file("weak.pem", rsa_pem("a.example", 1024)),),
        )
        self.assertEqual(self.explained(("a", "b", "c d")), "the TLS handshake failed: c d")
        self.assertEqual(self.explained(), "it closed the connection instead of answering with TLS")

    def assert_refused(self, key: str, message: str, **settings: Any) -> None:
        error = self.assertRaises(TLSFileError, BackendTLS, ServerTLS(**settings))
        self.assertEqual((error.key, str(error).replace(f"{self.folder}/", "")), (key, message))

    def file(self, name: str, *contents: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(b"\n".join(contents))
        return path

    def test_authorities(self) -> None:
        expected = "name a PEM file with certificates"
        damaged = authority().pem.replace(b"MII", b"MIX", 1)
        where = f"correct the path, or put the file into '{self.folder}'"
        missing = f"cannot read 'none.pem': No such file or directory; {where}"
        for ca, message in (
            (self.folder / "none.pem", missing),
            (self.file("empty.pem", b"hello"), f"'empty.pem' has no certificate in it; {expected}"),
            (self.file("bad.pem", damaged), f"'bad.pem': a certificate is damaged; {expected}"),
        ):
            self.assert_refused("tls_ca", message, ca=ca)

    def test_identity(self) -> None:
        own, other = authority().issue("x.example"), authority().issue("x.example")
        expected = "name a PEM file with a certificate and its key"
        damaged = own.key_pem().replace(b"MIG", b"MIX", 1)
        for contents, message in (
            ((own.pem,), f"no private key in it; {expected}"),
            ((own.key_pem(),), f"no certificate in it; {expected}"),
            ((own.pem, damaged), f"the private key is damaged; {expected}"),
            ((own.pem, own.key_pem(b"secret")),
             "the private key is encrypted; write it without a passphrase"),
            ((own.pem, other.key_pem()),
             f"the private key does not belong to the certificate; {expected}"),
        ):  # fmt: skip
            path = self.file("client.pem", *contents)
            wanted = f"'client.pem': {message}"
            self.assert_refused("tls_client_certificate", wanted, certificate=(path,))
        chain = self.file("chain.pem", authority().pem, own.pem)
        BackendTLS(ServerTLS(certificate=(chain, self.file("key.pem", own.key_pem()))))
        self.assert_refused(
            "tls_client_certificate",
            "'chain.pem' and 'ca.pem': no private key in it; name a PEM file with a certificate and its key",
            certificate=(chain, self.ca),
        )
