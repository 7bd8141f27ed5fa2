import base64

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.asking import JSON, TOKEN, AdminCase, request
from txmux.admin.access import NO_ACCESS, AdminAccess
from txmux.admin.guard import AdminGuard, Caller, RefusedError
from txmux.rules.lint.warnings import lint
from txmux.rules.model.settings import AdminUser
from txmux.rules.optional import load
from txmux.rules.reading.tokens import AdminToken

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def basic(token: str, user: str = "txmux") -> dict[str, str]:
    """Give what a browser sends that keeps a token."""
    return {"authorization": f"Basic {base64.b64encode(f'{user}:{token}'.encode()).decode()}"}


class AnybodyTest(AdminCase):
    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        await self.start()

    async def assert_refused(self, status: int, sent: bytes, *words: str) -> None:
        told = await self.send(sent)
        self.assertEqual(told.status, status, (sent[:200], told.body))
        for word in words:
            self.assertIn(word, told.error)
        self.assertIsNone(self.running.control.last_reload)

    async def test_other_methods_change_nothing(self) -> None:
        for path in ("/api/reload", "/api/upgrade", "/api/stop"):
            told = await self.get(path)
            self.assertEqual((told.status, told.headers["allow"]), (405, "POST"))
        self.assertIsNone(self.running.control.last_reload)
        for method, status in (("PUT", 405), ("DELETE", 405), ("OPTIONS", 405), ("BREW", 501)):
            await self.assert_refused(status, request(method, "/api/reload", JSON))
        told = await self.ask("POST", "/api/status", JSON)  # other methods are refused
        self.assertEqual((told.status, told.headers["allow"]), (405, "GET, HEAD"))
        for told in (await self.get("/api/status"), await self.get("/nowhere")):
            self.assertEqual(told.headers["cache-control"], "no-store")
            self.assertEqual(told.headers["x-content-type-options"], "nosniff")
            self.assertIn("default-src 'none'", told.headers["content-security-policy"])
            self.assertIn("frame-ancestors 'none'", told.headers["content-security-policy"])
            self.assertNotIn("access-control-allow-origin", told.headers)
            self.assertNotIn("server", told.headers)
        with capturedLogs() as events:  # input is not reflected in headers or log
            told = await self.get("/x%0d%0aX-Evil:%201", Cookie="a=\x1b[31m")
            refused = await self.ask("POST", "/api/reload", {**JSON, "Host": "a\x1b[31m.b"})
        self.assertEqual((told.status, refused.status), (404, 403))
        self.assertNotIn("x-evil", told.headers)
        self.assertNotIn(b"\x1b", refused.body)
        self.assertNotIn("\x1b", repr(events).replace("\\x1b", ""))

    async def test_paths_only_as_the_reference_writes_them(self) -> None:
        for path in (
            "/api", "/api/", "/api/reload/", "//api/reload", "/api//reload", "/api/./reload",
            "/x/../api/reload", "/api/%72eload", "/api%2freload", "/API/reload", "/api/reload%00",
            "api/reload", "*", "http://localhost/api/reload", "/api/reload;x", "/etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
        ):  # fmt: skip
            await self.assert_refused(404, request("POST", path, JSON), "nothing at this path")
        self.assertEqual((await self.get("/healthz?x=/../y")).status, 200)

    async def test_not_installed(self) -> None:
        await self.assert_installed("/metrics")

    async def test_only_json_is_accepted_since_forms_cannot_send_it(self) -> None:
        for given in (
            None, "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
            "text/plain", "application/jsonx",
        ):  # fmt: skip
            headers: dict[str, str] = {} if given is None else {"Content-Type": given}
            await self.assert_refused(415, request("POST", "/api/reload", headers, "{}"))
        right = {"Content-Type": "Application/JSON; charset=utf-8"}
        self.assertEqual((await self.ask("POST", "/api/reload", right, "{}")).status, 200)

    async def test_origin_has_to_be_this_endpoint(self) -> None:
        origins = "http://evil.example", "null", "http://localhost:1", "", "localhost"
        for wrong in (*({"Origin": one} for one in origins), {"Sec-Fetch-Site": "cross-site"}):
            sent = request("POST", "/api/reload", {**JSON, **wrong})
            await self.assert_refused(403, sent, "cross-origin")
        told = await self.ask("POST", "/api/reload", {**JSON, "Origin": "http://LOCALHOST"})
        self.assertEqual(told.status, 200)

    async def test_rebound_name_is_refused(self) -> None:
        for host in ("evil.example", "evil.example:80", "localhost.evil.example", "192.0.2.1", ""):
            for method, path in (("POST", "/api/reload"), ("GET", "/api/status")):
                sent = request(method, path, {**JSON, "Host": host})
                await self.assert_refused(403, sent, "not a name of this endpoint")
        for host in ("localhost", "localhost:80", "txmux", "127.0.0.1", "[::1]:9", "LocalHost."):
            self.assertEqual((await self.ask("GET", "/healthz", {"Host": host})).status, 200, host)


