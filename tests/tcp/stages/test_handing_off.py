import contextlib
import gc
import itertools
import socket
import weakref
from typing import Any, Literal

from twisted.logger import LogLevel, capturedLogs, formatEvent

from tests.processes.test_privileges import require_root
from tests.support.kit import PATIENCE, close
from tests.support.mux import CLOSE, MuxTestCase, backend_at
from tests.support.privileges import NOBODY, as_nobody
from tests.support.taker import Taker
from tests.tcp.stages.test_second_hello import hello
from txmux.net.sockets.descriptors import count_open
from txmux.net.sockets.transport import SocketPreview
from txmux.rules.embedding import outcome, route
from txmux.tcp.stages.handing_off import HandingOff

SSH = b"SSH-2.0-test\r\n"
RELAYS: tuple[Literal["auto", "portable"], ...] = ("auto", "portable")
LOWAT = socket.SOL_SOCKET, socket.SO_RCVLOWAT


class HandingOffTest(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.taker = Taker(self, self.turn)

    def giving_mux(self, **settings: Any) -> int:
        server = route("http", backend_at(self.backend_port()), name="http")
        return self.mux([route("ssh", self.taker.outcome, name="ssh"), server], **settings)

    async def client(self, port: int, said: bytes = b"") -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port))
        client.settimeout(PATIENCE)
        self.addCleanup(client.close)
        client.sendall(said)
        return client

    async def giving(self) -> None:
        while not any(one.stage.state == "handing-over" for one in self.factory.connections):
            await self.turn()

    async def test_server_gets_the_socket_with_unread_bytes_and_facts(self) -> None:
        for count, relay in enumerate(RELAYS, 1):
            self.relay = relay
            client = await self.client(self.giving_mux(), SSH)
            given, reported = await self.taker.taken()
            record = await self.logged(count)
            self.assertEqual(given.getpeername(), client.getsockname())
            self.assertEqual(given.getsockname(), client.getpeername())
            self.assertEqual(given.getsockopt(*LOWAT), 1)
            self.assertEqual(given.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
            self.assertEqual(given.recv(100), SSH)
            given.sendall(b"SSH-2.0-server\r\n")
            self.assertEqual(client.recv(100), b"SSH-2.0-server\r\n")
            client.close()
            self.assertEqual(given.recv(100), b"")
            self.assertEqual(
                reported,
                {
                    "version": 1, "id": record.id, "time": record.time, "listener": "public",
                    "route": "ssh", "client": [*given.getpeername()],
                    "local": [*given.getsockname()], "facts": {"software": "test"},
                },
            )  # fmt: skip
            self.assert_story(record, reason="handed-over", route="ssh", bytes_in=0, bytes_out=0)
            self.assertEqual({record.backend, record.server}, {self.taker.outcome})
            self.assertEqual((record.facts, record.is_clean), ({"software": "test"}, True))

    async def test_hands_over_a_silent_client_without_a_byte(self) -> None:
        port = self.mux(silent=outcome(self.taker.outcome), detect_timeout=3)
        client = await self.client(port)
        await self.accepted_for(3.1)
        given, reported = await self.taker.taken()
        self.assertEqual((reported["route"], reported["facts"]), ("silent", {}))
        given.sendall(b"220 mail\r\n")
        self.assertEqual(client.recv(100), b"220 mail\r\n")
        record = await self.assert_logged(reason="handed-over", route="silent", bytes_in=0)
        times = record.detect_ms or 0.0, record.connect_ms or 0.0
        self.assertEqual([round(one) for one in times], [3100, 0])

    async def test_client_counts_until_it_is_handed_over(self) -> None:
        port = self.giving_mux(max_connections=1, max_connections_per_source=1)
        await self.client(port, SSH)
        given, _, giver = await self.taker.given()
        early = await self.client(port, SSH)
        await self.assert_logged(reason="limit")
        early.close()
        giver.send(b"taken")
        await self.assert_logged(2, reason="handed-over")
        await self.client(port, SSH)
        other, _ = await self.taker.taken()
        await self.assert_logged(3, reason="handed-over")
        self.assertEqual((given.recv(99), other.recv(99)), (SSH, SSH))

    async def test_no_server_at_the_path(self) -> None:
        self.taker.listening.close()
        path, why = self.taker.path, "Connection refused"
        with capturedLogs() as events:
            client = await self.client(self.giving_mux(), SSH)
            record = await self.assert_logged(reason="connect-refused")
        self.assert_story(record, server=self.taker.outcome, bytes_in=len(SSH))
        self.assertEqual(record.facts, {"software": "test", "handover_error": why})
        self.assertEqual(client.recv(9), b"")
        self.assertFalse(record.is_clean)
        (reported,) = self.factory.runtime.handovers.report()
        self.assertEqual((*reported[:3], reported[4]), (path, why, 1, False))
        warned = [formatEvent(one) for one in events if one["log_level"] is LogLevel.warn]
        text = f"[listen public]: cannot hand over a client's socket at {path}: {why}"
        self.assertEqual(warned, [text])

    async def test_client_waits_for_room_in_the_queue_and_loses_nothing(self) -> None:
        """After five seconds it is given up."""
        port = self.giving_mux()
        waiting = self.taker.full()
        client = await self.client(port, SSH)
        await self.giving()
        for _ in range(251):
            self.time.advance(0.02)
        record = await self.assert_logged(reason="connect-timeout", bytes_in=len(SSH))
        self.assertEqual(record.facts["handover_error"], "its queue is full")
        self.assertEqual(client.recv(9), b"")
        client = await self.client(port, SSH)
        await self.giving()
        self.time.advance(0.02)
        self.time.advance(0.02)
        client.sendall(b"more")
        waiting.close()
        self.taker.listening.accept()[0].close()
        self.time.advance(0.02)
        given, _ = await self.taker.taken()
        self.assertEqual(await self.taker.heard(given, len(SSH) + 4), SSH + b"more")
        await self.assert_logged(2, reason="handed-over")

    async def test_server_that_does_not_say_that_it_has_taken_the_socket(self) -> None:
        """One without an answer keeps it."""
        for answer, why in self.anew(((b"", "closed the connection"), (None, "did not answer"))):
            client = await self.client(self.giving_mux(), SSH)
            given, _, giver = await self.taker.given()
            if answer is None:
                await self.assert_waits(5)
            else:
                self.assertEqual(given.recv(99), SSH)
                given.close()
                giver.close()
            record = await self.assert_logged(reason="not-taken", server=self.taker.outcome)
            found = record.facts["handover_error"], record.bytes_in
            self.assertEqual(found, (f"its server {why}", 0))
            if answer is None:
                self.assertEqual(giver.recv(9), b"")
                given.sendall(b"here I am")
                self.assertEqual(given.recv(99), SSH)
            self.assertEqual(client.recv(99), b"here I am" if answer is None else b"")

    async def test_server_that_dies_before_reading_its_queue_lets_go_of_the_socket(self) -> None:
        client = await self.client(self.giving_mux(), SSH)
        await self.giving()
        self.taker.listening.close()
        await self.assert_logged(reason="not-taken")
        with contextlib.suppress(ConnectionResetError):  # what it has said was never read
            self.assertEqual(client.recv(9), b"")

    async def test_operator_ends_clients_that_wait_for_room_or_an_answer(self) -> None:
        port = self.giving_mux()
        client = await self.client(port, SSH)
        given, _, _ = await self.taker.given()
        (connection,) = self.factory.connections
        self.assertEqual(connection.stage.state, "handing-over")
        connection.end("killed")
        await self.assert_logged(reason="killed")
        given.sendall(b"still here")
        self.assertEqual((client.recv(99), given.recv(99)), (b"still here", SSH))
        given.close()
        self.assertEqual(client.recv(9), b"")  # it is not reset
        self.taker.full()
        client = await self.client(port, SSH)
        await self.giving()
        self.factory.abort("drained")
        await self.assert_logged(2, reason="drained")
        self.assertRaises(ConnectionResetError, client.recv, 9)

    async def test_leaves_no_descriptor_open_and_nothing_to_the_garbage_collector(self) -> None:
        port = self.giving_mux()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        left = []
        for number, answer in enumerate((b"taken", b"", b"taken"), 1):
            client = await self.client(port, SSH)
            given, _, giver = await self.taker.given()
            known = weakref.ref(*self.factory.connections)
            giver.send(answer) if answer else giver.close()
            await self.logged(number)
            close(client, given, giver)
            await self.turn(2)
            self.assertIsNone(known())
            left.append(count_open())
        self.assertEqual(left[0], left[2])
        self.taker.listening.close()
        await self.client(port, SSH)
        await self.logged(4)
        await self.turn(2)
        objects = [one for one in gc.get_objects() if isinstance(one, HandingOff | SocketPreview)]
        self.assertEqual(objects, [])

    async def test_a_hello_that_is_not_whole_in_time_is_not_handed_over(self) -> None:
        """Unless no route before refuses a name."""
        handed, size = self.taker.outcome, 40
        for refused in (CLOSE, backend_at(self.backend_port())):
            vip = route("tls sni=vip.test", refused, name="vip")
            ways = ([vip], handed), ([vip, route("any", handed)], CLOSE)
            is_restricted = refused == CLOSE
            cases = itertools.product((size, 20), ways) if is_restricted else [(size, ways[0])]
            for cut, (routes, default) in self.anew(cases):
                said = hello(name="vip.test")[:cut]
                await self.connect_read(self.mux(routes, default=default), said)
                self.time.advance(6)
                if is_restricted:
                    record = await self.assert_logged(reason="tls-failed")
                    self.assertIn("was not whole", record.facts["tls_error"])
                else:
                    given, _ = await self.taker.taken()
                    self.assertEqual(given.recv(100), said)
                    await self.assert_logged(reason="handed-over")

    async def test_server_of_another_user_gets_clients_only_if_the_rules_name_it(self) -> None:
        """In a folder that anybody may write to, anybody may listen at the path."""
        require_root()
        as_nobody(lambda: self.taker.listening.listen(8))
        handover = self.taker.outcome
        await self.connect(self.mux(default=outcome(handover)), b"\xff\xff")
        record = await self.assert_logged(reason="connect-refused")
        self.assertIn(f"its server is of user {NOBODY}", record.facts["handover_error"])
        self.taker.listening.accept()[0].close()
        port = self.mux(default=outcome(f"{handover} user=4711,{NOBODY}"))
        await self.connect(port, b"\xff\xff")
        await self.taker.taken()
        await self.assert_logged(2, reason="handed-over")
