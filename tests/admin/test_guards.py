"""Who may ask for what: each guard, over real sockets."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.asking import JSON, AdminCase, request
from txmux.admin.guard import AdminGuard, Caller, RefusedError
from txmux.rules.lint.warnings import lint

TOKEN = "the-secret-of-this-test"


class AnybodyCase(AdminCase):
    """What holds for everybody, by the UNIX socket."""

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        await self.start()

    async def assert_refused(self, status: int, sent: bytes, *words: str) -> None:
        """See that a request is refused, and that the rules were not asked to be read again by it."""
        told = await self.send(sent)
        self.assertEqual(told.status, status, (sent[:200], told.body))
        for word in words:
            self.assertIn(word, told.error)
        self.assertIsNone(self.running.control.last_reload)


class MethodsTest(AnybodyCase):
    """Methods and paths."""

    async def test_get_of_a_change(self) -> None:
        """A GET changes nothing, and is told what does."""
        for path in ("/api/reload", "/api/upgrade", "/api/stop"):
            told = await self.get(path)
            self.assertEqual((told.status, told.headers["allow"]), (405, "POST"))
        self.assertIsNone(self.running.control.last_reload)

    async def test_other_methods(self) -> None:
        """Methods that there are for nothing are refused, and so are those that nobody knows."""
        for method, status in (("PUT", 405), ("DELETE", 405), ("OPTIONS", 405), ("BREW", 501)):
            await self.assert_refused(status, request(method, "/api/reload", JSON))
        told = await self.ask("POST", "/api/status", JSON)
        self.assertEqual((told.status, told.headers["allow"]), (405, "GET, HEAD"))

    async def test_paths(self) -> None:
        """A path leads somewhere only as it is written in the reference."""
        for path in (
            "/api",
            "/api/",
            "/api/reload/",
            "//api/reload",
            "/api//reload",
            "/api/./reload",
            "/x/../api/reload",
            "/api/%72eload",
            "/api%2freload",
            "/API/reload",
            "/api/reload%00",
            "api/reload",
            "*",
            "http://localhost/api/reload",
            "/api/reload;x",
            "/etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
        ):
            await self.assert_refused(404, request("POST", path, JSON), "nothing at this path")

    async def test_query(self) -> None:
        """What follows the path is not a part of it."""
        self.assertEqual((await self.get("/healthz?x=/../y")).status, 200)

    async def test_not_installed(self) -> None:
        """What needs the extra says so, where it is not there."""
        for path in ("/", "/metrics"):
            told = await self.get(path)
            if told.status != 200:
                self.assertEqual(told.status, 501)
                self.assertIn("pip install 'txmux[admin]'", told.error)


class OriginTest(AnybodyCase):
    """Pages of others in a browser."""

    async def test_content_type(self) -> None:
        """A form of another page cannot send JSON, so whatever is not JSON is refused."""
        for given in (
            None,
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/plain",
            "application/jsonx",
        ):
            headers: dict[str, str] = {} if given is None else {"Content-Type": given}
            await self.assert_refused(415, request("POST", "/api/reload", headers, "{}"))
        told = await self.ask(
            "POST", "/api/reload", {"Content-Type": "Application/JSON; charset=utf-8"}, "{}"
        )
        self.assertEqual(told.status, 200)

    async def test_origin(self) -> None:
        """The origin, if there is one, has to be this endpoint itself."""
        for origin in ("http://evil.example", "null", "http://localhost:1", "", "localhost"):
            sent = request("POST", "/api/reload", {**JSON, "Origin": origin})
            await self.assert_refused(403, sent, "cross-origin")
        sent = request("POST", "/api/reload", {**JSON, "Sec-Fetch-Site": "cross-site"})
        await self.assert_refused(403, sent, "cross-origin")
        told = await self.ask("POST", "/api/reload", {**JSON, "Origin": "http://LOCALHOST"})
        self.assertEqual(told.status, 200)

    async def test_host(self) -> None:
        """A name that was rebound to this endpoint is refused, whatever is asked for."""
        for host in ("evil.example", "evil.example:80", "localhost.evil.example", "192.0.2.1", ""):
            for method, path in (("POST", "/api/reload"), ("GET", "/api/status")):
                sent = request(method, path, {**JSON, "Host": host})
                await self.assert_refused(403, sent, "not a name of this endpoint")
        for host in ("localhost", "localhost:80", "txmux", "127.0.0.1", "[::1]:9", "LocalHost."):
            told = await self.ask("GET", "/healthz", {"Host": host})
            self.assertEqual(told.status, 200, host)

    async def test_headers(self) -> None:
        """No answer may be kept, shown in a frame, taken for another type, or load anything."""
        for told in (await self.get("/api/status"), await self.get("/nowhere")):
            self.assertEqual(told.headers["cache-control"], "no-store")
            self.assertEqual(told.headers["x-content-type-options"], "nosniff")
            self.assertIn("default-src 'none'", told.headers["content-security-policy"])
            self.assertIn("frame-ancestors 'none'", told.headers["content-security-policy"])
            self.assertNotIn("access-control-allow-origin", told.headers)
            self.assertNotIn("server", told.headers)

    async def test_nothing_reflected(self) -> None:
        """What a client sends stands neither in headers nor raw in the log."""
        with capturedLogs() as events:
            told = await self.get("/x%0d%0aX-Evil:%201", Cookie="a=\x1b[31m")
            refused = await self.ask("POST", "/api/reload", {**JSON, "Host": "a\x1b[31m.b"})
        self.assertEqual((told.status, refused.status), (404, 403))
        self.assertNotIn("x-evil", told.headers)
        self.assertNotIn(b"\x1b", refused.body)
        self.assertNotIn("\x1b", repr(events).replace("\\x1b", ""))


class TokenTest(AdminCase):
    """By TCP."""

    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.token = self.folder / "token"
        self.token.write_text(f"{TOKEN}\n")
        await self.start(f"admin = 127.0.0.1:0\nadmin_token = {self.token}")
        self.port = self.port_of("admin")

    async def asked(self, path: str, headers: dict[str, str]) -> Any:
        """Ask by TCP, and give what the body says."""
        return json.loads((await self.ask("GET", path, headers, to=self.port)).body)

    async def status_of(self, path: str = "/api/status", **headers: str) -> int:
        """Ask by TCP, and give the status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return (await self.ask("GET", path, named, to=self.port)).status

    async def test_token(self) -> None:
        """Without the token nothing can be had, not even what there is."""
        for path in ("/api/status", "/healthz", "/readyz", "/metrics", "/", "/nowhere"):
            self.assertEqual(await self.status_of(path), 401, path)
        told = await self.ask("GET", "/healthz", to=self.port)
        self.assertEqual(told.headers["www-authenticate"], 'Bearer realm="txmux"')
        self.assertEqual(await self.status_of(Authorization=f"Bearer {TOKEN}"), 200)
        self.assertEqual(await self.status_of(Authorization=f"bearer  {TOKEN}"), 200)

    async def test_wrong_token(self) -> None:
        """Another token is refused, also one in the address; none is logged."""
        with capturedLogs() as events:
            for given in ("x", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "é"):
                self.assertEqual(await self.status_of(Authorization=f"Bearer {given}"), 401)
            self.assertEqual(await self.status_of(Authorization=f"Basic {TOKEN}"), 401)
            for path in (f"/api/status?token={TOKEN}", f"/api/status?access_token={TOKEN}"):
                self.assertEqual(await self.status_of(path), 401)
            change = await self.ask("POST", "/api/reload", JSON, to=self.port)
            self.assertEqual(change.status, 401)
        self.assertNotIn(TOKEN, repr(events))
        self.assertIsNone(self.running.control.last_reload)

    async def test_host(self) -> None:
        """By TCP the host has to be the address or a name of this endpoint, with its port if one is named."""
        for host in ("evil.example", "txmux", f"evil.example:{self.port}", "localhost:1", ""):
            self.assertEqual(
                await self.status_of(Host=host, Authorization=f"Bearer {TOKEN}"), 403, host
            )
        for host in ("localhost", f"localhost:{self.port}", f"127.0.0.1:{self.port}"):
            self.assertEqual(
                await self.status_of(Host=host, Authorization=f"Bearer {TOKEN}"), 200, host
            )

    async def test_login(self) -> None:
        """A browser gets a cookie for the token, which scripts cannot read and other sites cannot send."""
        page = await self.ask("GET", "/", {"Accept": "text/html"}, to=self.port)
        self.assertEqual(page.status, 401)
        self.assertIn(b'<form method="post" action="/login">', page.body)
        # With 'no-referrer', browsers send the form with 'Origin: null'.
        self.assertEqual(page.headers["referrer-policy"], "same-origin")
        form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://localhost"}
        told = await self.ask("POST", "/login", form, f"token={TOKEN}", to=self.port)
        self.assertEqual((told.status, told.headers["location"]), (303, "/"))
        cookie, *attributes = told.headers["set-cookie"].split("; ")
        self.assertEqual(set(attributes), {"Path=/", "HttpOnly", "SameSite=Strict"})
        self.assertNotIn(TOKEN, cookie)
        self.assertEqual(await self.status_of(Cookie=cookie), 200)
        self.assertEqual(await self.status_of(Cookie=f"other=1; {cookie}"), 200)
        self.assertEqual(await self.status_of(Cookie=f"{cookie}0"), 401)
        change = await self.ask("POST", "/api/reload", {**JSON, "Cookie": cookie}, to=self.port)
        self.assertEqual(change.status, 200)

    async def test_wrong_login(self) -> None:
        """Another token gets none; nor does a form of another page."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        for body, headers in (
            ("token=x", {}),
            ("", {}),
            (f"token={TOKEN}", {"Origin": "http://evil.example"}),
        ):
            told = await self.ask("POST", "/login", {**form, **headers}, body, to=self.port)
            self.assertEqual(told.status, 403)
            self.assertNotIn("set-cookie", told.headers)
        html = {**form, "Accept": "text/html"}
        told = await self.ask("POST", "/login", html, "token=x", to=self.port)
        self.assertIn(b'<p role="alert">that is not the token', told.body)
        told = await self.ask("POST", "/login", JSON, "{}", to=self.port)
        self.assertEqual(told.status, 415)

    async def test_readable_token(self) -> None:
        """A token that everybody can read needs a person, until it is nobody else's; the log and ``check`` warn of it, too."""
        authorization = {"Authorization": f"Bearer {TOKEN}"}
        for mode, count in ((0o640, 0), (0o644, 1), (0o600, 0)):
            self.token.chmod(mode)
            status = await self.asked("/api/status", authorization)
            found = [one for one in status["attention"] if "every user of this machine" in one]
            self.assertEqual(len(found), count)
            warned = [one for one in lint(self.running.control.rules) if one.key == "admin_token"]
            self.assertEqual([one.message for one in warned], found)
            page = await self.ask("GET", "/", authorization, to=self.port)
            self.assertEqual(b"Every user of this machine" in page.body, bool(count))

    async def test_tries(self) -> None:
        """After ten wrong tokens others are answered late; the right one is let in at once, however many of them wait."""
        for _ in range(3):
            self.assertEqual(await self.status_of(), 401)
        wrong = {"Authorization": "Bearer x"}
        for _ in range(10):
            self.assertEqual(await self.status_of(**wrong), 401)
        waiting = [
            Deferred.fromCoroutine(self.ask("GET", "/api/status", wrong, to=self.port))
            for _ in range(64)
        ]
        self.assertEqual(await self.status_of(Authorization=f"Bearer {TOKEN}"), 200)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        told = await self.ask("POST", "/login", form, f"token={TOKEN}", to=self.port)
        self.assertEqual(told.status, 303)
        self.assertLess(sum(one.called for one in waiting), 32)
        answers = await DeferredList(waiting, consumeErrors=True)
        told = next(answer for is_there, answer in answers if is_there)
        self.assertEqual(told.status, 429)
        self.assertLessEqual(int(told.headers["retry-after"]), 61)

    async def test_other_token(self) -> None:
        """A reload reads the token again; cookies for the old one are worth nothing then."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        told = await self.ask("POST", "/login", form, f"token={TOKEN}", to=self.port)
        cookie = told.headers["set-cookie"].partition(";")[0]
        self.token.write_text("another-secret-of-this-test")
        report = await self.running.reload()
        self.assertTrue(report.ok)
        self.assertEqual(self.port_of("admin"), self.port)
        self.assertEqual(await self.status_of(Cookie=cookie), 401)
        self.assertEqual(await self.status_of(Authorization=f"Bearer {TOKEN}"), 401)
        authorization = "Bearer another-secret-of-this-test"
        self.assertEqual(await self.status_of(Authorization=authorization), 200)


class MetricsTest(AdminCase):
    """The endpoint ``metrics``."""

    async def test_no_secret(self) -> None:
        """It tells how the service is to everybody, and nothing else, and changes nothing."""
        await self.start("metrics = 127.0.0.1:0")
        port = self.port_of("metrics")
        for path in ("/healthz", "/readyz"):
            told = await self.ask("GET", path, {"Host": "mux.example:9100"}, to=port)
            self.assertEqual(told.status, 200)
        self.assertIn((await self.ask("GET", "/metrics", to=port)).status, {200, 501})
        for method, path in (
            ("GET", "/api/status"),
            ("POST", "/api/reload"),
            ("POST", "/api/stop"),
            ("GET", "/login"),
            ("GET", "/"),
        ):
            told = await self.ask(method, path, JSON, to=port)
            self.assertEqual(told.status, 404, path)
        self.assertIsNone(self.running.control.last_reload)


class GuardTest(SynchronousTestCase):
    """The guard alone."""

    def setUp(self) -> None:
        """Make one with a clock."""
        self.clock = Clock()
        self.guard = AdminGuard(frozenset({"box.example", "box"}), self.clock.seconds)
        self.guard.token = TOKEN

    def tried(self, source: str, token: str) -> int:
        """Try, and give the status that is refused with, or 200."""
        caller = Caller(source, source, "192.0.2.7", 9)
        try:
            self.guard.check_token({"authorization": f"Bearer {token}"}, caller)
        except RefusedError as refused:
            return refused.status
        return 200

    def test_sources(self) -> None:
        """Each source is counted by itself, an IPv6 network as one; and after a minute it may try again."""
        for number in range(10):
            self.assertEqual(self.tried(f"2001:db8::{number}", "x"), 401)
        self.assertEqual(self.tried("2001:db8::ffff", "x"), 429)
        self.assertEqual(self.tried("2001:db8::ffff", TOKEN), 200)
        self.assertEqual(self.tried("2001:db8:0:1::1", "x"), 401)
        self.assertEqual(self.tried("192.0.2.1", "x"), 401)
        self.clock.advance(61)
        self.assertEqual(self.tried("2001:db8::ffff", "x"), 401)

    def test_logged(self) -> None:
        """Wrong tokens are a line in the log once a minute, with their number; right ones are none."""
        with capturedLogs() as events:
            for second in range(150):
                for source in ("192.0.2.1", "192.0.2.2"):
                    self.tried(source, f"{TOKEN}x")
                self.tried("192.0.2.1", TOKEN)
                self.clock.rightNow = float(second + 1)
        self.assertEqual(
            [(event["count"], event["caller"]) for event in events],
            [(1, "192.0.2.1"), (120, "192.0.2.1"), (120, "192.0.2.1")],
        )
        self.assertNotIn(TOKEN, repr(events))

    def test_many_sources(self) -> None:
        """Whoever has many addresses fills no memory."""
        for number in range(3000):
            self.tried(f"198.51.{number // 256}.{number % 256}", "x")
        self.assertEqual(len(self.guard._token_failures._failures), 1000)

    def test_without_a_token(self) -> None:
        """Nobody is let in by TCP while there is no token."""
        self.guard.token = ""
        caller = Caller("192.0.2.1", "", "192.0.2.7", 9)
        name = self.guard.cookie_name
        for headers in (
            {"authorization": "Bearer "},
            {"authorization": "Bearer x"},
            {"cookie": f"{name}={self.guard._cookie()}"},
        ):
            self.assertRaises(RefusedError, self.guard.check_token, headers, caller)
        self.assertRaises(RefusedError, self.guard.log_in, "", caller)

    def test_names(self) -> None:
        """An endpoint has its own address and the names of its machine; a loopback address also those of others."""
        public = Caller("192.0.2.1", "", "192.0.2.7", 9)
        mapped = Caller("192.0.2.1", "", "::ffff:192.0.2.7", 9)
        local = Caller("::1", "", "::1", 9)
        for caller, host, fits in (
            (public, "192.0.2.7:9", True),
            (public, "box", True),
            (public, "Box.Example:9", True),
            (public, "localhost", False),
            (public, "192.0.2.8", False),
            (mapped, "192.0.2.7:9", True),
            (local, "[::1]:9", True),
            (local, "127.0.0.1:9", True),
            (local, "localhost", True),
            (local, "192.0.2.7", False),
        ):
            self.assertEqual(self.is_let_in(caller, host), fits, host)

    def is_let_in(self, caller: Caller, host: str) -> bool:
        """Tell whether somebody may ask for this host."""
        try:
            self.guard.check_host({"host": host}, caller)
        except RefusedError:
            return False
        return True
