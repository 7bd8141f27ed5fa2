import socket
from typing import Any

from tests.support.datagrams import Talker, turn
from tests.support.ports import free_port
from tests.support.servers import counted, waited
from tests.udp.flow_case import FlowCase
from txmux.telemetry.counting.counter_groups import SERVER


class ServerCountsTests(FlowCase):
    listener: Any

    def begin(self, *servers: int, **rules: str) -> int:
        port = super().begin(*servers, **rules)
        (self.listener,) = self.running.listeners
        return port

    async def test_first_answer_at_once_and_bytes_of_live_flows(self) -> None:
        server, client, port = self.served(lambda _: b"")
        client.say(b"ab", port)
        client.say(b"abc", port)
        await server.hears(2)
        self.assertEqual(counted(self.listener), {"asked": 1})
        for _ in range(2):
            server.say(b"answer", server.senders[0][1])
        await client.hears(2)
        self.assertEqual(counted(self.listener), {"asked": 1, "answered": 1})
        seconds, number = waited(self.listener)
        self.assertEqual((0 < seconds < 60, number), (True, 1))
        (flow,) = self.listener.connections
        flow.count_bytes()
        ((member,),) = (upstream.pool.members for upstream in self.listener.upstreams.all())
        found = [
            member.counts.cells[SERVER.names.index(name)] for name in ("bytes in", "bytes out")
        ]
        self.assertEqual(found, [5, 12])
        await self.assert_stopped(bytes_in=5)
        found = [
            member.counts.cells[SERVER.names.index(name)] for name in ("bytes in", "bytes out")
        ]
        self.assertEqual(found, [5, 12])

    async def test_flow_without_an_answer(self) -> None:
        _, client, port = self.served(lambda _: b"", backend="unanswered_timeout = 50ms")
        client.say(b"ab", port)
        await self.assert_ended(reason="unanswered")
        self.assertEqual(counted(self.listener), {"asked": 1, "unanswered": 1})

    async def test_refusal_is_no_missing_answer(self) -> None:
        Talker.listening(self).say(b"ab", self.begin(free_port(kind=socket.SOCK_DGRAM)))
        while "failed connect-refused" not in counted(self.listener):
            await turn()
        await self._stop()
        self.assertEqual(counted(self.listener), {"asked": 1, "failed connect-refused": 1})
