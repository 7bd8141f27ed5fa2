import json
import re

from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.admin.asking import AdminCase, request
from tests.support.kit import Peer, reactor, turn
from tests.support.supervised import note_questions
from txmux.net.channel import messages


class LiveTest(AdminCase):
    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        await self.route_ssh()

    async def test_list_filters_and_next_page(self) -> None:
        await self.clients(3)
        told = await self.get("/api/connections?state=relaying&limit=2")
        first = told.json
        self.assertEqual([row["bytes_in"] for row in first], [11, 11])
        link = told.headers["link"]
        self.assertTrue(link.endswith('>; rel="next"'), link)
        rest = await self.get(link[1:].partition(">")[0])
        self.assertNotIn("link", rest.headers)
        whole = (await self.get("/api/connections")).json
        self.assertEqual([row["id"] for row in first + rest.json], [row["id"] for row in whole])
        self.assertEqual((await self.get("/api/connections?route=http")).json, [])
        one = (await self.get(f"/api/connections/{whole[0]['id']}")).json
        self.assertEqual((one["id"], one["route"]), (whole[0]["id"], "ssh"))

    async def test_invalid_requests_are_refused_by_name(self) -> None:
        for query, name in (
            ("state=x", "state"), ("older=5", "older"), ("client=x", "client"),
            ("limit=0", "limit"), ("after=x", "after"), ("rout=x", "rout"),
            ("route=a&route=b", "route"),
        ):  # fmt: skip
            told = await self.get(f"/api/connections?{query}")
            self.assertEqual((query, told.status), (query, 400))
            self.assertTrue(told.error.startswith(f"{name}: "), told.error)
        self.assertEqual((await self.get("/api/connections/5a9d7143-3")).status, 404)
        self.assertEqual((await self.get("/api/connections/x")).status, 404)
        self.assertEqual((await self.get("/api/connections/close")).status, 405)
        path = f"/api/backends/b/servers/{self.server}"  # unknown names and invalid fields
        explain = "/api/explain"
        for where, body, status, message in (
            (path, {}, 400, "nothing to change"),
            (path, {"state": "up"}, 400, "state: must be 'ready', 'drain' or 'maintenance'"),
            (path, {"weight": 0}, 400, "weight: "),
            (path, {"close_connections": "no"}, 400, "close_connections: "),
            (f"{path}0", {"state": "drain"}, 404, "backend b has no server"),
            ("/api/backends/c/servers/x", {"state": "drain"}, 404, "there is no backend 'c'"),
            ("/api/listeners/x", {}, 400, "accepting: "),
            ("/api/listeners/y", {"accepting": False}, 404, "there is no [listen y]"),
            (explain, {}, 400, "give the bytes"),
            (explain, {"hex": "00", "text": "x"}, 400, "give the bytes"),
            (explain, {"hex": "0"}, 400, "hex: "),
            (explain, {"text": "\\xq"}, 400, "text: "),
            (explain, {"text": "\ud800"}, 400, "text: "),
            (explain, {"text": "x", "from": "x"}, 400, "from: "),
            (explain, {"text": "x", "listener": "y"}, 404, "there is no [listen y]"),
        ):
            told = await self.post(where, body)
            self.assertEqual((body, told.status), (body, status))
            self.assertTrue(told.error.startswith(message), told.error)
        self.assertEqual((await self.get(path)).status, 405)
        # The process that answers does not parse what clients sent.
        self.patch(self.running.control, "workers", list)
        told = await self.post("/api/explain", {"text": "x"})
        self.assertEqual((told.status, told.error), (503, "no worker serves that could tell"))

    async def test_closed_by_id_or_filters_and_logged(self) -> None:
        clients = await self.clients(3)
        rows = (await self.get("/api/connections")).json
        with capturedLogs() as logs:
            told = await self.post(f"/api/connections/{rows[0]['id']}/close")
            self.assertEqual((told.status, told.json["closed"]), (200, 1))
            filters = {"backend": "b", "client": "127.0.0.1"}
            told = await self.post("/api/connections/close", filters)
            self.assertEqual(told.json, {"ok": True, "closed": 2, "changes": "2 connections ended"})
        for client in clients:
            await client.is_lost()
        self.assertTrue(any("2 connections ended" in str(event) for event in logs))
        for body, name in (
            ({}, "give at least one"), ({"backend": 1}, "backend: "), ({"x": "y"}, "x: "),
        ):  # fmt: skip
            told = await self.post("/api/connections/close", body)
            self.assertEqual((body, told.status), (body, 400))
            self.assertTrue(told.error.startswith(name), told.error)
        self.assertEqual((await self.post(f"/api/connections/{rows[0]['id']}/close")).status, 404)

    async def test_drain_with_the_end_of_connections(self) -> None:
        """Workers are asked about its backend, and not about thousands of others."""
        (client,) = await self.clients(1)
        asked, path = note_questions(self), f"/api/backends/b/servers/{self.server}"
        with capturedLogs():
            told = await self.post(path, {"state": "drain", "close_connections": True})
        self.assertEqual(told.status, 200)
        ended = " is drained, 1 connection ended; no server of b gets new clients now"
        self.assertTrue(told.json["changes"].endswith(ended))
        about = [values["backends"] for message, values in asked if message is messages.ADDRESSES]
        self.assertEqual(about, [["b"]])
        await client.is_lost()
        ready = await self.get("/readyz")
        missing = ["[backend b]: no server is up"]
        self.assertEqual((ready.status, ready.json["missing"]), (503, missing))
        with capturedLogs():
            await self.post(path, {"state": "ready", "weight": 3})
            await self.post(path, {"weight": None})
        self.assertEqual((await self.get("/readyz")).status, 200)

    async def test_unrecognised_client_can_be_explained(self) -> None:
        await self.connect_until_lost(b"HELLO?")
        while not (ends := (await self.get("/api/recent")).json):
            await turn()
        (row,) = ends
        self.assertEqual((row["reason"], row["first"]), ("no-route", b"HELLO?".hex()))
        body = {"listener": "x", "from": "192.0.2.1", "hex": row["first"]}
        (listener,) = (await self.post("/api/explain", body)).json["streams"][0]["listeners"]
        self.assertEqual((listener["routes"][0]["says"], listener["from"]), ("no", "192.0.2.1"))
        peer = await self.connect()  # head has the headers and subscribes nobody
        peer.send(b"HEAD /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await peer.is_lost()
        head, _, after = bytes(peer.received).partition(b"\r\n\r\n")
        self.assertIn(b"Content-Type: text/event-stream", head)
        self.assertEqual(after, b"")
        self.assertFalse(self.is_told)

    async def follow(self) -> Peer:
        peer = await self.connect()
        peer.send(request("GET", "/api/events"))
        await self.until(lambda: b": still here" in peer.received)
        return peer

    @property
    def is_told(self) -> bool:
        (worker,) = self.supervisor.pool.workers
        return worker.sink is not None

    async def test_server_sent_events_until_the_client_leaves(self) -> None:
        peer = await self.follow()
        self.assertIn(b"Content-Type: text/event-stream\r\n", peer.received)
        await self.clients(1)
        while (told := re.search(rb"event: decide\n.*\n\n", peer.received, re.DOTALL)) is None:
            await deferLater(reactor, 0)
        (line,) = [one for one in told[0].split(b"\n") if b'"event": "decide"' in one]
        self.assertEqual(json.loads(line.partition(b"data: ")[2])["route"], "ssh")
        self.assertTrue(self.is_told)
        peer.reset()
        await self.until(lambda: not self.is_told)
        peer = await self.follow()  # stop with a follower
        await self.running.stopService()
        await peer.is_lost()
        self.assertIn(b"event: stop\n", peer.received)

    async def test_slow_reader_is_cut_off(self) -> None:
        peer = await self.follow()
        peer.transport.pauseProducing()
        with capturedLogs():
            for number in range(20_000):
                event = {"event": "server", "number": number, "why": "x" * 100}
                self.running.control.events.publish(event)
                if not number % 100:
                    await deferLater(reactor, 0)
                if not self.is_told:
                    break
        self.assertLess(number, 19_999)
        peer.transport.resumeProducing()
        await peer.is_lost()
