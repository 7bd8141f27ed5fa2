"""What happens while a server is being connected."""

from __future__ import annotations

import errno
import socket
import tempfile
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from service_identity import CertificateError
from twisted.internet import error
from twisted.logger import capturedLogs, eventAsText
from twisted.python.failure import Failure

from tests.net.relay.test_other_transports import certificate
from tests.support.folders import make_folder
from tests.support.mux import MuxTestCase, backend_at, server_at
from tests.support.peers import PeerFactory, listen, make_stalled_port, reactor
from tests.support.ports import free_port
from txmux.backends.connect.connector import _cause
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Server, ServerTLS
from txmux.rules.reading.endpoints import server


class ServersTest(MuxTestCase):
    """Which server takes the connection, and what if none does."""

    async def lead(self, backend: Backend) -> Any:
        self.client = await self.connect(self.mux([route("any", backend)], reactor=reactor))
        self.client.send(b"x")
        return self.client

    async def test_next_server(self) -> None:
        """When a connect fails the next server is tried, and nothing is lost."""
        ports = free_port(), make_stalled_port(self), self.backend_port()
        client = await self.lead(backend_at(*ports, connect_timeout=0.5))
        peer = await self.backend.heard(1)
        client.send(b"yz")
        await peer.has(3)
        self.assertEqual(bytes(peer.received), b"xyz")
        client.close()
        peer.close()
        record = await self.logged()
        self.assert_story(record, reason="done", server=f"127.0.0.1:{ports[2]}")

    async def test_server_local(self) -> None:
        """The log has the address that the server saw, whatever the transport is made of."""
        path = str(make_folder(self) / "socket")
        port = self.backend_port()
        unix = reactor.listenUNIX(path, self.backend)
        self.addCleanup(unix.stopListening)
        texts = (f"127.0.0.1:{port}", f"localhost:{port}", f"tcp:127.0.0.1:{port}", f"unix:{path}")
        for number, text in enumerate(texts):
            backend = Backend("b", (server(text),), connect_timeout=60.0)
            mux = self.mux([route("any", backend)], reactor=reactor)
            client = await self.connect(mux, b"x")
            peer = await self.backend.heard(1, number)
            seen = peer.transport.getPeer()
            client.close()
            peer.close()
            await client.is_lost()
            record = await self.logged(number + 1)
            expected = None if number == 3 else f"{seen.host}:{seen.port}"
            self.assertEqual((text, record.server_local), (text, expected))

    async def test_retries(self) -> None:
        """No more servers are tried than the retries allow."""
        refusing = free_port()
        client = await self.lead(backend_at(refusing, self.backend_port(), retries=0))
        await client.is_lost()
        self.assertFalse(client.was_reset())
        self.assert_story(
            await self.logged(),
            reason="connect-refused",
            server=f"127.0.0.1:{refusing}",
            backend="backend",
        )

    async def test_all_refuse(self) -> None:
        """The cause of the last attempt is logged."""
        client = await self.lead(
            backend_at(make_stalled_port(self), free_port(), connect_timeout=0.5)
        )
        await client.is_lost()
        self.assert_story(await self.logged(), reason="connect-refused")

    async def test_all_hang(self) -> None:
        """A server that does not answer costs the connect time-out, no more."""
        await self.assert_missed("no connection within", make_stalled_port(self))

    async def test_no_handshake(self) -> None:
        """So does one that accepts, and then says nothing; the log tells both apart."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        port = listening.getsockname()[1]
        await self.assert_missed("no TLS handshake within", port, tls=ServerTLS())

    async def assert_missed(self, what: str, *ports: int, **options: Any) -> None:
        """See what is waited for, and in vain, named in the service's log."""
        with capturedLogs() as logged:
            client = await self.lead(backend_at(*ports, connect_timeout=0.1, **options))
            await client.is_lost()
        self.assert_story(await self.logged(), reason="connect-timeout")
        self.assertIn(f"{what} 0.1 s", " ".join(map(str, map(eventAsText, logged))))

    async def test_name(self) -> None:
        """A server may be a host name."""
        port = self.backend_port()
        await self.lead(Backend("named", (server(f"localhost:{port}"),), connect_timeout=60.0))
        await self.backend.heard(1)

    async def test_name_and_half_close(self) -> None:
        """A server that has finished sending still hears the client out, also when it is reached by its name."""
        port = self.backend_port()
        client = await self.lead(
            Backend("named", (server(f"localhost:{port}"),), connect_timeout=60.0)
        )
        peer = await self.backend.peer()
        peer.send(b"bye")
        peer.finish()
        await client.has_all()
        client.send(b"z" * 20)
        client.finish()
        await peer.has(21)
        client.close()
        peer.close()
        self.assert_story(await self.logged(), reason="done", bytes_in=21, bytes_out=3)

    async def test_name_that_hangs(self) -> None:
        """The connect time-out covers names too."""
        port = make_stalled_port(self)
        make_stalled_port(self, "::1", port)  # on most machines localhost has both addresses
        client = await self.lead(
            Backend("named", (server(f"localhost:{port}"),), connect_timeout=0.1)
        )
        await client.is_lost()
        self.assert_story(await self.logged(), reason="connect-timeout")

    async def test_unix(self) -> None:
        """A server may listen on a UNIX socket."""
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "socket")
            port = reactor.listenUNIX(path, self.backend)
            try:
                await self.lead(Backend("unix", (server(f"unix:{path}"),)))
                peer = await self.backend.heard(1)
                self.client.close()
                peer.close()
                self.assert_story(await self.logged(), reason="done", server=f"unix:{path}")
            finally:
                await port.stopListening()

    async def test_no_unix_socket(self) -> None:
        """A UNIX socket that is not there refuses."""
        client = await self.lead(Backend("unix", (server("unix:/nonexistent/socket"),)))
        await client.is_lost()
        self.assert_story(await self.logged(), reason="connect-refused")

    async def test_endpoint_string(self) -> None:
        """A server may be any client endpoint string of Twisted's."""
        text = f"tcp:127.0.0.1:{self.backend_port()}:timeout=3"
        self.assertEqual(server(text).kind, "endpoint")
        client = await self.lead(Backend("string", (server(text),)))
        peer = await self.backend.heard(1)
        client.finish()
        await peer.has_all()
        peer.send(b"half-close works")
        peer.close()
        await client.has(16)
        client.close()
        self.assert_story(await self.logged(), reason="done", server=text)

    async def test_endpoint_string_refused(self) -> None:
        """The next server is tried after an endpoint string, too."""
        servers = (server(f"tcp:127.0.0.1:{free_port()}:timeout=3"), server_at(self.backend_port()))
        await self.lead(Backend("string", servers))
        await (await self.backend.peer()).has(1)

    async def test_what_a_failure_is_called(self) -> None:
        """Trouble on this machine is no refusal, nor is a failed handshake."""
        for problem, expected in [
            (error.ConnectBindError(errno.EADDRNOTAVAIL, "no port"), "error"),
            (OSError(errno.EMFILE, "too many"), "error"),
            (ZeroDivisionError(), "error"),
            (SSL.Error(), "tls-failed"),
            (error.ConnectionRefusedError(), "connect-refused"),
            (error.DNSLookupError(), "connect-refused"),
            (error.TimeoutError(), "connect-timeout"),
        ]:
            self.assertEqual(_cause(Failure(problem)), expected)

    async def test_dialling_raises(self) -> None:
        """An endpoint that raises is one more server that cannot be reached."""
        bad = Server("tls:x:1:trustRoots=/nowhere", "endpoint")
        await self.lead(Backend("string", (bad, server_at(self.backend_port()))))
        await (await self.backend.peer()).has(1)
        client = await self.lead(Backend("string", (bad,)))
        await client.is_lost()
        self.assert_story(await self.logged(), reason="error", server=bad.text)


