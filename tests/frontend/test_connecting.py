"""What happens while a server is being connected, and after."""

from __future__ import annotations

import errno
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectBindError
from twisted.python.failure import Failure

from tests.support.mux import MuxTestCase, backend_at, server_at
from tests.support.peers import PeerFactory, make_stalled_port, reactor
from txmux.backends.connect import _cause
from txmux.embedding import route
from txmux.frontend.stages import Closing
from txmux.proxyprotocol.decode import Decoded, decode
from txmux.rules.endpoints import server
from txmux.rules.model import Backend


def free_port() -> int:
    """Give a port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


class ServersTest(MuxTestCase):
    """Which server takes the connection, and what if none does."""

    async def lead(self, backend: Backend) -> Any:
        self.client = await self.connect(self.mux([route("any", backend)], reactor=reactor))
        self.client.send(b"x")
        return self.client

    async def test_next_server(self) -> None:
        """When a connect fails the next server is tried, and nothing is lost."""
        ports = free_port(), make_stalled_port(self), self.backend_port()
        client = await self.lead(backend_at(*ports, connect_timeout=0.2))
        peer = await self.backend.peer()
        await peer.has(1)
        client.send(b"yz")
        await peer.has(3)
        self.assertEqual(bytes(peer.received), b"xyz")
        client.close()
        peer.close()
        record = await self.logged()
        self.assert_story(record, reason="done", server=f"127.0.0.1:{ports[2]}")

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
            backend_at(make_stalled_port(self), free_port(), connect_timeout=0.1)
        )
        await client.is_lost()
        self.assert_story(await self.logged(), reason="connect-refused")

    async def test_all_hang(self) -> None:
        """A server that does not answer costs the connect time-out, no more."""
        client = await self.lead(backend_at(make_stalled_port(self), connect_timeout=0.1))
        await client.is_lost()
        self.assert_story(await self.logged(), reason="connect-timeout")

    async def test_name(self) -> None:
        """A server may be a host name."""
        port = self.backend_port()
        await self.lead(Backend("named", (server(f"localhost:{port}"),)))
        peer = await self.backend.peer()
        await peer.has(1)

    async def test_name_that_hangs(self) -> None:
        """The connect time-out covers names too."""
        port = make_stalled_port(self)
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
                peer = await self.backend.peer()
                await peer.has(1)
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
        peer = await self.backend.peer()
        await peer.has(1)
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

    async def test_out_of_local_ports(self) -> None:
        """Trouble on this machine is no refusal."""
        self.assertEqual(_cause(Failure(ConnectBindError(errno.EADDRNOTAVAIL, "no port"))), "error")


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
        backend = backend_at(stalled, self.backend_port(), connect_timeout=0.3)
        client = await self.connect(self.mux([route("any", backend)], reactor=reactor))
        client.send(b"all")
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


class RelayedTest(MuxTestCase):
    """How relayed connections are logged, and what their sockets are like."""

    async def relayed(self, **settings: Any) -> Any:
        backend = backend_at(self.backend_port(), **settings)
        self.client = await self.connect(self.mux([route("any", backend)]))
        self.client.send(b"x")
        self.peer = await self.backend.peer()
        await self.peer.has(1)
        return self.client, self.peer

    async def test_server_reset(self) -> None:
        """A server that breaks off is told apart from one that closes."""
        client, peer = await self.relayed()
        peer.reset()
        await client.is_lost()
        self.assertTrue(client.was_reset())
        self.assert_story(await self.logged(), reason="server-reset")

    async def test_client_reset(self) -> None:
        """So is a client."""
        client, peer = await self.relayed()
        client.reset()
        await peer.is_lost()
        self.assertTrue(peer.was_reset())
        self.assert_story(await self.logged(), reason="client-reset")

    async def test_server_closes_at_once(self) -> None:
        """A server that closes without a word ends the connection in good order."""
        client, peer = await self.relayed()
        peer.close()
        await client.is_lost()
        self.assert_story(await self.logged(), reason="done", bytes_in=1, bytes_out=0)

    async def test_timeouts(self) -> None:
        """The backend's time-outs apply."""
        for number, (settings, reason) in enumerate(
            [({"idle_timeout": 7}, "idle-timeout"), ({"max_duration": 7}, "max-duration")]
        ):
            self.backend = PeerFactory()
            client, peer = await self.relayed(**settings)
            self.time.advance(7)
            await client.has_all()
            client.close()
            await peer.has_all()
            peer.close()
            self.assert_story(await self.logged(number + 1), reason=reason, duration_ms=7000)

    async def test_drained(self) -> None:
        """At the end of a drain relayed connections are ended."""
        client, peer = await self.relayed()
        self.factory.abort("drained")
        await client.is_lost()
        await peer.is_lost()
        self.assert_story(await self.logged(), reason="drained", bytes_in=1)

    async def test_socket_options(self) -> None:
        """Both sides have keepalive, and no small message waits for another."""
        await self.relayed()
        (connection,) = self.factory.connections
        transports: list[Any] = [connection.transport, connection.stage._relay._server.transport]  # type: ignore[attr-defined]
        for transport in transports:
            self.assertTrue(transport.getTcpKeepAlive())
            self.assertTrue(transport.getTcpNoDelay())

    async def test_proxy_header(self) -> None:
        """The backend is told of its client before it gets the client's bytes."""
        for version, host in [
            ("v1", "127.0.0.1"),
            ("v2", "127.0.0.1"),
            ("v1", "::1"),
            ("v2", "::1"),
        ]:
            self.backend = PeerFactory()
            backend = backend_at(self.backend_port(), proxy_protocol=version)
            port = self.mux([route("any", backend)], interface=host)
            client = await self.connect(port, host)
            client.send(b"payload")
            peer = await self.backend.peer()
            found = None
            while not isinstance(found, Decoded):
                await peer.has(len(peer.received) + 1)
                found = decode(bytes(peer.received))
            await peer.has(found.length + 7)
            self.assertEqual(bytes(peer.received[found.length :]), b"payload")
            address = client.transport.getHost()
            source, destination = found.header.source, found.header.destination
            assert source is not None
            assert destination is not None
            self.assertEqual((str(source.host), source.port), (address.host, address.port))
            self.assertEqual((str(destination.host), destination.port), (host, port))


class ClosingTest(MuxTestCase):
    """Clients that are being closed, and have not gone yet."""

    async def closing(self) -> Any:
        """Refuse a client that the transport still has something to write to."""
        client = await self.connect(self.mux([route("ssh", "close")]))
        client.send(b"SS")
        await self.seen(2)
        (connection,) = self.factory.connections
        client.transport.pauseProducing()
        connection.transport.write(bytes(8 * 1024 * 1024))
        client.send(b"H-")
        while not isinstance(connection.stage, Closing):
            await self.turn()
        return client, connection

    async def test_abort(self) -> None:
        """A drain that ends waits no longer for it."""
        client, connection = await self.closing()
        connection.receiver.data(b"more")
        connection.receiver.finished()
        self.factory.abort("drained")
        client.transport.resumeProducing()
        await client.is_lost()
        self.assert_story(await self.logged(), reason="denied", bytes_in=8)


class EndpointTest(MuxTestCase):
    """A factory of txmux's is like any other to Twisted."""

    async def test_endpoint(self) -> None:
        """It can be given to a server endpoint."""
        self.mux([route("any", "close")])
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.factory)
        try:
            client = await self.connect(port.getHost().port)
            client.send(b"x")
            await client.is_lost()
            await self.logged()
        finally:
            await port.stopListening()
