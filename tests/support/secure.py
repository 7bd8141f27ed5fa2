"""A client of TLS, in as many layers as a test wants, that can do what careful and careless ones do."""

import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.peers import Peer, connect

CLOSE_NOTIFY = b"\x15\x03\x03\x00\x02\x01\x00"
"""The alert, as it is before anything is encrypted (RFC 8446, section 6.1)."""


def client_context(ca: Path | None, *, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@attrs.define
class _Layer:
    """One TLS; what it sends goes to the next lower one."""

    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    ready: bool = False

    def advance(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.ready = True


class SecurePeer(Peer):
    """One end of a connection that speaks TLS, maybe inside TLS.

    Args:
        layers: The context and the server name of each TLS, the outermost first.
        eager: What is sent in the write that ends the handshake.

    Attributes:
        told_close_notify: The innermost TLS has got a close-notify.
    """

    def __init__(self, *layers: tuple[ssl.SSLContext, str | None], eager: bytes = b"") -> None:
        super().__init__()
        self._eager = eager
        self.failure: ssl.SSLError | None = None
        self.told_close_notify = False
        self.layers: list[_Layer] = []
        for context, name in layers:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
            self.layers.append(_Layer(tls, incoming, outgoing))

    @property
    def tls(self) -> ssl.SSLObject:
        return self.layers[-1].tls

    def connectionMade(self) -> None:
        self._advance()

    def dataReceived(self, data: bytes) -> None:
        self.layers[0].incoming.write(data)
        self._advance()

    def ready(self) -> Deferred[Peer]:
        return self.until(lambda: self.layers[-1].ready)

    def has_close_notify(self, does: Callable[[], object] = bool) -> Deferred[Peer]:
        """Do something, and wait until the innermost TLS has got a close-notify."""
        does()
        return self.until(lambda: self.told_close_notify)

    def failed(self) -> Deferred[Peer]:
        return self.until(lambda: self.failure is not None or self.lost is not None)

    def _advance(self) -> None:
        try:
            for depth, layer in enumerate(self.layers):
                if not layer.ready:
                    layer.advance()
                    self.flush()
                    if not layer.ready:
                        break
                else:
                    self._read(depth)
            else:
                self._read(len(self.layers) - 1)
        except ssl.SSLError as failure:
            self.failure = failure
        self.flush()
        self._changed()

    def _read(self, depth: int) -> None:
        try:
            while data := self.layers[depth].tls.read(2**16):
                if depth + 1 < len(self.layers):
                    self.layers[depth + 1].incoming.write(data)
                else:
                    self.received += data
        except ssl.SSLWantReadError:
            return
        except ssl.SSLZeroReturnError:
            pass
        if depth + 1 == len(self.layers):
            self.told_close_notify = True

    def flush(self) -> None:
        if self._eager and self.layers[0].ready:
            said, self._eager = self._eager, b""
            self.tls.write(said)
        for layer, below in zip(self.layers[:0:-1], self.layers[-2::-1], strict=True):
            if below.ready and layer.outgoing.pending:
                below.tls.write(layer.outgoing.read())
        if self.layers[0].outgoing.pending:
            self.transport.write(self.layers[0].outgoing.read())

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.flush()

    def close_notify(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()


async def connect_tls(test: TestCase, port: int, peer: SecurePeer) -> SecurePeer:
    await connect(test, port, peer=peer)

    def gone() -> Deferred[Peer] | None:
        if peer.lost is not None:
            return None
        peer.reset()
        return peer.is_lost()

    test.addCleanup(gone)
    return peer