class WaitingTest(MuxTestCase):
    """A client that waits for its server, which hangs until the test lets go."""

    async def wait(self, **settings: Any) -> Any:
        backend = backend_at(make_stalled_port(self), connect_timeout=30)
        self.client = await self.connect(
            self.mux([route("any", backend, name="waits")], reactor=reactor, **settings)
        )
        self.client.send(b"hello")
        await self.seen(5)
        return self.client

    async def test_gone(self) -> None:
        """A client that breaks off meanwhile is noticed at once."""
        client = await self.wait()
        client.reset()
        self.assert_story(
            await self.logged(), reason="client-gone", route="waits", backend="backend", bytes_in=5
        )

    async def test_paused_when_full(self) -> None:
        """A client that sends without end meanwhile is stopped."""
        client = await self.wait(peek_limit=1000)
        client.send(bytes(32 * 1024 * 1024))
        (connection,) = self.factory.connections
        while connection.transport in reactor.getReaders():
            await self.turn()
        self.assertLess(connection.record.bytes_in, 256 * 1024)
        self.factory.abort("drained")
        await self.logged()

    async def test_goes_on_elsewhere(self) -> None:
        """Wherever such a client is led in the end, it is read again: here to a fallback's fallback."""
        last = backend_at(self.backend_port())
        between = backend_at(make_stalled_port(self), retries=0, fallback=last)
        first = backend_at(make_stalled_port(self), retries=0, fallback=between)
        client = await self.connect(self.mux([route("any", first)], peek_limit=1000))
        client.send(bytes(1_000_000))
        await self.seen(1000)
        for _ in range(2):
            await self.turn(3)
            self.time.advance(5)
        peer = await self.backend.heard(1_000_000)
        client.close()
        peer.close()
        await self.logged()

    async def test_drained(self) -> None:
        """At the end of a drain the attempt is given up."""
        client = await self.wait()
        self.factory.abort("drained")
        await client.is_lost()
        self.assertTrue(client.was_reset())
        self.assert_story(await self.logged(), reason="drained")

    async def test_finished(self) -> None:
        """A client that has said all still gets its answer once a server is there."""
        stalled = make_stalled_port(self)
        backend = backend_at(stalled, self.backend_port(), connect_timeout=0.5)
        client = await self.connect(self.mux([route("any", backend)], reactor=reactor), b"all")
        client.finish()
        peer = await self.backend.peer()
        await peer.has_all()
        self.assertEqual(bytes(peer.received), b"all")
        peer.send(b"answer")
        peer.close()
        await client.has_all()
        self.assertEqual(bytes(client.received), b"answer")
        client.close()
        self.assert_story(await self.logged(), reason="done")


