"""The page in Chromium, with real clients, servers and workers behind it."""

import json
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPResponse
from typing import ClassVar

import pytest

from tests.browser.driving import Browser
from tests.browser.service import Holding, Watched, many_routes, three_routes
from tests.cli.remote.answering import Answering
from tests.interop.servers import RedisServer, start_redis
from tests.support.kit import PATIENCE, InteropTestCase, eventually, free_port

pytestmark = pytest.mark.by_turns(each=True)

EVIL = "\"><script>document.title='owned'</script><img src=x onerror=alert(1)>"

_SCROLLED = """
return [...document.querySelectorAll("main *:not(.unseen, summary code)")].filter((one) =>
    one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).overflowX !== "visible").map((one) => one.outerHTML.slice(0, 100));
"""
"""What is wider than its room, so that it is cut off or has to be scrolled."""
_OUT_OF_REACH = """
const right = (one) => one.getBoundingClientRect().right;
return [...document.querySelectorAll(".menu")].filter((one) => right(one) > right(one.closest("section"))).map((one) => one.ariaLabel)
    .concat([...document.querySelectorAll(".port")].filter((one) => one.getClientRects().length > 1).map((one) => one.textContent));
"""
"""The menus that are cut off until their table is scrolled, and the ports with a break in them."""
_CHARTS = """
return [...charts.values()].map((one) => [
    one.axes.map((axis) => axis._values.filter((text) => text !== null && text !== "").length),
    one.root.getBoundingClientRect().bottom - one.over.getBoundingClientRect().bottom,
]);
"""
"""Of each chart: how many labels its axes have, and what is below its lines."""
_RULES_LINES = """
const box = (one) => one.getBoundingClientRect();
return [...document.querySelectorAll(".rules tr")].map((row) => {
    const [, hits, text] = row.cells, shown = hits.textContent ? box(hits) : null;
    return [text.textContent, box(text).width, shown && shown.top - box(text).top, shown && box(row).right - shown.right];
});
"""
"""Of each line of the rules: its text, its room, and where its hits are, below the text and from the right."""
_UPDATES = """
return performance.getEntriesByType("resource").filter((one) => one.name.includes("have=")).map((one) => one.encodedBodySize);
"""

_CHANGED = """
return fetch("?have=" + [...tags.values()].join(" ")).then((answer) => answer.json()).then(Object.keys);
"""
_STRANGER = """<!DOCTYPE html><title>page</title><body><iframe src="ADDRESS"></iframe><script>
const to = "ADDRESS", all = { credentials: "include" };
const tell = (answer) => answer.text().then((text) => `${answer.type} ${text.length}`);
const load = (path) => new Promise((done) => {
  const script = document.createElement("script");
  script.src = to + path;
  script.onload = () => done("loaded");
  script.onerror = () => done("not loaded");
  document.body.append(script);
});
Promise.all([
  fetch(to + "api/status", { ...all, mode: "no-cors" }).then(tell, () => "opaque 0"),
  fetch(to + "api/reload", { ...all, mode: "no-cors", method: "POST", body: "{}" }).then(tell, () => "opaque 0"),
  fetch(to + "api/status", all).then(tell, () => "failed"),
  fetch(to + "api/reload", { ...all, method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }).then(tell, () => "failed"),
  load("api/status"),
]).then((outcomes) => { document.body.dataset.outcomes = JSON.stringify(outcomes); document.title = "tried"; });
</script>"""
"""Has the browser send what it can to the service from a page of another port."""
_BOXES = 'return [...document.querySelectorAll(".boxes li")].map((one) => one.textContent)'
_CLICK_ENTRY = """
[...document.querySelectorAll("#menu button")].find((one) => one.textContent === arguments[0]).click();
"""


