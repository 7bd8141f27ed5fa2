import math
import socket
from typing import Any

from tests.support.datagrams import Talker, turn
from tests.support.ports import free_port
from tests.udp.flow_case import LISTEN, FlowCase


class HoldTests(FlowCase):
    def hold(self, lines: str = "hold = 60s") -> tuple[Talker, int, int]:
        place = free_port(kind=socket.SOCK_DGRAM)
        port = self.begin(place, backend=lines)
        return Talker.listening(self), place, port

    @property
    def flow(self) -> Any:
        [listener] = self.running.listeners
        [flow] = listener.connections
        return flow

    async def waits(self) -> None:
        while not ([*self.running.listeners[0].connections] and self.flow.state == "connecting"):
            await turn()

    async def test_datagrams_are_kept_for_the_server(self) -> None:
        """Sixteen, and no more than the peek limit, which has room for a QUIC client's first window: 14,720 bytes (RFC 9002, 7.2)."""
        for size, kept in ((4, 16), (1472, 11)):
            client, place, port = self.hold()
            sent = [b"%d".ljust(size) % number for number in range(10, 30)]
            client.say(sent[0], port)
            await self.waits()
            for datagram in sent[1:]:
                client.say(datagram, port)
            while self.flow.datagrams_in < 20:
                await turn()
            server = Talker.listening(self, port=place, answer=lambda data: b"<" + data)
            await client.hears(kept)
            self.assertEqual(server.heard, sent[:kept])
            self.assertEqual(self.datagrams("lost"), 20 - kept)
            self.assertEqual(await client.asks(b"later", port), b"<later")
            line = await self.assert_stopped(server=f"udp:127.0.0.1:{place}", reason="killed")
            self.assertIn("held", line["facts"])
            self.log.unlink()

    async def test_limit_makes_room_for_a_source_that_has_less(self) -> None:
        client, _, port = self.hold("hold = 60s\nhold_limit = 2")
        [listener] = self.running.listeners
        for count, talker in enumerate((client, Talker.listening(self)), start=1):
            talker.say(b"x", port)
            while [one.state for one in listener.connections] != ["connecting"] * count:
                await turn()
        Talker.listening(self, "127.0.0.2").say(b"x", port)
        line = await self.assert_ended(reason="limit")
        self.assertEqual(str(line["client"])[:9], "127.0.0.1")
        self.assertIn("held", line["facts"])

    async def test_end_of_the_wait(self) -> None:
        # Longer than several tries take, each of which the server refuses.
        place = free_port(kind=socket.SOCK_DGRAM)
        other = f"[backend other]\nserver = udp:127.0.0.1:{place}\nhold = 1s"
        client, _, port = self.hold(f"hold = 1s\nfallback = other\n{other}")
        client.say(b"x", port)
        await self.waits()
        line = await self.assert_ended(reason="connect-refused")
        self.assertRegex(line["facts"]["held"], r"[2-9]\.[0-9]s")  # type: ignore[index]

    async def test_server_that_was_moved_meanwhile(self) -> None:
        client, _, port = self.hold()
        client.say(b"0", port)
        await self.waits()
        server = Talker.listening(self, answer=lambda data: b"<" + data)
        self.reload(LISTEN + f"default = b\n[backend b]\nserver = udp:127.0.0.1:{server.port}\n")
        await client.hears(1)
        self.assertEqual(server.heard, [b"0"])
        await self.assert_stopped(server=f"udp:127.0.0.1:{server.port}", reason="killed")

    async def test_operator_lets_flows_wait(self) -> None:
        server, client, port = self.served()
        upstreams = self.running.listeners[0].upstreams
        upstreams.apply_overrides({}, {"b": math.inf})
        client.say(b"ab", port)
        await self.waits()
        self.assertEqual(server.heard, [])
        upstreams.apply_overrides({}, {})
        await client.hears(1)
        self.assertEqual(client.heard, [b"ba"])
