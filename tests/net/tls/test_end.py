"""What TLS over a socket sends at once."""

import contextlib
import os
import random
import select
import socket
import ssl
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.kit import Peer, authority, client_context, make_folder, pair, reactor
from txmux.net.relay.peer_state import _INFO, UnansweredBytes, unanswered_by
from txmux.net.sockets.plainsocket import reset_on_close
from txmux.net.sockets.poller import Poller
from txmux.net.tls.end import TlsEnd, TlsTransport


class _Below(socket.socket):
    """Counts what is sent, which its peer takes at once."""

    def __init__(self, own: socket.socket, peer: socket.socket) -> None:
        super().__init__(fileno=own.detach())
        self.peer, self.sent, self.taken = peer, 0, b""

    def send(self, data: Any, flags: int = 0, /) -> int:
        count = super().send(data, flags)
        self.sent += 1
        while len(piece := self.peer.recv(count)) < count:
            count -= len(piece)
            self.taken += piece
        self.taken += piece
        return len(data)


class _Unanswered(socket.socket):
    """A socket of which the system says that it has sent nine times without an answer."""

    def getsockopt(self, level: int, *of: Any) -> Any:
        if level != socket.IPPROTO_TCP:
            return super().getsockopt(level, *of)
        return _INFO.pack(9, 0, 1, 135_000, 135_000)


class PeerTest(SynchronousTestCase):
    def test_peer_that_is_lost(self) -> None:
        """It is lost as one without TLS is, also to those who know a connection by its end alone."""
        with _Unanswered() as below:
            end = TlsEnd(below, SSL.Connection(SSL.Context(SSL.TLS_METHOD), None))
            outer = TlsEnd(end, SSL.Connection(SSL.Context(SSL.TLS_METHOD), None))
            for one in (below, end, outer):
                self.assertEqual(unanswered_by(one), UnansweredBytes(135.0, 9))
            outer.release()
            end.release()


def _server_context(test: SynchronousTestCase) -> SSL.Context:
    path = authority().issue("a.example").write(make_folder(test) / "a.pem", key=True)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_file(str(path))
    context.use_privatekey_file(str(path))
    return context


def _end_over(below: Any, context: SSL.Context) -> TlsEnd:
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return TlsEnd(below, connection)


