"""Who is connected and who is refused, over two workers; and requests while it is decided which process serves."""

from typing import Any

from tests.admin.asking import JSON, AdminCase, Told, request
from tests.support.kit import Peer, PeerFactory, Talker, connect, listen, turn

_RULES = """[listen x]
endpoint = 127.0.0.1:0
max_connections_per_source = 2
[listen u]
endpoint = udp:127.0.0.1:0
max_flows_per_source = 1
deny = 127.0.0.5
[route ssh]
under = *
match = ssh
backend = 127.0.0.1:%d
[route names]
under = *
match = payload text=abc
backend = udp:127.0.0.1:%d
"""


def _counts(rows: dict[str, dict[str, Any]]) -> dict[str, list[int]]:
    names = ("active", "connections", "refused", "unrecognised")
    return {source: [row[name] for name in names] for source, row in rows.items()}


class ConnectedTest(AdminCase):
    async def rows(self) -> dict[str, dict[str, Any]]:
        return {row["source"]: row for row in (await self.get("/api/clients")).json}

    async def test_sources_of_tcp_and_udp_with_refusals(self) -> None:
        backend = PeerFactory()
        names = Talker.listening(self, answer=lambda data: data)
        await self.start("workers = 2", _RULES % (listen(self, backend), names.port))
        self.port, datagrams = self.ports()
        for index in range(2):
            client = await connect(self, self.port, source="127.0.0.2")
            client.send(b"SSH-2.0-a\r\n")
            await (await backend.peer(index)).has(11)
        for _ in range(3):
            await self.connect_until_lost(b"", source="127.0.0.2")
        await self.connect_until_lost(b"what is this?\r\n", source="127.0.0.3")
        await Talker.listening(self, "127.0.0.4").asks(b"abc", datagrams)
        for host in ("127.0.0.4", "127.0.0.5"):
            for _ in range(2):
                Talker.listening(self, host).say(b"abc", datagrams)
        await self.post("/api/bans", {"network": "127.0.0.6"})
        await self.connect_until_lost(b"", source="127.0.0.6")
        expected = {
            "127.0.0.2": [2, 5, 3, 0], "127.0.0.3": [0, 1, 0, 1], "127.0.0.4": [1, 3, 2, 0],
            "127.0.0.5": [0, 2, 2, 0], "127.0.0.6": [0, 1, 1, 0],
        }  # fmt: skip
        while _counts(rows := await self.rows()) != expected:  # workers close, then count
            await turn()
        self.assertEqual([*rows][:2], ["127.0.0.2", "127.0.0.4"])
        first = rows["127.0.0.2"]
        self.assertEqual((first["bytes_in"], first["bytes_out"]), (22, 0))
        self.assertGreater(first["rate"], 0)
        self.assertEqual(len((await self.get("/api/clients?limit=1")).json), 1)
        for words in ("limit=0", "limit=1001", "limit=x", "color=blue"):
            self.assertEqual((await self.get(f"/api/clients?{words}")).status, 400, words)
        # What needs attention says who is refused.
        status = (await self.get("/api/status")).json
        self.assertEqual([item["what"] for item in status["attention"]].count("limits"), 2)
        streams, flows = self.running.control.refusing((await self.running.control.ask()).gauges)
        self.assertEqual(streams.text, "listener x refuses clients at max_connections_per_source")
        self.assertRegex(streams.cause, r"^3 refused in \d+ s, 100 % from 127\.0\.0\.2$")
        self.assertRegex(flows.cause, r"^2 refused in \d+ s, 100 % from 127\.0\.0\.4$")
        self.assertEqual(flows.text, "listener u refuses clients at max_flows_per_source")

    async def held(self) -> Peer:
        await self.start()
        peer = await self.connect()
        endpoints = self.endpoints
        (clients,) = endpoints.clients.values()
        await self.until(lambda: clients.channels)
        endpoints.hold_requests()
        peer.send(_BAN)
        await self.until(lambda: clients.held)
        self.assertEqual(len(self.running.control.bans), 0)
        return peer

    async def test_this_process_goes_on(self) -> None:
        peer = await self.held()
        self.endpoints.accept()
        await peer.is_lost()
        self.assertEqual(Told.of(bytes(peer.received)).status, 200)
        self.assertEqual(len(self.running.control.bans), 1)

    async def test_another_process_serves(self) -> None:
        peer = await self.held()
        endpoints = self.endpoints
        endpoints.be_replaced()
        await peer.is_lost()
        told = Told.of(bytes(peer.received))
        self.assertEqual((told.status, told.headers["connection"]), (503, "close"))
        self.assertEqual(len(self.running.control.bans), 0)
        endpoints.accept()  # that one has ended
        self.assertEqual((await self.send(_BAN)).status, 200)


_BAN = request("POST", "/api/bans", JSON, b'{"network": "192.0.2.1"}')