class PageTests(InteropTestCase):
    watched: ClassVar[Watched]
    browser: ClassVar[Browser]
    redis: ClassVar[RedisServer]
    holding: ClassVar[Holding]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.redis = cls.share(start_redis(cls.folder))
        cls.holding = cls.share(Holding())
        cls.browser = cls.share(Browser())
        rules = three_routes(cls.redis, cls.holding.port, free_port())
        cls.watched = cls.share(Watched(cls.folder, rules))

    def log_in(self, watched: Watched) -> None:
        self.browser.look_like(1024, "light")
        # The page of another test asks for news until it is left.
        self.browser.open("about:blank")
        self.browser.asked()
        self.browser.open(watched.address)
        if self.browser.all("#token"):  # else it knows the token of this service already
            self.enter(watched.token)
            eventually(lambda: bool(self.browser.all("#now")), "the page is there")
        self.browser.complaints()  # of the page that asks for the token, that it is 401
        self.browser.asked()  # with the token, as the browser tells those who debug it

    def enter(self, token: str) -> None:
        self.browser.find("#token").send_keys(token)
        self.browser.click("button")

    def assert_quiet(self, watched: Watched) -> None:
        asked = {one for one in self.browser.asked() if one.startswith(("http", "ws"))}
        self.assertEqual([one for one in asked if not one.startswith(watched.address)], [])
        self.assertNotIn(watched.token, "".join(asked))
        self.assertEqual(self.browser.complaints(), [])

    def setUp(self) -> None:
        self.addCleanup(self.watched.leave)
        self.log_in(self.watched)

    def tearDown(self) -> None:
        self.assert_quiet(self.watched)

    def choose(self, menu: str, entry: str) -> None:
        def is_open() -> bool:
            return entry in self.browser.text("#menu:popover-open")

        self.browser.click(menu)
        eventually(is_open, f"the menu has {entry}")
        self.browser.run(_CLICK_ENTRY, entry)

    def stop_scripts(self) -> None:
        self.browser.tell("Emulation.setScriptExecutionDisabled", value=True)
        self.addCleanup(self.browser.tell, "Emulation.setScriptExecutionDisabled", value=False)

    def go(self, query: str = "") -> None:
        self.browser.open(self.watched.address + query)

    def test_login(self) -> None:
        """A wrong token is told so in the form; the right one is kept for this origin, also where there is no page yet."""
        self.go("login")
        self.enter("wrong")
        self.browser.shows("[role=alert]", "that is not")
        backs = []
        for scheme in ("light", "dark"):
            self.browser.look_like(375, scheme)
            self.assertEqual(self.browser.faults(), [])
            backs.append(self.browser.run("return getComputedStyle(document.body).backgroundColor"))
        self.assertEqual(backs, ["rgb(251, 251, 250)", "rgb(18, 22, 27)"])
        self.browser.complaints()  # of the refusals
        self.browser.find("#token").clear()
        self.enter(self.watched.token)
        eventually(lambda: bool(self.browser.all("#now")), "the page is there")
        self.browser.asked()
        self.go("enter")
        eventually(lambda: bool(self.browser.all("#now")), "the page is there")

    def test_login_without_script(self) -> None:
        """The button has the browser ask, as it does for the page; there is no field that would be typed into in vain."""
        browser = self.browser
        browser.tell("Network.clearBrowserCookies")
        self.stop_scripts()
        self.go("login")
        shown = [one.text for one in browser.all("button, .button") if one.is_displayed()]
        self.assertEqual(shown, ["Log in"])
        browser.asked()
        browser.click(".button")
        eventually(lambda: f"{self.watched.address}enter" in browser.asked(), "it asks")
        scheme, _, rest = self.watched.address.partition("://")
        # As if it were typed there.
        browser.open(f"{scheme}://any:{self.watched.token}@{rest}enter")
        browser.asked()  # of this server, but by addresses with the token
        browser.complaints()  # of refusals
        self.go()
        eventually(lambda: bool(browser.all("#now")), "the page is there")

    def asked(self, method: str, path: str, headers: Mapping[str, str]) -> HTTPResponse:
        asking = HTTPConnection(self.watched.address.split("/")[2], timeout=PATIENCE)
        self.addCleanup(asking.close)
        asking.request(method, path, headers=dict(headers))
        return asking.getresponse()

    def last_reload(self) -> object:
        authorization = {"Authorization": f"Bearer {self.watched.token}"}
        return json.load(self.asked("GET", "/api/status", authorization))["last_reload"]

    def open_page_of_another(self, page: str) -> Answering:
        """Open it from a web server of another user, on another port of the same host."""
        stranger = self.own(Answering(("127.0.0.1", 0), page.encode()))
        stranger.headers["Content-Type"] = "text/html"
        self.browser.open(f"http://127.0.0.1:{stranger.port}/")
        return stranger

    def test_page_of_another_port(self) -> None:
        """Neither what the browser sends it, nor what its page has the browser send, reads or changes anything."""
        before = self.last_reload()
        stranger = self.open_page_of_another(_STRANGER.replace("ADDRESS", self.watched.address))
        self.browser.shows("title", "tried")
        outcomes = json.loads(self.browser.run("return document.body.dataset.outcomes"))
        self.assertEqual(outcomes, ["opaque 0", "opaque 0", "failed", "failed", "not loaded"])
        self.assertNotEqual(stranger.asked, [])
        for heard in (one.headers for one in stranger.asked):
            kept = {name: value for name, value in heard.items() if name != "Host"}
            for path in ("/", "/api/status", "/?have=", "/metrics", "/enter"):
                self.assertEqual(self.asked("GET", path, kept).status, 401, (path, heard))
            told = self.asked("POST", "/api/reload", {**kept, "Content-Type": "application/json"})
            self.assertEqual(told.status, 401, heard)
        self.assertEqual(self.browser.cookies(), [])
        self.assertEqual(self.last_reload(), before)
        self.go()  # the browser still knows the token
        eventually(lambda: bool(self.browser.all("#now")), "the page is there")
        self.browser.complaints()  # of the tries
        self.browser.asked()

        # A link of another page leads here: one more click shows the page, with what the link asks for, and no reload is turned away again.
        link = f'<!DOCTYPE html><a href="{self.watched.address}?route=web">txmux</a>'
        self.open_page_of_another(link)
        self.browser.click("a")
        self.browser.shows("main", "A page of another origin leads here")
        self.assertEqual(self.browser.faults(), [])
        self.browser.click("#on")
        eventually(lambda: bool(self.browser.all("#route")), "the page is there")
        self.browser.reload()
        eventually(lambda: bool(self.browser.all("#route")), "the page is there again")
        self.browser.complaints()  # of the refusal
        self.browser.asked()

    def test_map_and_connections(self) -> None:
        """A click on the map filters, the table is sorted, a connection is chosen, told of, and ended; what comes is shown by itself."""
        see, browser = self.browser.shows, self.browser
        port = str(self.watched.mux.ports["office"])
        self.watched.use("redis-cli", "-p", port, "MONITOR").wait_for("OK")
        self.watched.say("public", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        see("[data-live=map]", "1 active")
        browser.click("svg.map a[aria-label^='route redis']")
        see(".filters", "route redis")
        see("#connections", "1 connection.")
        self.assertIn("office", browser.text("#connections tbody tr"))
        self.watched.use("redis-cli", "-p", port, "MONITOR").wait_for("OK")
        see("#connections", "2 connections.")
        browser.click("#connections th:nth-child(6) a")
        see("#connections th[aria-sort=descending]", "age")
        browser.click("#connections tbody a")
        see(".chosen", "decision route redis")
        identity = browser.text(".chosen h3").removeprefix("Connection ")
        self.choose(".chosen .menu", "End it")
        browser.answer()
        see(".chosen", "It has ended.")
        see("#said", "connection")
        browser.click(".filters a[href='./']")
        eventually(lambda: not browser.all(".filters"), "all is shown")
        see("#connections", "connections.")
        self.assertNotIn(identity, browser.run("return document.body.innerHTML"))
        see("#ends tbody", "killed")

    def test_changes_by_an_operator(self) -> None:
        browser = self.browser
        browser.shows(".attention", "Backend ssh: no server is up")
        browser.shows("#servers", "connection refused")
        name = f"redis 127.0.0.1:{self.redis.port}"
        menu = f"button[aria-label='Actions for {name}']"
        self.choose(menu, "Drain")
        browser.shows("#said", "drain")
        browser.shows("#servers", "drain")
        browser.shows(".attention", "Backend redis: no server is up")
        self.choose(menu, "Ready")
        eventually(lambda: "Backend redis" not in browser.text(".attention"), "it is ready")
        for text, told in (("7", "has weight 7"), ("x", "x: is no"), ("1e3", "1e3: is no")):
            self.choose(menu, "Set its weight")
            browser.answer(text)
            browser.shows("#said", told)
            browser.shows("#servers", "weight 7")
        self.choose(menu, "Set its weight")
        browser.answer("1")
        eventually(lambda: "weight 7" not in browser.text("#servers"), "it has the weight 1")
        self.choose("button[aria-label='Actions for backend web']", "Drain: all")
        browser.shows("#servers", "1 drained, and down, 1 drained")
        self.choose("button[aria-label='Actions for backend web']", "Ready: all")
        eventually(lambda: "drained" not in browser.text("#servers"), "all are ready")

        browser.click("#bans summary")
        browser.find("input[name=network]").send_keys("192.0.2.0/24")
        browser.find("input[name=reason]").send_keys("a test\n")
        browser.shows("#bans tbody", "192.0.2.0/24")
        browser.shows("#bans tbody", "a test")
        self.choose("button[aria-label='Actions for network 192.0.2.0/24']", "Lift")
        browser.answer()
        browser.shows("#bans", "No ban of an operator is in force.")
        menu = "button[aria-label='Actions for listener office']"
        self.choose(menu, "Pause")
        browser.answer()
        browser.shows("#listeners", "paused")
        self.choose(menu, "Resume")
        eventually(lambda: "paused" not in browser.text("#listeners"), "it accepts clients")

    def test_what_stays_while_the_page_is_updated(self) -> None:
        """A menu by keyboard stays open."""
        browser = self.browser
        entry = "return document.activeElement.textContent"
        menu = f"button[aria-label='Actions for redis 127.0.0.1:{self.redis.port}']"
        eventually(lambda: browser.find(menu).is_displayed(), "there is a menu")
        browser.find(menu).send_keys("\n")
        eventually(lambda: browser.run(entry) == "Drain", "the first entry is chosen")
        self.watched.say("public", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        browser.shows("#connections", "1 connection.")
        self.assertTrue(browser.find("#menu").is_displayed())
        self.assertEqual(browser.faults(), [])
        browser.find("#menu :focus").send_keys("\ue015")  # arrow down
        self.assertEqual(browser.run(entry), "Maintenance")
        browser.find("#menu :focus").send_keys("\ue00c")  # escape
        self.assertFalse(browser.find("#menu").is_displayed())
        said = "return document.activeElement.ariaLabel"
        self.assertEqual(f"button[aria-label='{browser.run(said)}']", menu)

        # A table stays scrolled.
        self.browser.look_like(640, "light")
        self.go()
        before = self.browser.text("#servers")
        self.browser.run("document.querySelector('#servers .wide').scrollLeft = 50")
        self.watched.say("public", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        eventually(lambda: self.browser.text("#servers") != before, "the table is updated")
        scrolled = "return document.querySelector('#servers .wide').scrollLeft"
        self.assertEqual(self.browser.run(scrolled), 50)

    def test_refused_reload_and_explained_bytes(self) -> None:
        browser, file = self.browser, self.watched.mux.file
        before = file.read_text()
        file.write_text(f"{before}[route x]\nmatch = nonsense\n")
        self.addCleanup(file.write_text, before)
        browser.click("#rules button[data-act]")
        browser.shows("#rules pre.wrong", "nonsense")
        browser.shows(".attention", "The last reload failed")
        file.write_text(before)
        browser.click("#rules button[data-act]")
        browser.shows("#rules .fine", "Reloaded")
        browser.click("#explain summary")
        browser.find("input[name=explain]").send_keys(b"SSH-2.0-x\r\n".hex())
        browser.click("#explain button")
        browser.shows("#rules pre[aria-label=Explanation]", "decision at byte 4: route ssh")
        browser.complaints()  # of the reload that was refused

    def test_new_rules_and_hits_are_shown_by_themselves(self) -> None:
        watched = self.own(Watched(self.folder, many_routes(6, self.holding.port)))
        self.log_in(watched)
        browser, file = self.browser, watched.mux.file
        about = browser.text("#about")
        watched.say("public", b"GET / HTTP/1.1\r\nHost: site-1.example\r\n\r\n")
        browser.shows("#rules tr[id$=site-1] .hits", "1")
        browser.click("#text summary")  # what is folded up stays so
        file.write_text(f"{file.read_text()}[route added]\nmatch = ssh\nbackend = close\n")
        browser.click("#rules button[data-act]")
        browser.shows("#rules .fine", "1 route new (added)")
        browser.shows("#text", "[route added]")
        self.assertFalse(browser.run("return document.querySelector('#text details').open"))
        self.assertNotEqual(browser.text("#about"), about)
        self.assert_quiet(watched)

    def test_unrecognised_client_with_verdicts_and_a_rule_to_copy(self) -> None:
        browser = self.browser
        self.watched.say("office", b"\x05\x01\x00")
        browser.shows("#unrecognised article", "05 01 00")
        given = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        browser.tell("Browser.grantPermissions", permissions=given)
        browser.click("#unrecognised [data-copy='match = socks5']")
        browser.shows("#said", "copied")
        self.assertEqual(browser.run("return navigator.clipboard.readText()"), "match = socks5")
        browser.click("#unrecognised article a")
        browser.shows("#rules pre[aria-label=Explanation]", "no at byte 1")

    def test_names_of_clients_are_text_and_no_script_runs(self) -> None:
        for said in (
            f"GET /{EVIL} HTTP/1.1\r\nHost: {EVIL}\r\nUser-Agent: {EVIL}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: a\rb\x00{EVIL}\r\n\r\n",
            f"{EVIL}\r\n",
        ):
            self.watched.say("office", said.encode())
        self.watched.say("public", f"SSH-2.0-{EVIL}\r\n".encode())
        # In whatever order the workers were done with them.
        self.browser.shows("#unrecognised", '"><script>docum')
        for query in ("", f"?route={EVIL}", f"?connection={EVIL}", f"?client={EVIL}&sort={EVIL}"):
            self.go(query)
            self.assertTrue(self.browser.run("return document.title").startswith("txmux"))
            self.assertEqual(self.browser.all("img, script:not([src])"), [])
        self.go("?route=web")
        self.browser.click("#connections tbody a")
        self.browser.shows(".chosen", "decision route web")
        self.assertTrue(self.browser.run("return document.title").startswith("txmux"))

    def test_without_script(self) -> None:
        """Without JavaScript all is there to read, filters work by links, and no button is shown that would do nothing."""
        browser = self.browser
        self.watched.say("public", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        self.stop_scripts()
        self.go()
        self.assertEqual([one.text for one in browser.all("h2")], [
            "Now", "Servers", "Ended badly", "Unrecognised", "Connections", "Clients",
            "Listeners", "Map", "Rules", "Certificates", "Bans",
        ])  # fmt: skip
        doing = browser.all("[data-act], .menu, #bans details")
        self.assertEqual([one for one in doing if one.is_displayed()], [])
        self.assertTrue(browser.find("figure svg").is_displayed())
        browser.click("svg.map a[aria-label^='route web']")
        browser.shows(".filters", "route web")

    def test_accessible_and_not_too_wide_on_any_screen(self) -> None:
        for width in (375, 1024, 1600):  # from 1600 on there are two columns, narrow ones here
            for scheme in ("light", "dark"):
                self.browser.look_like(width, scheme)
                for query in ("", "?explain=5353482d322e30&map=all", "?route=web"):
                    self.go(query)
                    self.assertEqual((width, scheme, self.browser.faults()), (width, scheme, []))
                    wide = self.browser.run("return document.documentElement.scrollWidth")
                    self.assertEqual(wide, width)
                    self.assertEqual(self.browser.run(_OUT_OF_REACH), [])

    def test_phone(self) -> None:
        """All is within the width of a phone."""
        self.watched.say("public", b"EHLO there\r\n" * 4)
        self.watched.say("public", b"SSH-2.0-x\r\n")
        self.watched.say("office", b"PING\r\n")
        self.browser.look_like(375, "light")
        self.go("?explain=5353482d322e30")
        self.browser.shows("#ends", "no-server")
        self.browser.click("#connections tbody a")
        self.browser.shows(".chosen", "decision")
        self.browser.click("#unrecognised summary")
        self.assertIn("no-server", self.browser.find("#ends table").text)
        self.assertEqual(self.browser.run(_SCROLLED), [])
        shown = "\n".join(self.browser.run(_BOXES))
        for box in ("public", "ssh → ssh down", "web partly 1/2 up"):
            self.assertRegex(shown, f"(?m)^{box}")
        self.assertFalse(self.browser.find("svg.map").is_displayed())

        # The lines have nearly all of the width, and the hits of a route are beside its first line, at the right end of all.
        self.browser.look_like(400, "light")
        self.go()
        text = self.browser.run("return document.querySelector('.rules').clientWidth")
        rows = self.browser.run(_RULES_LINES)
        self.assertEqual([line for line, width, *_ in rows if width < 0.7 * text], [])
        hits = [row for row in rows if row[2] is not None]
        lines = [line for line, *_ in hits]
        self.assertEqual(lines, ["[route redis]", "[route web]", "[route ssh]"])
        for _, _, below, right in hits:
            self.assertLess(abs(below), 8)
            self.assertLess(right, 1)

    def test_charts_and_updates(self) -> None:
        """Charts have labels and no blank strip."""
        eventually(lambda: len(self.browser.all("figure .uplot")) == 3, "the charts are drawn")
        for labels, below in self.browser.run(_CHARTS):
            self.assertTrue(all(count >= 2 for count in labels), labels)
            self.assertLess(below, 30)

        # Only what has changed is fetched.
        eventually(lambda: len(self.browser.run(_UPDATES)) >= 2, "the page is updated")
        self.assertLess(self.browser.run(_UPDATES)[0], 10_000)
        changed = {"now", "servers", "ends", "unrecognised", "connections", "clients"}
        self.assertLessEqual({*self.browser.run(_CHANGED)}, {*changed, "listeners", "map"})

    def test_folded_map_is_accessible_with_many_connections(self) -> None:
        watched = self.own(Watched(self.folder, many_routes(300, self.holding.port)))
        self.log_in(watched)
        self.browser.shows("#connections", "None now.")
        for number in range(120):
            host = f"site-{number % 17}.example"
            watched.say("public", f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        self.browser.shows("#connections", "25 of 120 connections.")
        self.browser.look_like(375, "dark")
        self.browser.open(watched.address)
        self.assertEqual(self.browser.faults(), [])
        self.browser.click(".boxes:has(.folded) summary")
        self.browser.click(".boxes .folded a")
        eventually(lambda: len(self.browser.all(".boxes .route")) == 300, "all routes are shown")
        self.assert_quiet(watched)

    def test_half_dead_pools(self) -> None:
        """Menus are within reach and the page is short where much is folded, which a search finds also without JavaScript."""
        browser, ports = self.browser, (self.holding.port, free_port(), free_port())
        watched = self.own(Watched(self.folder, many_routes(120, *ports)))
        self.log_in(watched)
        browser.shows("#now", "Show all 20")
        browser.shows("#servers", "Show all 60")
        edge = browser.run(
            "const right = (one) => one.getBoundingClientRect().right;"
            "return right(document.querySelector('#servers'))"
            " - Math.max(...[...document.querySelectorAll('#servers button')].map(right))"
        )
        self.assertGreater(edge, 0)
        self.assertEqual(browser.faults(), [])
        browser.look_like(375, "light")
        self.assertLess(browser.run("return document.documentElement.scrollHeight"), 4000)
        self.stop_scripts()
        browser.open(watched.address)
        browser.find("input[name=servers]").send_keys("pool-7\n")
        eventually(lambda: len(browser.all("#servers .server")) == 3, "those of pool-7 are shown")
        self.assert_quiet(watched)