class TokenTest(AdminCase):
    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        await self.start_with_token()

    async def test_nothing_without_the_token(self) -> None:
        for path in ("/api/status", "/healthz", "/readyz", "/metrics", "/", "/nowhere"):
            self.assertEqual(await self.status_at(path), 401, path)
        told = await self.ask("GET", "/healthz", to=self.port)
        self.assertEqual(told.headers["www-authenticate"], 'Bearer realm="txmux"')
        self.assertEqual(await self.status_at(Authorization=f"Bearer {TOKEN}"), 200)
        self.assertEqual(await self.status_at(Authorization=f"bearer  {TOKEN}"), 200)
        with capturedLogs() as events:  # wrong token is refused and not logged
            for given in ("x", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "é"):
                self.assertEqual(await self.status_at(Authorization=f"Bearer {given}"), 401)
            self.assertEqual(await self.status_at(Authorization=f"Basic {TOKEN}"), 401)
            for path in (f"/api/status?token={TOKEN}", f"/api/status?access_token={TOKEN}"):
                self.assertEqual(await self.status_at(path), 401)
            change = await self.ask("POST", "/api/reload", JSON, to=self.port)
            self.assertEqual(change.status, 401)
        self.assertNotIn(TOKEN, repr(events))
        self.assertIsNone(self.running.control.last_reload)

    async def test_what_other_origins_have_a_browser_send_is_refused(self) -> None:
        bearer, port = {"Authorization": f"Bearer {TOKEN}"}, self.port
        for status, hosts in (
            (403, ("evil.example", "txmux", f"evil.example:{port}", "localhost:1", "")),
            (200, ("localhost", f"localhost:{port}", f"127.0.0.1:{port}")),
        ):
            for host in hosts:
                self.assertEqual(await self.status_at(Host=host, **bearer), status, host)
        for site in ("cross-site", "same-site", "x"):
            for path in ("/", "/api/status", "/enter"):
                headers = {**basic(TOKEN), "Sec-Fetch-Site": site}
                self.assertEqual(await self.status_at(path, **headers), 403, (site, path))
        for site in ("same-origin", "none"):
            self.assertEqual(await self.status_at(**basic(TOKEN), Sec_Fetch_Site=site), 200)
        self.assertEqual(await self.status_at(**bearer, Sec_Fetch_Site="cross-site"), 200)

    async def test_token_readable_by_all_needs_attention(self) -> None:
        authorization = {"Authorization": f"Bearer {TOKEN}"}
        self.folder.chmod(0o755)
        for mode, count in ((0o640, 0), (0o644, 1), (0o600, 0)):
            self.token.chmod(mode)
            await self.running.control.index.look_at_secrets()
            status = await self.document("/api/status", authorization)
            texts = [one["text"] for one in status["attention"] if one["level"] == "note"]
            found = [one for one in texts if "every user of this machine" in one]
            self.assertEqual(len(found), count)
            warned = [one for one in lint(self.running.control.rules) if one.key == "admin_token"]
            self.assertEqual([one.message.partition(";")[0] for one in warned], found)
            if load("page") is None:
                continue
            page = await self.ask("GET", "/", authorization, to=self.port)
            self.assertEqual(b"Every user of this machine" in page.body, bool(count))

    async def test_right_token_is_accepted_at_once_among_many_wrong_ones(self) -> None:
        for _ in range(3):
            self.assertEqual(await self.status_at(), 401)
        wrong = {"Authorization": "Bearer x"}
        for _ in range(10):
            self.assertEqual(await self.status_at(**wrong), 401)
        waiting = [
            Deferred.fromCoroutine(self.ask("GET", "/api/status", wrong, to=self.port))
            for _ in range(64)
        ]
        self.assertEqual(await self.status_at(Authorization=f"Bearer {TOKEN}"), 200)
        self.assertEqual(await self.status_at(**basic(TOKEN)), 200)
        self.assertLess(sum(one.called for one in waiting), 32)
        answers = await DeferredList(waiting, consumeErrors=True)
        told = next(answer for is_there, answer in answers if is_there)
        self.assertEqual(told.status, 429)
        self.assertLessEqual(int(told.headers["retry-after"]), 61)

    async def test_reload_reads_the_token_again(self) -> None:
        self.token.write_text("another-secret-of-this-test")
        self.assertTrue((await self.running.reload()).ok)
        self.assertEqual(self.port_of("admin"), self.port)
        for headers in (basic(TOKEN), {"Authorization": f"Bearer {TOKEN}"}):
            self.assertEqual(await self.status_at(**headers), 401)
        authorization = "Bearer another-secret-of-this-test"
        self.assertEqual(await self.status_at(Authorization=authorization), 200)


class MetricsTest(AdminCase):
    async def test_metrics_and_health_only_for_everybody(self) -> None:
        await self.start("metrics = 127.0.0.1:0")
        port = self.port_of("metrics")
        for path in ("/healthz", "/readyz"):
            told = await self.ask("GET", path, {"Host": "mux.example:9100"}, to=port)
            self.assertEqual(told.status, 200)
        self.assertIn((await self.ask("GET", "/metrics", to=port)).status, {200, 501})
        for method, path in (
            ("GET", "/api/status"), ("POST", "/api/reload"), ("POST", "/api/stop"),
            ("GET", "/login"), ("GET", "/"),
        ):  # fmt: skip
            self.assertEqual((await self.ask(method, path, JSON, to=port)).status, 404, path)
        self.assertIsNone(self.running.control.last_reload)


class GuardTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.guard = AdminGuard(frozenset({"box.example", "box"}), self.clock.seconds)
        self.guard.access = AdminAccess.of([AdminToken("admin", "all", TOKEN)], ())

    def tried(self, source: str, token: str) -> int:
        caller = Caller(source, source, "192.0.2.7", 9)
        try:
            self.guard.identify({"authorization": f"Bearer {token}"}, caller)
        except RefusedError as refused:
            self.refused = refused
            return refused.status
        return 200

    def test_failures_by_source_with_an_ipv6_network_as_one(self) -> None:
        for number in range(10):
            self.assertEqual(self.tried(f"2001:db8::{number}", "x"), 401)
        self.assertEqual(self.tried("2001:db8::ffff", "x"), 429)
        self.assertEqual(self.refused.headers["Retry-After"], "61")
        self.assertEqual(self.tried("2001:db8::ffff", TOKEN), 200)
        self.assertEqual(self.tried("2001:db8:0:1::1", "x"), 401)
        self.assertEqual(self.tried("192.0.2.1", "x"), 401)
        self.clock.advance(61)
        self.assertEqual(self.tried("2001:db8::ffff", "x"), 401)

    def test_wrong_tokens_are_logged_once_a_minute(self) -> None:
        with capturedLogs() as events:
            for second in range(150):
                for source in ("192.0.2.1", "192.0.2.2"):
                    self.tried(source, f"{TOKEN}x")
                self.tried("192.0.2.1", TOKEN)
                self.clock.rightNow = float(second + 1)
        found = [(event["count"], event["caller"]) for event in events]
        self.assertEqual(found, [(1, "192.0.2.1"), (120, "192.0.2.1"), (120, "192.0.2.1")])
        self.assertNotIn(TOKEN, repr(events))

    def test_many_sources_fill_no_memory(self) -> None:
        for number in range(3000):
            self.tried(f"198.51.{number // 256}.{number % 256}", "x")
        self.assertEqual(len(self.guard.token_failures.failures), 1000)
        for number in range(1009):  # the source that has failed last is remembered longest
            self.tried(f"198.51.{number // 256}.{number % 256}", "x")
            if number < 1005 and not number % 111:
                self.assertEqual(self.tried("192.0.2.1", "x"), 401)
        self.assertEqual(self.tried("192.0.2.1", "x"), 429)

    def test_tcp_is_refused_without_a_token(self) -> None:
        self.guard.access = NO_ACCESS
        caller = Caller("192.0.2.1", "", "192.0.2.7", 9)
        for headers in ({"authorization": "Bearer "}, {"authorization": "Bearer x"}, basic("")):
            self.assertRaises(RefusedError, self.guard.identify, headers, caller)
        for port in (0, 9):  # worker is refused whatever it sends
            caller = Caller("uid 1", "", port=port, is_worker=True)
            headers = {"authorization": f"Bearer {TOKEN}"}
            refused = self.assertRaises(RefusedError, self.guard.identify, headers, caller)
            self.assertEqual(refused.status, 403)

    def test_accepted_names_of_public_and_loopback_addresses(self) -> None:
        public = Caller("192.0.2.1", "", "192.0.2.7", 9)
        mapped = Caller("192.0.2.1", "", "::ffff:192.0.2.7", 9)
        local = Caller("::1", "", "::1", 9)
        for caller, host, fits in (
            (public, "192.0.2.7:9", True), (public, "box", True), (public, "Box.Example:9", True),
            (public, "localhost", False), (public, "192.0.2.8", False),
            (mapped, "192.0.2.7:9", True), (local, "[::1]:9", True), (local, "127.0.0.1:9", True),
            (local, "localhost", True), (local, "192.0.2.7", False),
        ):  # fmt: skip
            self.assertEqual(self.is_let_in(caller, host), fits, host)

    def test_answers_that_last_end_with_the_token_or_the_user(self) -> None:
        token, user = AdminToken("admin", "all", TOKEN), AdminUser("4711", "read")
        by_token = Caller("192.0.2.1", "", "192.0.2.7", 9)
        by_token = self.guard.identify({"authorization": f"Bearer {TOKEN}"}, by_token)
        by_user = Caller("uid 4711", "", uid=4711)
        for tokens, users, admitted in (
            ([token], [user], [True, True]),
            ([token], [AdminUser("4712", "all")], [True, False]),
            ([AdminToken("admin", "read", TOKEN)], [user], [False, True]),
        ):
            self.guard.access = AdminAccess.of(tokens, users)
            self.assertEqual([*map(self.guard.still_admits, (by_token, by_user))], admitted)

    def is_let_in(self, caller: Caller, host: str) -> bool:
        try:
            self.guard.check_host({"host": host}, caller)
        except RefusedError:
            return False
        return True
