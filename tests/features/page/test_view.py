import json
import re
from html import unescape
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.everything import DOCUMENTS, names
from txmux.detection.ranked import finish
from txmux.features.page.query import PARTS, PageQuery
from txmux.features.page.tables import are_long, files_in_steps
from txmux.features.page.unrecognised import dump, line_for
from txmux.features.page.view import _ALL, PageExplanation, PageSnapshot, View, render
from txmux.testing.predicates import calls_in

_STATUS: dict[str, Any] = {"listeners": [{"name": "public"}], "rules_path": "rules.ini"}


def _view(query: dict[str, str], **parts: Any) -> View:
    status, asked = {**_STATUS, **parts.pop("status", {})}, PageQuery.of(query)
    files = parts.pop("rules", [])
    steps = files_in_steps(files, parts.get("routes", ()), {}, asked)
    long = are_long(files)
    parts |= {"rules": finish(steps), "has_long_rules": long}
    return View(PageSnapshot(1000.0, status, **parts), asked)


def _page(query: dict[str, str] | None = None, **parts: Any) -> str:
    return "".join(render(_view(query or {}, **parts)))


def menus(page: str) -> dict[str, list[list[Any]]]:
    found = re.findall(r"""aria-label="Actions for ([^"]*)" data-menu='([^']*)'""", page)
    return {unescape(about): json.loads(entries) for about, entries in found}


