"""Answers by gzip, and answers that their client has already, over a real socket."""

from twisted.trial.unittest import SynchronousTestCase

from tests.admin.asking import GZIP, LISTEN, AdminCase, Told, request
from txmux.admin.encoding import takes_gzip

LONG = "/api/openapi.json"


class EncodingTest(AdminCase):
    async def test_long_answers_are_sent_by_gzip_to_clients_that_take_it(self) -> None:
        await self.assert_sent_by_gzip(LONG, "/api/rules", "/metrics")

    async def of(self, path: str, *tags: str) -> Told:
        return await self.ask("GET", path, {"If-None-Match": ", ".join(tags), **GZIP})

    async def test_short_answers_and_streams_are_not_nor_is_what_a_client_has(self) -> None:
        await self.start()
        short = await self.ask("GET", "/healthz", GZIP)
        self.assertEqual((short.json, short.headers["vary"]), ({"ok": True}, "Accept-Encoding"))
        peer = await self.connect()
        peer.send(request("GET", "/api/events", GZIP))
        self.write_rules(rules=f"{LISTEN}default = close\n")
        await self.running.reload()
        await peer.has(1)
        self.assertNotIn(b"Content-Encoding", bytes(peer.received))
        self.assertNotIn(b"ETag", bytes(peer.received))
        told = await self.ask("GET", LONG, GZIP)  # head has the headers of get
        peer = await self.connect()
        peer.send(request("HEAD", LONG, GZIP))
        await peer.is_lost()
        head = bytes(peer.received)
        self.assertTrue(head.endswith(b"\r\n\r\n"))
        for name in ("Content-Encoding", "Content-Length", "ETag", "Vary"):
            self.assertIn(f"{name}: {told.headers[name.lower()]}".encode().lower(), head.lower())
        # What a client has is not sent.
        tag = (await self.get("/api/rules")).headers["etag"]
        for tags in ((tag,), ('"x"', tag), (tag.removeprefix("W/"),), ("*",)):
            told = await self.of("/api/rules", *tags)
            self.assertEqual((told.status, told.body), (304, b""), tags)
            self.assertEqual(told.headers["etag"], tag)
            self.assertEqual(told.headers["cache-control"], "no-store")
            self.assertEqual(told.headers["vary"], "Accept-Encoding")
            self.assertNotIn("content-length", told.headers)  # of what is not sent
        self.assertEqual((await self.of("/api/rules", 'W/"x"')).status, 200)
        self.write_rules(rules=f"{LISTEN}default = reset\n")
        await self.running.reload()
        told = await self.of("/api/rules", tag)
        self.assertEqual(told.status, 200)
        self.assertNotEqual(told.headers["etag"], tag)
        for told in (await self.of("/nowhere", "*"), await self.post("/api/reload")):
            self.assertNotEqual(told.status, 304)
            self.assertNotIn("etag", told.headers)


class TakesGzipTests(SynchronousTestCase):
    def test_weights_and_names(self) -> None:
        for accepted, takes in (
            ("", False), ("gzip", True), ("GZIP;Q=1.0", True), ("deflate, gzip;q=0.5", True),
            ("gzip;q=0", False), ("gzip ; q=0.000, *", False), ("*;q=0.1", True),
            ("identity, *;q=0", False), ("x-gzip", True), ("br, identity", False),
            ("gzip;q=nonsense", True), (",;,", False),
        ):  # fmt: skip
            self.assertEqual((accepted, takes_gzip(accepted)), (accepted, takes))
