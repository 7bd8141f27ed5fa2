import socket

from twisted.internet.protocol import Factory, Protocol

from tests.support.datagrams import Talker, turn
from tests.support.kit import free_port, reactor
from tests.udp.flow_case import FlowCase
from txmux.wire.proxyprotocol.decode import decode_datagram


class CheckTests(FlowCase):
    async def until_state(self, state: str) -> None:
        pool = next(
            one.pool for one in self.running.listeners[0].upstreams.all() if one.backend.name == "b"
        )
        while pool.members[0].state.value != state:
            await turn()

    async def test_server_without_the_right_answer_is_down(self) -> None:
        says = [b"PONG"]

        def answer(data: bytes) -> bytes:
            found = decode_datagram(data)
            assert found is not None
            assert data[found.length :] == b"PING"
            return says[0]

        server = Talker.listening(self, answer=answer)
        check = "check = send=PING expect=PONG interval=100ms timeout=100ms rise=1 fall=1"
        self.begin(server.port, backend=f"proxy_protocol = v2\n{check}")
        await server.hears(2)
        await self.until_state("up")
        says[0] = b"?"
        await self.until_state("down")
        says[0] = b"PONG!"
        await self.until_state("up")

    async def test_dns_server_that_answers_is_up_also_without_such_a_name(self) -> None:
        codes = [0]
        server = Talker.listening(
            self, answer=lambda data: data[:2] + bytes([0x81, 0x80 | codes[0]]) + data[4:]
        )
        check = "check = dns name=www.example.com interval=100ms rise=1 fall=1"
        self.begin(server.port, backend=check)
        self.assertIn(b"\3www\7example\3com\0\0\1\0\1", (await server.hears(1))[0])
        codes[0] = 2
        await self.until_state("down")
        codes[0] = 3
        await self.until_state("up")

    async def test_closed_port_is_down(self) -> None:
        check = "check = send=PING expect=PONG interval=100ms rise=1 fall=1"
        self.begin(free_port(kind=socket.SOCK_DGRAM), backend=check)
        await self.until_state("down")

    async def test_port_checks_a_tcp_service_beside_it(self) -> None:
        beside = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(beside.stopListening)
        check = f"check = tcp port={beside.getHost().port} interval=100ms rise=1 fall=1"
        self.begin(free_port(kind=socket.SOCK_DGRAM), backend=check)
        await self.until_state("up")
        runtime = self.running.listeners[0].runtime
        stopped = beside.stopListening()
        if stopped is not None:
            await stopped
        await self.until_state("down")
        await self._stop()
        runtime.clock.drop_idle()