class HandshakeTest(MuxTestCase):
    """A server behind TLS is connected when the handshake is over."""

    async def lead(self, *servers: Server, **settings: Any) -> Any:
        backend = Backend("secure", servers, **settings)
        return await self.connect(self.mux([route("any", backend)], reactor=reactor), b"x")

    async def test_fails(self) -> None:
        """A certificate that is not trusted is a failed connect; the next server is tried, or the cause is told."""
        port = reactor.listenSSL(0, PeerFactory(), certificate(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        untrusted = server(f"tls:localhost:{port.getHost().port}")
        client = await self.lead(untrusted)
        await client.is_lost()
        self.assert_story(await self.logged(), reason="tls-failed", server=untrusted.text)
        await self.lead(untrusted, server_at(self.backend_port()))
        await (await self.backend.peer()).has(1)
        self.flushLoggedErrors(CertificateError)  # Twisted logs it as well

    async def test_hangs(self) -> None:
        """A handshake that does not come to its end takes no longer than a connect may."""
        mute = PeerFactory()
        client = await self.lead(server(f"ssl:127.0.0.1:{listen(self, mute)}"), connect_timeout=0.3)
        await client.is_lost()
        self.assert_story(await self.logged(), reason="connect-timeout")
        await (await mute.peer()).is_lost()

    async def test_client_leaves(self) -> None:
        """A client that leaves meanwhile ends it."""
        mute = PeerFactory()
        client = await self.lead(server(f"ssl:127.0.0.1:{listen(self, mute)}"))
        peer = await mute.peer()
        await peer.has(1)
        client.reset()
        await peer.is_lost()
        self.assert_story(await self.logged(), reason="client-gone")
