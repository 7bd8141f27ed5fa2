"""What a TLS transport writes at once."""

import contextlib
import os
import ssl
from typing import Any

from OpenSSL import SSL
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import ContextFactory
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.connect.tls_case import authority
from tests.support.folders import make_folder
from tests.support.secure import client_context
from txmux.net.tls.transport import TLSTransport


class _Below(StringTransport):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


class WriteTest(SynchronousTestCase):
    def test_many_records_in_few_writes(self) -> None:
        """Records go out together, and what is written stays as it was while others follow in the same memory."""
        path = authority().issue("a.example").write(make_folder(self) / "a.pem", key=True)
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_file(str(path))
        context.use_privatekey_file(str(path))
        creator: Any = ContextFactory()
        creator.getContext = lambda: context
        factory = TLSMemoryBIOFactory(creator, False, Factory.forProtocol(Protocol))  # noqa: FBT003 - Twisted's signature
        server, below = TLSTransport(factory, Protocol()), _Below()
        server.makeConnection(below)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = client_context(None).wrap_bio(incoming, outgoing)
        for _ in range(2):
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            server.dataReceived(outgoing.read())
            incoming.write(b"".join(below.writes))
            below.writes.clear()
        for size, most in ((1, 1), (2**14, 1), (2**16, 1), (300_001, 4)):
            data, got = os.urandom(size), bytearray()
            server.write(data)
            self.assertLessEqual(len(below.writes), most)
            incoming.write(b"".join(below.writes))
            below.writes.clear()
            while len(got) < size:
                got += client.read(size)
            self.assertEqual(bytes(got), data)