class PageTests(SynchronousTestCase):
    def test_all_that_a_service_tells_has_its_place(self) -> None:
        """Each thing that a service tells of has its place on the page."""
        parts = (
            "status", "routes", "backends", "connections", "recent", "clients", "certificates",
            "bans", "rules",
        )  # fmt: skip
        page = _page({"all": "rules"}, **{name: DOCUMENTS[name] for name in parts})
        for name in {*names(), "192.0.2.7", "www.example.com", "accept_proxy_from"}:
            self.assertIn(name, page)
        [item] = DOCUMENTS["status"]["attention"]
        self.assertIn(item["text"].partition(":")[0].capitalize(), page)
        # It is said forwards; nothing that is searched for is not nothing at all, in each part that is searched, and by the filters in those that they are for.
        page = _page()
        self.assertIn("No connection has ended badly.", page)
        self.assertIn("No client without a route has ended badly of late.", page)
        for query, count in (
            *(({part: "x"}, 1) for part in PARTS if part not in {"servers", "rules"}),
            ({"client": "192.0.2.1"}, 2),
        ):
            self.assertEqual(_page(query).count(">None match.<"), count, query)
        page = _page(
            rules=[{"file": "rules.ini", "text": "[txmux]", "sections": []}],
            connections=[{"id": "1-1", "client": "192.0.2.1:1", "age_ms": 1, "state": "relaying"}],
            recent=[{"client": "192.0.2.1:2", "listener": "public", "reason": "refused"}],
            backends=[_backend("b", "10.0.0.1:80")],
        )
        labels = re.findall(r'role="region" aria-label="([^"]+)"', page)
        titles = re.findall(r'<section id="(\w+)" aria-labelledby="\1-title"', page)
        self.assertEqual((len(labels), len(titles)), (5, 11))
        both = [*(one.lower() for one in labels), *titles]
        self.assertEqual(sorted(both), sorted(set(both)))

    def test_attention(self) -> None:
        item = {
            "level": "critical", "what": "backend", "text": "backend web: no server can serve",
            "cause": "connection refused, 37 of 37 in 12 s", "since": 880.0,
            "do": "txmux explain", "link": "?backend=web#servers",
        }  # fmt: skip
        note = {"level": "note", "what": "token", "text": "the token"}
        missing = "Not all is shown: worker 1 does not answer."
        page = _page(status={"attention": [item, note]}, warnings=[missing])
        levels = re.findall(r'<li class="(\w+)"><b class="level">\1</b>', page)
        self.assertEqual(levels, ["critical", "warning", "note"])
        link = '<a href="./?backend=web#servers">Backend web: no server can serve.</a>'
        cause = "<span>connection refused, 37 of 37 in 12 s,</span> <span>for 2 min</span>"
        self.assertIn(f'{link} {cause} <span class="do">txmux explain</span></li>', page)
        self.assertIn(f"<b>{missing}</b></li>", page)
        self.assertIn("Nothing needs attention", _page())
        texts = (f"backend b{n}: 2 of 4 servers are down" for n in range(12))
        found = [{"level": "warning", "text": text} for text in texts]
        found.append({"level": "critical", "text": "a.example: no server is up"})
        page = _page(status={"attention": found})
        self.assertIn('<li class="critical"><b class="level">critical</b> <b>a.example: no', page)
        self.assertLess(page.index("a.example: no server"), page.index("Backend b0: 2 of 4"))
        self.assertEqual(page.count('<li class="warning">'), 5)
        self.assertIn('<a href="./?all=now#now">Show all 13</a>', page)
        page = _page({"all": "now"}, status={"attention": found})
        self.assertEqual(page.count('<li class="warning">'), 12)
        self.assertNotIn("Nothing needs attention", page)
        # Those that clients refuse come first.
        states = ["valid", "ends soon", "not valid yet", "ended"]
        page = _page(certificates=[{"names": [one], "route": "r", "state": one} for one in states])
        _, _, part = page.partition('aria-label="Table of certificates"')
        table, _, _ = part.partition("</table>")
        found = re.findall(r'<span class="key (\w+)">([\w ]+)</span>', table)
        colours = ["down", "down", "partly", "up"]
        self.assertEqual(found, [*zip(colours, reversed(states), strict=True)])

    def test_cost(self) -> None:
        """With 300 routes and 9,000 connections, of which the service lists a thousand, the page takes less than 200,000 calls."""
        routes = [
            {"name": f"route-{n}", "backend": f"b{n % 60}", "matches": n, "active": n % 9}
            for n in range(300)
        ]
        backends = [_backend(f"b{n}", f"10.0.0.{n}:80") for n in range(60)]
        rows = [
            {"id": f"1-{n}", "client": f"192.0.2.1:{n}", "age_ms": n, "state": "relaying"}
            for n in range(1000)
        ]
        parts: dict[str, Any] = {"routes": routes, "backends": backends, "connections": rows}
        page = _page({"sort": "-age_ms"}, **parts)
        self.assertLess(calls_in(lambda: _page({"sort": "-age_ms"}, **parts)), 200_000)
        self.assertIn("25 of 1\N{NARROW NO-BREAK SPACE}000 connections.", page)

    def test_page_of_a_route(self) -> None:
        """It has what is of the route; clients, bans and other routes are on the page of the whole service."""
        routes: list[dict[str, Any]]
        routes = [{"name": name, "backend": name, "under": ["public"]} for name in ("a", "c")]
        backends = [_backend(name, f"10.0.0.1:{name}") for name in ("a", "c")]
        page = _page({"route": "a"}, routes=routes, backends=backends)
        places = {*re.findall(r'id="(\w+)"', page)}
        self.assertLessEqual({"route", "servers", "connections", "map", "explain"}, places)
        self.assertEqual(places & {"clients", "bans", "listeners", "certificates"}, set())
        self.assertEqual(re.findall(r'aria-label="(route \w+)', page), ["route a"])
        self.assertIn("Route a", page)
        self.assertIn("10.0.0.1:a", page)
        self.assertNotIn("10.0.0.1:c", page)
        routes = [
            {"name": "a", "backend": "b", "matches": 1, "listeners": [{"listener": "public"}]},
            {"name": "c", "backend": "close"},
        ]
        page = _page({"route": "a"}, routes=routes)
        titles = re.findall(r'<section id="(\w+)"', page)
        self.assertEqual(titles, ["route", "servers", "ends", "connections", "map", "rules"])
        self.assertIn("<dt>listeners</dt><dd>public</dd>", page)
        self.assertEqual(len(re.findall(r'<rect [^>]*class="route ', page)), 1)
        self.assertEqual(_page({"route": "x"}, routes=routes).count('<section id="'), 11)
        # A row that stands for routes between others has no name, as the page of the whole service has no route.
        rows = [*routes, {"name": "", "backend": None, "left_out": 300}]
        self.assertIn('<section id="now"', _page(routes=rows))
        self.assertLessEqual({*PARTS}, {*_ALL})
        query = PageQuery.of({"route": "a b", "evil": "x", "after": "1-1", "state": ""})
        self.assertEqual(query.link(after="", sort="age_ms"), "./?route=a+b&sort=age_ms")
        self.assertEqual((query.filters, query.link(route="", after="")), ({"route": "a b"}, "./"))
        self.assertEqual(query.link(route="\ud800"), "./?route=%3F&after=1-1")

    def test_servers_of_a_backend_those_with_trouble_first(self) -> None:
        states = {"a": "up", "b": "maintenance", "c": "down"}
        routes = [
            {"name": "outer", "backend": None},
            {"name": "inner", "backend": "b", "under": ["outer"]},
            {"name": "other", "backend": "a"},
        ]
        backends = [_backend(name, "x", state=state) for name, state in states.items()]
        a, b, c = ("a", "not checked"), ("b", "maintenance"), ("c", "down")
        for query, expected in (
            ({}, [c, b, a]), ({"route": "other"}, [a]), ({"route": "outer"}, [b]), ({"servers": "MAINT"}, [b]),
        ):  # fmt: skip
            rows = _view(query, backends=backends, routes=routes).servers.rows
            self.assertEqual([(row["backend"], row["state"]) for row in rows], expected)
        addresses = [f"10.0.0.{n}:80" for n in range(60)]
        backends = [_backend("web", *addresses)]
        part = _view({}, backends=backends).servers
        self.assertEqual((len(part.rows), part.more), (25, 35))
        of_weight = [{"server": f"{n}", "state": "up", "weight": n} for n in (1, 2)]
        rows = _view({}, backends=[{"name": "w", "servers": of_weight}]).servers.rows
        self.assertEqual([row["weight"] for row in rows], ["", "weight 2"])
        page = _page({"route": "", "sort": "age_ms"}, backends=backends)
        self.assertIn('<a href="./?sort=age_ms&amp;all=servers#servers">Show all 60</a>', page)
        self.assertIn('<input name="servers" value="" placeholder="backend, server, state"', page)
        self.assertIn('<input type="hidden" name="sort" value="age_ms">', page)
        self.assertEqual(_view({"all": "servers"}, backends=backends).servers.more, 0)
        part = _view({"servers": "0.5"}, backends=backends).servers
        self.assertEqual((len(part.rows), part.is_searched), (11, True))
        self.assertNotIn('name="servers"', _page(backends=[_backend("web", *addresses[:50])]))
        measured = {
            "state": "failing", "why": "connection refused, 3 of 3", "active": 1, "total": 3,
            "failed": 3, "rate": 0.25, "bytes_in": 2048, "bytes_out": 1, "first_byte_ms": 12.34,
            "last_failure": {"time": 990.0, "cause": "connection reset"},
        }  # fmt: skip
        servers = [{"server": "x", **measured}, {"server": "y", **measured, "state": "up"}]
        (group,) = _view({}, backends=[{"name": "b", "servers": servers}]).backends
        self.assertEqual(group.cells, ["2", "0.5/s", "4.1 kB", "2 B", "-"])
        first, _ = group.servers
        self.assertEqual((first["state"], first["health"]), ("failing", "down"))
        self.assertEqual(first["cells"], ["1", "0.25/s", "2.05 kB", "1 B", "12.3 ms"])
        self.assertEqual(first["last_failure"], "connection reset, 10 s ago")
        for ok, why, shown in (
            (True, "", "1.5 ms"),
            (False, "3 checks failed; last: refused", "1.5 ms"),
            (False, "", "refused, 1.5 ms"),
        ):
            check = {"ok": ok, "result": "healthy" if ok else "refused", "duration_ms": 1.5}
            server = {"server": "x", "state": "up", "why": why, "check": check}
            (row,) = _view({}, backends=[{"name": "b", "servers": [server]}]).servers.rows
            self.assertEqual(row["last_check"], shown)
        drain = ["Drain: all", "api/backends/a%2Fb", {"state": "drain"}, "", ""]
        for hold, label in ((None, "Hold new clients"), ({"until": None}, "Release its clients")):
            backend = _backend("a/b", "10.0.0.1:80", "10.0.0.2:80", hold=hold)
            found = menus(_page(backends=[backend]))
            names = ["backend a/b", "a/b 10.0.0.1:80", "a/b 10.0.0.2:80", "listener public"]
            self.assertEqual([*found], names)
            self.assertIn(drain, found["backend a/b"])
            path = f"api/backends/a%2Fb/{label.partition(' ')[0].lower()}"
            self.assertIn([label, path, {}, "", ""], found["backend a/b"])
        backend["servers"].pop()
        entries = menus(_page(backends=[backend]))["a/b 10.0.0.1:80"]
        labels = ["Drain", "Maintenance", "Set its weight", "End its connections", label]
        self.assertEqual([entry[0] for entry in entries], labels)

    def test_identical_unrecognised_clients_are_one_row(self) -> None:
        recent = [
            {"client": client, "listener": "public", "reason": "no-route", "first": first}
            for client, first in (
                ("192.0.2.2:9", "0a"), ("192.0.2.1:8", "0b"), ("192.0.2.1:7", "0a"),
                ("192.0.2.1:6", "0a"), ("192.0.2.1:5", "0b"),
            )
        ]  # fmt: skip
        rows = _view({}, recent=recent).unrecognised.rows
        found = [(row["client"], row["count"]) for row in rows]
        first = "192.0.2.2:9", "3 times, from 2 addresses"
        self.assertEqual(found, [first, ("192.0.2.1:8", "2 times")])
        part = _view({"unrecognised": "0B"}, recent=recent).unrecognised
        self.assertEqual([row["client"] for row in part.rows], ["192.0.2.1:8"])
        # Plain text as text, and the rest in hex. One that begins like no other has its first bytes; zeros at the begin say nothing.
        self.assertEqual(line_for(b"HELO-there"), "match = payload text=HELO")
        self.assertEqual(line_for(b"\x16\x03\x01"), "match = payload hex=160301")
        sent = ("01aa000007", "01aa000008ff", "0000002a01", "0000002b01", "ffee00112233", "4849")
        no_route = {"client": "c:1", "listener": "l", "reason": "no-route"}
        rows = _view({}, recent=[{**no_route, "first": one} for one in sent]).unrecognised.rows
        wanted = ("01aa0000", "01aa0000", "0000002a", "0000002b", "ffee0011")
        lines = [f"match = payload hex={one}" for one in wanted]
        self.assertEqual([row["suggestion"] for row in rows], [*lines, "match = payload text=HI"])
        long = bytes(range(1, 20))
        self.assertEqual(line_for(long, [long + b"!"]), "match = payload hex=0102030405060708")

    def test_connections_and_ends(self) -> None:
        rows = [{"id": f"1-{n}"} for n in range(51)]
        status = {**_STATUS, "connections": {"active": 9000}}
        for query, summary in (
            ({}, "25 of 9\N{NARROW NO-BREAK SPACE}000 connections."),
            ({"route": "a"}, "The first 25 connections; there are more."),
            ({"sort": "age_ms"}, "25 of the first 51 connections, sorted; there are more."),
        ):
            snapshot = PageSnapshot(1000.0, status, connections=rows, is_cut=True)
            view = View(snapshot, PageQuery.of(query))
            self.assertEqual((query, view.connections_summary), (query, summary))
            self.assertEqual(len(view.connections.body.rows), 25)
        self.assertEqual(view.next_page, "./?sort=age_ms&all=connections")
        for more, number in (({"sort": "age_ms"}, 51), ({}, 25)):
            view = View(snapshot, PageQuery.of({"all": "connections", **more}))
            self.assertEqual((more, len(view.connections.body.rows)), (more, number))
        self.assertEqual(view.next_page, "./?all=connections&after=1-24")
        for idle, count in ({}, 0), ({"idle_ms": 3.2}, 1):  # an empty column is left out
            table = _view({}, connections=[{"id": "1-0", **idle}]).connections
            self.assertEqual([one.name for one in table.columns].count("idle"), count)
        chosen = {"id": "1-1", "age_ms": 243887.9, "idle_ms": 3.2, "bytes_in": 2048, "facts": {}}
        found = _view({}, connection=chosen).connection
        assert found is not None
        facts = {"id": "1-1", "age": "4 min 3 s", "idle": "3.2 ms", "in": "2.05 kB"}
        self.assertEqual(found["facts"], [*facts.items()])
        ends = [
            {"client": f"192.0.2.{n}:1", "reason": "no-server", "route": route, "listener": "a"}
            for n, route in ((1, None), (2, "r"))
        ]
        filters: dict[str, str]
        for filters, count in (
            ({}, 2), ({"client": "192.0.2.1"}, 1), ({"client": "192.0.2.0/30", "state": "peeking"}, 2),
            ({"route": "-"}, 1), ({"listener": "b"}, 0), ({"client": "x"}, 2),
        ):  # fmt: skip
            page = _page(filters, recent=ends)
            shown = [end for end in ends if str(end["client"]) in page]
            self.assertEqual(len(shown), count, filters)

    def test_what_clients_name_is_text(self) -> None:
        evil = "\"><script>alert(1)</script>'"
        parts: dict[str, Any] = {
            "connections": [{"id": "1-1", "client": evil, "route": evil, "facts": {"sni": evil}}],
            "recent": [{"client": evil, "listener": evil, "reason": evil, "first": "3c623e"}],
            "connection": {"id": evil, "facts": {"sni": evil}, "client": evil},
            "warnings": [evil],
            "explained": [PageExplanation(evil, [(evil, evil)])],
            "backends": [{"name": evil, "servers": [{"server": evil, "state": evil, "why": evil}]}],
        }
        filtered: tuple[tuple[str, ...], ...]
        filtered = (), ("route", "client", "connection"), ("servers", "unrecognised", "rules")
        for keys in filtered:
            page = _page(dict.fromkeys(keys, evil), **parts)
            self.assertNotIn(evil, page)
            self.assertNotIn("<script>alert", page)
        # A taken-over worker may send anything.
        page = _page(connections=[{"id": "\ud800", "client": "c"}])
        self.assertIn("api/connections/%3F/close", page)

    def test_rules_of_a_filter_or_a_search_alone(self) -> None:
        text = "# all\n[listen public]\n[route a]\nbackend = b\n[route c]\n[backend b]\n"
        sections = [
            {"name": name, "line": line, "text": body}
            for name, line, body in (
                ("listen public", 2, "[listen public]"), ("route a", 3, "[route a]\nbackend = b"),
                ("route c", 5, "[route c]"), ("backend b", 6, "[backend b]"),
            )
        ]  # fmt: skip
        parts: dict[str, Any] = {
            "rules": [{"file": "r.ini", "text": text, "sections": sections}],
            "routes": [{"name": "a", "backend": "b"}, {"name": "c", "backend": "close"}],
        }

        def lines(**query: str) -> list[int]:
            files = _view(query, **parts).snapshot.rules
            return [line.number for file in files for line in file.lines]

        self.assertEqual(lines(), [1, 2, 3, 4, 5, 6])
        self.assertEqual((lines(route="a"), lines(rules="BACKEND")), ([3, 4, 6], [3, 4, 6]))
        self.assertEqual(lines(rules="nothing"), [])
        parts["rules"][0]["text"] += "\n" * 100
        self.assertEqual((lines(), len(lines(all="rules"))), ([], 106))

    @given(st.binary(max_size=64))
    def test_dump_has_every_byte_and_is_printable(self, data: bytes) -> None:
        lines = dump(data)
        self.assertEqual(b"".join(bytes.fromhex(line[:47]) for line in lines), data)
        self.assertTrue(all(line.isascii() and line.isprintable() for line in lines))


def _backend(name: str, *servers: str, state: str = "up", **more: Any) -> dict[str, Any]:
    return {"name": name, "servers": [{"server": one, "state": state} for one in servers], **more}
