import hashlib
import hmac
import json
import re

from tests.admin.asking import JSON, LISTEN, TOKEN, AdminCase
from tests.admin.test_guards import FORM, basic


class SentTest(AdminCase):
    async def test_how_it_is_sent(self) -> None:
        """Long answers by gzip to clients that take it; and what it says if it is not installed."""
        await self.assert_sent_by_gzip("/", "/static/page.css")
        await self.assert_installed("/")

    async def test_page_asks_for_the_parts_that_it_does_not_have(self) -> None:
        await self.start(use=self.virtual())
        first = (await self.get("/?have=")).json
        page = (await self.get("/")).body.decode()
        self.assertEqual(([*first], len(first)), (re.findall(r'<div data-live="(\w+)">', page), 11))
        for part in first.values():
            self.assertIn(part["html"].split("\n")[0], page)
        tags = "+".join(part["tag"] for part in first.values())
        self.assertEqual((await self.get(f"/?have={tags}")).json, {})
        self.write_rules(rules=f"{LISTEN}[route a]\nmatch = ssh\nbackend = 127.0.0.1:1\n")
        await self.running.reload()
        changed = (await self.get(f"/?have={tags}")).json
        self.assertLessEqual({"map", "rules"}, set(changed))
        self.assertNotIn("connections", changed)
        self.assertIn("1 route new", json.dumps(changed["rules"]))


class LoginTest(AdminCase):
    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        await self.start_with_token()

    async def test_login_form_and_a_browser_that_keeps_the_token(self) -> None:
        page = await self.ask("GET", "/", {"Accept": "text/html"}, to=self.port)
        self.assertEqual(page.status, 401)
        self.assertIn(b'id="token"', page.body)
        self.assertNotIn("www-authenticate", page.headers)
        for policy in ("style-src 'self'", "script-src 'self'", "form-action 'none'"):
            self.assertIn(policy, page.headers["content-security-policy"])
        for name in ("page.css", "login.js"):
            self.assertEqual(await self.status_at(f"/static/{name}"), 200)
        asked = await self.ask("GET", "/enter", to=self.port)
        self.assertEqual(asked.status, 401)
        self.assertEqual(asked.headers["www-authenticate"], 'Basic realm="txmux", charset="UTF-8"')
        for user in ("txmux", "", "é"):
            self.assertEqual(await self.status_at("/enter", **basic(TOKEN, user)), 200)
        self.assertEqual(await self.status_at(**basic(TOKEN)), 200)
        for given in ("x", f"{TOKEN}x", f"x:{TOKEN}", ""):
            self.assertEqual(await self.status_at(**basic(given)), 401)
        for given in ("", "*", "YQ", "/w=="):
            self.assertEqual(await self.status_at(Authorization=f"Basic {given}"), 401)
        change = await self.ask("POST", "/api/reload", {**JSON, **basic(TOKEN)}, to=self.port)
        self.assertEqual(change.status, 200)

    async def test_who_follows_a_link_of_another_page_goes_on_from_there(self) -> None:
        for path in ("/", "/?route=ssh", "/enter", "/api/status"):
            led = {**basic(TOKEN), "Sec-Fetch-Site": "cross-site", "Accept": "text/html,*/*"}
            told = await self.ask("GET", path, led, to=self.port)
            self.assertEqual((told.status, told.headers["x-frame-options"]), (403, "DENY"))
            self.assertIn(b'href=""', told.body)
            self.assertNotIn(b"0.1", told.body)
            self.assertIn("script-src 'self'", told.headers["content-security-policy"])

    async def test_no_cookie_is_given_or_taken(self) -> None:
        """A browser sends cookies to all ports of a host (RFC 6265, 8.5)."""
        for headers in (basic(TOKEN), {"Authorization": f"Bearer {TOKEN}"}):
            for path in ("/", "/login", "/enter", "/api/status"):
                told = await self.ask("GET", path, {**headers, "Accept": "text/html"}, to=self.port)
                self.assertNotIn("set-cookie", told.headers)
        made = hmac.new(TOKEN.encode(), b"session", hashlib.sha256).hexdigest()
        for cookie in (f"txmux={TOKEN}", f"token={TOKEN}", f"txmux-0=admin:{made}"):
            self.assertEqual(await self.status_at(Cookie=cookie), 401)
        told = await self.ask("POST", "/login", {**FORM}, f"token={TOKEN}", to=self.port)
        self.assertEqual(told.status, 405)
