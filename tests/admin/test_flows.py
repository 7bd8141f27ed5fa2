from tests.support.kit import AdminCase, Talker, turn

RULES = """[listen u]
endpoint = udp:127.0.0.1:0
[listen t]
endpoint = 127.0.0.1:0
[route names]
under = *
match = dns
backend = udp:127.0.0.1:%d
[route any]
under = *
match = payload text=x
backend = close
"""
QUERY = bytes.fromhex("000101000001000000000000 0161 07 6578616d706c65 00 0001 0001")


class FlowsTest(AdminCase):
    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.server = Talker.listening(self, answer=lambda data: data)
        await self.start(rules=RULES % self.server.port)

    async def test_listed_explained_and_ended(self) -> None:
        """Bytes are explained as a datagram and as a stream; a listener that does not accept keeps its flows."""
        client, other = Talker.listening(self), Talker.listening(self)
        for _ in range(2):
            await client.asks(QUERY, self.port)
        [row] = (await self.get("/api/connections")).json
        found = (row["datagrams_in"], row["datagrams_out"], row["bytes_in"])
        self.assertEqual(found, (2, 2, 2 * len(QUERY)))
        told = (await self.get(f"/api/connections/{row['id']}")).json["explanation"]
        shown = [(one["route"], one["says"]) for one in told["routes"]]
        self.assertEqual(shown, [("names", "match"), ("any", "not asked")])
        told = await self.post("/api/listeners/u", {"accepting": False})
        self.assertEqual(told.json["changes"], "listener u: begins no flows")
        other.say(QUERY, self.port)
        await client.asks(QUERY, self.port)
        self.assertEqual(len(self.server.heard), 3)
        await self.post("/api/listeners/u", {"accepting": True})
        await other.asks(QUERY, self.port)
        told = (await self.post("/api/explain", {"hex": QUERY.hex()})).json
        seen = [(one["datagrams"], one["listeners"][0]["listener"]) for one in told["streams"]]
        self.assertEqual(seen, [(None, "t"), ([len(QUERY)], "u")])
        first, second = (await self.get("/api/status")).json["listeners"]
        self.assertEqual(first["addresses"], [f"udp:127.0.0.1:{self.port}"])
        self.assertTrue(second["addresses"][0].startswith("127.0.0.1:"))
        await self.post(f"/api/connections/{row['id']}/close", {})
        [left] = (await self.get("/api/connections")).json
        self.assertNotEqual(left["id"], row["id"])
        while not (ends := (await self.get("/api/recent")).json):
            await turn()
        [end] = ends
        self.assertEqual((end["reason"], end["datagrams_in"]), ("killed", 3))