class _Layer:
    def __init__(self) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context(None).wrap_bio(self.incoming, self.outgoing)

    def encrypt(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()


def _encrypt(layers: list[_Layer], data: bytes) -> bytes:
    for layer in reversed(layers):
        data = layer.encrypt(data)
    return data


def _make_layers(
    test: SynchronousTestCase, depth: int, *, is_tcp: bool = False
) -> tuple[socket.socket, list[_Layer], TlsEnd]:
    """Shake hands, one layer within the other; return the peer, its layers from the outermost one, and the innermost end."""
    context = _server_context(test)
    own, peer = pair(test, is_tcp=is_tcp)
    own.settimeout(0)
    peer.settimeout(0)
    end: Any = own
    layers: list[_Layer] = []
    for _ in range(depth):
        layer, end = _Layer(), _end_over(end, context)
        for _ in range(2):
            with contextlib.suppress(ssl.SSLWantReadError):
                layer.tls.do_handshake()
            end.shake(layer.outgoing.read())
            layer.incoming.write(end.output())
        layers.append(layer)
    test.addCleanup(end.close)
    return peer, layers, end


class ReadTest(SynchronousTestCase):
    def test_whole_records_never_wait(self) -> None:
        """A record that is whole comes without a further event, whatever came before it in the same piece."""
        cuts = random.Random(1)
        for depth in range(1, 6):
            peer, layers, end = _make_layers(self, depth)
            buffer = bytearray(2**16)
            for _ in range(25):
                sizes = [*cuts.choices((2**14, 9_000, 200, 1), (6, 1, 2, 1), k=8), 5000]
                stream = b"".join(_encrypt(layers, os.urandom(size)) for size in sizes)
                got = 0
                while stream:
                    cut = cuts.choice((8_000, 16_000, 46_462, 49_152, 100_000))
                    stream = stream[peer.send(stream[:cut]) :]
                    while select.select([end.bottom], [], [], 0)[0]:
                        with contextlib.suppress(BlockingIOError):
                            got += end.recv_into(buffer)
                self.assertEqual((depth, got), (depth, sum(sizes)))

    def test_cut_that_comes_with_the_last_bytes(self) -> None:
        """With `strict`, an end of the outer layer alone breaks the inner one off, after its bytes."""
        for depth in (2, 3):
            peer, layers, end = _make_layers(self, depth)
            end.strict = True
            stream = _encrypt(layers, b"last")
            for layer in reversed(layers[:-1]):
                with contextlib.suppress(ssl.SSLWantReadError):
                    layer.tls.unwrap()
                ending = layer.outgoing.read()
                for outer in reversed(layers[: layers.index(layer)]):
                    ending = outer.encrypt(ending)
                stream += ending
            peer.send(stream)
            buffer = bytearray(2**16)
            self.assertEqual(end.recv_into(buffer), 4)
            self.assertTrue(select.select([end.bottom], [], [], 0)[0])
            self.assertRaises(ConnectionResetError, end.recv_into, buffer)

    def test_buffers_that_are_freed(self) -> None:
        """Not while what has come is in them; a part of a record is kept."""
        peer, layers, end = _make_layers(self, 1)
        first, second = (layers[0].encrypt(b"more") for _ in range(2))
        buffer = bytearray(9)
        for sent, size, is_freed in (
            (first + second[:7], 4, False), (b"", 0, True), (second[7:], 9, True),
        ):  # fmt: skip
            peer.send(sent)
            if size:
                self.assertEqual(end.recv_into(buffer, size), 4)
            else:
                self.assertRaises(BlockingIOError, end.recv_into, buffer)
            before = end.incoming_bio, end.outgoing_bio
            end.release_buffers()
            self.assertEqual(end.incoming_bio not in before, is_freed)

    def test_reset_that_a_send_has_found(self) -> None:
        """The kernel reports it once: what has come is read, and what then looks like an end is none."""
        for depth in (1, 2):
            peer, layers, end = _make_layers(self, depth, is_tcp=True)
            peer.send(_encrypt(layers, b"some"))
            reset_on_close(peer)
            peer.close()
            self.assertRaises(OSError, end.shutdown, socket.SHUT_WR)
            buffer = bytearray(2**16)
            self.assertEqual(end.recv_into(buffer), 4)
            self.assertRaises(ConnectionResetError, end.recv_into, buffer)


class SendTest(SynchronousTestCase):
    def setUp(self) -> None:
        own, peer = socket.socketpair()
        own.settimeout(0)
        self.addCleanup(peer.close)
        self.below = _Below(own, peer)
        self.end = _end_over(self.below, _server_context(self))
        self.addCleanup(self.end.close)
        self.incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = client_context(None).wrap_bio(self.incoming, outgoing)
        for _ in range(2):
            with contextlib.suppress(ssl.SSLWantReadError):
                self.client.do_handshake()
            self.end.shake(outgoing.read())
            self.incoming.write(self.end.output())

    def read(self, size: int) -> bytes:
        self.incoming.write(self.below.taken)
        self.below.taken = b""
        got = bytearray()
        while len(got) < size:
            got += self.client.read(size)
        return bytes(got)

    def test_many_records_at_once(self) -> None:
        """Records go out together, and what is sent stays as it was while others follow in the same memory."""
        for size, most in ((1, 1), (2**14, 1), (2**16, 1), (300_001, 4)):
            data, self.below.sent = os.urandom(size), 0
            self.assertEqual(self.end.send(data), size)
            self.assertLessEqual(self.below.sent, most)
            self.assertEqual(self.read(size), data)

    def test_no_room(self) -> None:
        """The last byte waits with the sender until there is room for all before it, and nothing comes twice."""
        data = os.urandom(2**20)
        self.below.send = super(_Below, self.below).send  # type: ignore[method-assign]  # its peer takes nothing
        count = self.end.send(data)
        self.assertLess(count, len(data))
        self.assertRaises(BlockingIOError, self.end.send, data[count:])
        self.below.peer.settimeout(0)
        while count < len(data):
            with contextlib.suppress(BlockingIOError):
                while piece := self.below.peer.recv(2**20):
                    self.below.taken += piece
            with contextlib.suppress(BlockingIOError):
                count += self.end.send(data[count:])
        with contextlib.suppress(BlockingIOError):
            while piece := self.below.peer.recv(2**20):
                self.below.taken += piece
        self.assertEqual(self.read(len(data)), data)


class CloseTest(TestCase):
    def transport(self, end: Any, protocol: Any) -> TlsTransport:
        address = UNIXAddress("")
        made = TlsTransport(Poller.for_reactor(reactor), end, socket.AF_UNIX, address, address)
        made.set_protocol(protocol)
        made.startReading()
        return made

    async def test_half_close(self) -> None:
        """It is reported when the close-notify is sent."""
        peer, [layer], end = _make_layers(self, 1)
        protocol, reported = Peer(), Deferred[None]()
        protocol.writeConnectionLost = lambda: reported.callback(None)  # type: ignore[method-assign]
        self.transport(end, protocol).loseWriteConnection()
        await reported
        layer.incoming.write(peer.recv(2**16))
        self.assertEqual(layer.tls.read(), b"")
        peer.close()
        await protocol.is_lost()

    def test_call_once_the_peer_has_all(self) -> None:
        """It comes at once without an outer TLS."""
        for depth in (1, 2):
            peer, _, end = _make_layers(self, depth, is_tcp=True)
            with contextlib.suppress(BlockingIOError):
                while True:
                    end.send(bytes(2**16))
            clock, called = Clock(), list[int]()
            end.call_when_acknowledged(clock, lambda of=called: of.append(1))  # type: ignore[misc]
            clock.pump([0.01, 1.0, 60.0])
            self.assertEqual(called, [1] * (depth == 1))
            while not called:
                clock.advance(60)
                with contextlib.suppress(BlockingIOError):
                    peer.recv(2**20)
            self.assertEqual(clock.getDelayedCalls(), [])

    async def test_close_notify_that_waits_for_room(self) -> None:
        """A transport that closes sends it once its peer reads, after all that came before."""
        peer, [layer], end = _make_layers(self, 1)
        protocol: Any = Protocol()
        lost = Deferred[Any]()
        protocol.connectionLost = lost.callback
        transport = self.transport(end, protocol)
        before, taken = 0, b""
        with contextlib.suppress(BlockingIOError):
            while True:
                before += end.bottom.send(bytes(2**16))
        transport.loseConnection()
        await deferLater(reactor, 0)
        while len(taken) <= before:
            await deferLater(reactor, 0)
            with contextlib.suppress(BlockingIOError):
                taken += peer.recv(2**20)
        layer.incoming.write(taken[before:])
        self.assertEqual(layer.tls.read(), b"")
        peer.close()
        await self.assertFailure(lost, ConnectionDone)
