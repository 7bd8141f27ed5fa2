"""What a running service answers, over its own socket."""

import hashlib
import os
import time

from twisted.internet.task import deferLater
from twisted.logger import capturedLogs

from tests.admin.asking import JSON, LISTEN, AdminCase
from tests.support.kit import free_port, reactor
from txmux.processes.worker import landlock
from txmux.version import __version__

LED = f"{LISTEN}[route all]\nmatch = any\nbackend = b\n[backend b]\nserver = 127.0.0.1:PORT\n"


class AnswersTest(AdminCase):
    async def test_ready_with_listeners_that_accept_and_servers(self) -> None:
        await self.start(rules=LED.replace("PORT", "1"))
        up, ready = await self.get("/healthz"), await self.get("/readyz")
        self.assertEqual((up.status, up.json), (200, {"ok": True}))
        well = {"ready": True, "missing": [], "stale": []}
        self.assertEqual((ready.status, ready.json), (200, well))
        peer = await self.connect()
        peer.send(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await peer.is_lost()
        self.assertTrue(peer.received.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(peer.received.endswith(b"Content-Length: 13\r\n\r\n"))
        # A backend without a server is named if it is used, unless its clients wait until one wakes it.
        asleep = "1 down\nwake = http POST http://127.0.0.1:1/\n"
        unused = "1 down\n[backend unused]\nserver = 127.0.0.1:2 down\n"
        for server, is_missing in ((unused, True), (f"{asleep}hold = 9s", False), (asleep, True)):
            self.write_rules(rules=LED.replace("PORT", server))
            await self.post("/api/reload")
            told = await self.get("/readyz")
            missing = ["[backend b]: no server is up"] * is_missing
            self.assertEqual(told.json, {"ready": not missing, "missing": missing, "stale": []})
            self.assertEqual(told.status, 503 if is_missing else 200)
            self.assertEqual(bool((await self.get("/api/status")).json["attention"]), is_missing)

    async def test_end_of_an_ejection_needs_no_client(self) -> None:
        """A balancer that goes by this sends none, so without one all servers would stay ejected."""
        servers = f"{free_port()}\n    127.0.0.1:{free_port()}\neject = failures=1 for=2s\n"
        await self.start(rules=LED.replace("PORT", servers))
        await self.connect_until_lost(b"x")
        self.assertEqual((await self.get("/readyz")).status, 503)
        (item,) = (await self.get("/api/status")).json["attention"]
        self.assertEqual(item["cause"], "1 connection failed within 10 s")
        while (await self.get("/readyz")).status != 200:
            await deferLater(reactor, 0.05)
        while (await self.get("/api/status")).json["attention"]:
            await deferLater(reactor, 0.05)  # the second one was ejected later
        states = [one["state"] for one in (await self.get("/api/backends")).json[0]["servers"]]
        self.assertEqual(states, ["up", "up"])

    async def names(self, path: str) -> list[list[str]]:
        parts = []
        while path:
            told = await self.get(path)
            parts.append([row["name"] for row in told.json])
            path = told.headers.get("link", "").removeprefix("<").removesuffix('>; rel="next"')
        return parts

    async def test_parts(self) -> None:
        routes = "".join(
            f"[route r{number}]\nmatch = any\nfrom = 192.0.2.{number}\nbackend = b{number}\n"
            f"[backend b{number}]\nserver = 127.0.0.1:1\n"
            for number in range(5)
        )
        await self.start(rules=f"{LISTEN}{routes}")
        for path, letter in (("/api/routes", "r"), ("/api/backends", "b")):
            names = [f"{letter}{number}" for number in range(5)]
            self.assertEqual(await self.names(path), [names])
            parts = await self.names(f"{path}?limit=2")
            self.assertEqual(parts, [names[:2], names[2:4], names[4:]])
            self.assertEqual(await self.names(f"{path}?after={letter}3"), [names[4:]])
            for wrong in ("limit=0", "limit=10001", "after=gone", "size=2"):
                refused = await self.get(f"{path}?{wrong}")
                self.assertEqual(refused.status, 400)
                self.assertIn(wrong.partition("=")[0], refused.json["error"])
        self.assertEqual(await self.names("/api/backends?backend=b3"), [["b3"]])
        [told] = (await self.get("/api/backends?backend=b3")).json
        self.assertEqual(told, (await self.get("/api/backends")).json[3])
        for wrong, status in (("backend=b5", 404), ("backend=b3&limit=1", 400)):
            refused = await self.get(f"/api/backends?{wrong}")
            self.assertEqual((refused.status, "b5" in refused.error), (status, status == 404))

    async def test_fields(self) -> None:
        await self.start("max_connections = 7")
        status = (await self.get("/api/status")).json
        self.assertLess(abs(time.time() - status.pop("started")), 60)
        connections = status.pop("connections")
        self.assertEqual(connections["limit"], 7)
        self.assertEqual(connections["unrouted"], {"ended": 0, "bytes_in": 0, "bytes_out": 0})
        wanted = {
            "version": __version__, "pid": os.getpid(), "generation": 1,
            "workers": [
                {
                    "worker": 1, "number": 1, "pid": self.supervisor.pool.workers[0].pid,
                    "ready": True, "retiring": False, "sandbox": bool(landlock.abi()),
                    "connections": 0, "generation": 1, "active": 0, "undecided": 0, "older": 0,
                }
            ],
            "listeners": [
                {
                    "name": "x", "endpoints": ["127.0.0.1:0"],
                    "addresses": [f"127.0.0.1:{self.port}"], "starttls": None, "accepting": True,
                    "why": "",
                }
            ],
            "last_reload": None,
            "bans": {"active": 0, "shared": None},
            "draining": False,
            "rules_path": str(self.file),
            "rules_sha256": hashlib.sha256(self.file.read_bytes()).hexdigest(),
        }  # fmt: skip
        self.assertEqual({name: status[name] for name in wanted}, wanted)

    async def test_rates_since_the_oldest_sample(self) -> None:
        clock = self.virtual()
        await self.start(use=clock)
        for _ in range(3):
            await self.connect_until_lost(b"hello")
        clock.advance(2)
        rates = (await self.get("/api/status")).json["rates"]
        self.assertEqual(rates, {"connections": 1.5, "bytes_in": 7.5, "bytes_out": 0.0})

    async def test_reload_is_answered_logged_and_in_the_status(self) -> None:
        await self.start()
        self.write_rules(rules=f"{LISTEN}[route a]\nmatch = ssh\nbackend = 127.0.0.1:1\n")
        with capturedLogs() as events:  # refused reload reports all errors
            told = await self.post("/api/reload")
        done = {"ok": True, "changes": "1 route new (a)"}
        self.assertEqual((told.status, told.json), (200, done))
        last = (await self.get("/api/status")).json["last_reload"]
        self.assertLess(abs(time.time() - last.pop("time")), 60)
        self.assertEqual(last, {**done, "errors": []})
        (line,) = [event for event in events if event["log_namespace"] == "txmux.admin.site"]
        self.assertIn(f"UID {os.getuid()}", line["caller"])
        self.assertIn(f"PID {os.getpid()}", line["caller"])
        self.assertEqual((line["what"], line["result"]), ("POST /api/reload", "1 route new (a)"))
        self.write_rules("worker = 1\nuser = nobody")
        with capturedLogs() as events:
            told = await self.post("/api/reload", {})
        self.assertEqual(told.status, 422)
        (error,) = told.json["errors"]
        self.assertIn("did you mean 'workers'?", error)
        self.assertIn(error, told.error)
        last = (await self.get("/api/status")).json["last_reload"]
        self.assertEqual((last["ok"], last["errors"]), (False, [error]))
        (line,) = [event for event in events if event["log_namespace"] == "txmux.admin.site"]
        # The service's own line has the errors.
        self.assertEqual(line["result"], "refused: the rules are not reloaded")
        self.assertEqual(line["log_level"].name, "warn")
        for body in ("[]", "1", '{"a"', b"\xff", "[" * 20000):  # body is a json object or nothing
            told = await self.ask("POST", "/api/reload", JSON, body)
            self.assertEqual(told.status, 400, body)
            self.assertIn("the body is not", told.error)

    async def test_refused_upgrade_has_the_reason(self) -> None:
        await self.start(rules="[listen x]\nendpoint = haproxy:tcp:0:interface=127.0.0.1\n")
        told = await self.post("/api/upgrade")
        self.assertEqual(told.status, 409)
        self.assertIn("cannot be handed to another process", told.error)
