import gc
import socket
from typing import Any

from twisted.internet.endpoints import TCP4ServerEndpoint

from tests.support.kit import MuxTestCase, Peer, backend_at, close, for_each, make_folder, reactor
from txmux.net.relay import kernel
from txmux.net.relay.relay import MAX_FINAL_BYTES
from txmux.rules.embedding import route
from txmux.rules.model import Backend, Keepalive, Server
from txmux.tcp.stages import relaying
from txmux.tcp.stages.connecting import Connecting
from txmux.tcp.stages.peeking import CloserLook
from txmux.tcp.stages.relaying import release
from txmux.tcp.stages.turning_away import Closing


def _early_stages() -> set[Any]:
    gc.collect()
    return {thing for thing in gc.get_objects() if isinstance(thing, (Connecting, CloserLook))}


class RelayedTest(MuxTestCase):
    async def relayed(self, **settings: Any) -> tuple[Peer, Peer]:
        backend = backend_at(self.backend_port(), **settings)
        return await self.both(self.mux([route("any", backend)]), b"x")

    async def test_reset(self) -> None:
        """So does a drain end both; a server that closes at once ends its client well.

        The socket of a client that resets with its answer is closed at once, though its server has not ended yet.
        """
        for is_server, reason in self.anew(((True, "server-reset"), (False, "client-reset"))):
            client, peer = await self.relayed()
            sender, other = (peer, client) if is_server else (client, peer)
            await self.is_reset(other, sender.reset)
            await self.assert_logged(reason=reason)
        client, peer = await self.relayed()
        self.factory.abort("drained")
        await client.is_lost()
        await self.assert_ended(peer, reason="drained", bytes_in=1)
        self.forget()
        client, peer = await self.relayed()
        await peer.tell(client, b"bye")
        [connection] = self.factory.connections
        own = connection.socket
        client.reset()
        while own.fileno() >= 0:
            await self.turn()
        await peer.is_lost(peer.close)
        await self.assert_logged(reason="done")
        self.forget()
        client, peer = await self.relayed()
        peer.close()
        await self.assert_ended(client, reason="done", bytes_in=1, bytes_out=0)

    @for_each("relay", ("auto", "portable"))
    async def test_reset_when_all_is_said(self) -> None:
        """By a server that has answered; a client that waits for an answer has not been served."""
        lost: Any = ((said, "server-reset", {}) for said in (b"", bytes(1000)))
        rows = (b"bye", "done", {"reset": "late"}), *lost
        for answer, reason, facts in self.anew(rows):
            client, peer = await self.relayed()
            await peer.has_all(client.finish)
            await peer.tell(client, answer)
            await self.taken()
            await self.is_gone(client, peer.reset)
            await self.assert_logged(reason=reason, facts=facts)

    async def test_reset_that_loses_as_much_as_it_may(self) -> None:
        """The end that is on its way with these bytes is none of them, with a stage and without."""
        for over, reason, reset in ((0, "done", "late"), (1, "client-reset", None)):
            for has_stage in (False, True):
                self.forget()
                backend = backend_at(self.backend_port())
                client, peer = await self.both(self.mux([route("ssh", backend)]), b"SSH-2.0-a\r\n")
                await peer.tell(client, b"bye")
                client.transport.pauseProducing()
                [connection] = self.factory.connections
                own = connection.socket

                def unacknowledged_by(
                    connected: object, own: object = own, count: int = MAX_FINAL_BYTES + 1 + over
                ) -> float:
                    return count if connected is own else 0

                for module in (relaying, kernel):
                    self.patch(module, "unacknowledged_by", unacknowledged_by)
                peer.finish()
                await self.until_so(lambda connection=connection: connection.half_closed)  # type: ignore[misc]
                if has_stage:
                    connection.attach_stage()
                await self.is_gone(peer, client.reset)
                record = await self.assert_logged(reason=reason)
                self.assertEqual(record.facts.get("reset"), reset)

    @for_each("relay", ("auto", "portable"))
    async def test_unix_sockets_have_no_reset(self) -> None:
        path = str(make_folder(self) / "s")
        self.addCleanup(reactor.listenUNIX(path, self.backend).stopListening)
        server = Server(f"unix:{path}", "unix", path=path)
        client, peer = await self.both(self.mux([route("any", Backend("b", (server,)))]), b"x")
        await self.is_gone(peer, client.reset)
        await self.assert_logged(
            reason="client-reset", server=server.text, facts={"reset": "unseen"}
        )

    async def test_bytes_of_detection_are_freed(self) -> None:
        before = _early_stages()
        await self.relayed()
        self.assertEqual(_early_stages() - before, set())

    async def test_timeouts_of_the_backend_apply(self) -> None:
        for reason in self.anew(("idle-timeout", "max-duration")):
            client, peer = await self.relayed(**{reason.replace("-", "_"): 7})
            await self.taken()
            self.time.advance(7)
            await client.has_all()
            await peer.has_all(client.close)
            peer.close()
            await self.assert_logged(reason=reason, duration_ms=7000)

    @for_each("relay", ("auto", "portable"))
    async def test_a_look_at_the_peers_takes_the_place_of_the_next_one(self) -> None:
        client, _ = await self.relayed()
        relay = self.only().stage.relay
        before = relay.timer
        relay.check_peers()
        self.assertEqual((before.active(), relay.timer.active()), (False, True))
        client.reset()
        await self.until_logged()

    async def options(self, **settings: Any) -> list[tuple[int, ...]]:
        port = self.mux([route("any", backend_at(self.backend_port()))], **settings)
        client, server = await self.both(port, b"x")
        connection = self.only()
        transports: list[Any] = [connection.transport, connection.stage.relay.server.transport]
        found = []
        for transport in transports:
            self.assertTrue(transport.getTcpNoDelay())
            its = transport.getHandle()
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            times = [its.getsockopt(socket.IPPROTO_TCP, name) for name in names]
            found.append((its.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *times))
        close(client, server)
        await client.is_lost()
        while self.factory.connections:
            await self.turn()
        self.backend.peers.clear()
        return found

    def test_slot_that_another_process_keeps(self) -> None:
        """It is free once that says so; of a server that is not known here there is none."""
        self.mux([route("any", backend_at(1))])
        [upstream] = self.factory.upstreams.all()
        pool = upstream.pool
        for of, its in ((None, None), (upstream, None), (upstream, pool.pick())):
            keeping: list[Any] = []
            release(of, its, keeping.append)
            self.assertEqual(pool.connections, 1)
            keeping[0]()
        self.assertEqual(pool.connections, 0)

    @for_each("relay", ("auto", "portable"))
    async def test_both_sides_get_keepalive_of_the_rules(self) -> None:
        self.assertEqual(await self.options(), [(1, 60, 15, 4)] * 2)
        keepalive = Keepalive(7, 8, 9)
        self.assertEqual(await self.options(keepalive=keepalive), [(1, 7, 8, 9)] * 2)
        self.assertEqual([options[0] for options in await self.options(keepalive=None)], [0, 0])

    async def test_abort_ends_a_client_that_has_not_taken_all(self) -> None:
        """It is refused, and the transport still has something to write to it."""
        client = await self.connect_read(self.mux([route("ssh", "close")]), b"SS")
        connection = self.only()
        connection.use_transport()
        client.transport.pauseProducing()
        connection.transport.write(bytes(8 * 1024 * 1024))
        client.send(b"H-")
        while not isinstance(connection.stage, Closing):
            await self.turn()
        connection.receiver.data_received(b"more")
        connection.receiver.peer_finished()
        self.factory.abort("drained")
        client.transport.resumeProducing()
        await self.assert_ended(client, reason="denied", bytes_in=8)

    async def test_factory_works_with_a_server_endpoint(self) -> None:
        self.mux([route("any", "close")])
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(self.factory)
        room = self.factory.runtime.descriptors.room()
        try:
            await self.connect_until_lost(port.getHost().port, b"x")
            await self.logged()
            self.assertLess(self.factory.runtime.descriptors.room(), room)  # it has counted
        finally:
            await port.stopListening()
