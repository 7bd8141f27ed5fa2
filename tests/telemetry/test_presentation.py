from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.net.channel.message import DATE
from txmux.telemetry import documents
from txmux.telemetry import presentation as view
from txmux.telemetry.presentation import COMMAND, PAGE, SCREEN, STYLES, Column, Table

_NOW = 1_795_208_468.0
_TABLES = [table for table in vars(documents).values() if isinstance(table, Table)]


class PresentationTests(SynchronousTestCase):
    def test_words_order_and_health(self) -> None:
        """A server that nothing checks may be up or not; a drained one is down when its checks have failed often enough, as the reason tells."""
        states = {
            "a": ("up", None), "b": ("up", True), "c": ("drain", True), "d": ("drain", False),
            "e": ("drain", None), "f": ("ejected", True), "g": ("down", False), "s": ("silent", True),
        }  # fmt: skip
        servers: list[dict[str, Any]] = [
            {"server": name, "state": state, "check": None if ok is None else {"ok": ok}}
            for name, (state, ok) in states.items()
        ]
        servers[3]["why"] = "drained by an operator, and down: 2 checks failed; last: timed out"
        servers[4]["check"] = {"ok": False}  # the first of two
        servers.append({"server": "i", "state": "up", "check": None, "checked": True})
        servers.append({"server": "n", "state": "of a newer version"})
        dead = [{"server": "h", "state": "failing"}, {"server": "j", "state": "disabled"}]
        listed = view.server_rows(
            [{"name": "web", "servers": servers}, {"name": "db", "servers": dead}]
        )
        self.assertEqual(
            [(row["server"], view.server_state(row), view.server_health(row)) for row in listed],
            [
                ("h", "failing", "down"),  # its backend has none that is up
                ("n", "of a newer version", "down"), ("g", "down", "down"), ("s", "silent", "down"),
                ("f", "ejected", "down"), ("d", "drained, and down", "drain"),
                ("c", "drained", "drain"), ("e", "drained", "drain"), ("j", "disabled", "idle"),
                ("a", "not checked", "unchecked"), ("b", "up", "up"),
                ("i", "checking", "checking"),  # its first check has no result yet
            ],
        )  # fmt: skip
        self.assertEqual({row["backend"] for row in listed}, {"web", "db"})

    def test_numbers_of_one_server_in_each_medium(self) -> None:
        table = documents.SERVERS.only("active", "rate", "in", "first byte", "last failure", "why")
        failure = {"time": _NOW - 90, "cause": "connection refused"}
        row = {
            "state": "up", "active": 12345, "rate": 2.51, "bytes_in": 1536, "first_byte_ms": 3.2,
            "last_failure": failure, "weight": 8, "effective_weight": 2,
        }  # fmt: skip
        why = "starting slowly: weight 2 of 8"
        for medium, active, first_byte, failed in (
            (COMMAND, "12.3 k", "3.2 ms", "connection refused, 1 min 30 s ago"),
            (SCREEN, "12.3 k", "3ms", "connection refused, 1m30s"),
            (
                PAGE, "12\N{NARROW NO-BREAK SPACE}345", "3.2 ms",
                "connection refused, 1 min 30 s ago",
            ),
        ):  # fmt: skip
            expected = [active, "2.5/s", "1.54 kB", first_byte, failed, why]
            self.assertEqual(table.cells(row, medium, _NOW), expected)
        older = {"state": "up", "active": 1, "last_failure": None}
        self.assertEqual(table.cells(older, COMMAND, _NOW), ["1", *5 * ["-"]])

    def test_found_addresses_down_ones_first_and_limited(self) -> None:
        many = [{"address": f"10.0.0.{n}:80", "state": "up"} for n in range(1, 12)]
        many[9]["state"] = "down"
        found = view.found_addresses({"server": "consul:web", "addresses": many})
        self.assertTrue(found.startswith("10.0.0.10:80 (down), 10.0.0.1:80, "), found)
        self.assertTrue(found.endswith(", 10.0.0.7:80 and 3 more"), found)
        plain = [{"address": "10.0.0.1:80", "state": "up"}]
        self.assertEqual(view.found_addresses({"server": "10.0.0.1:80", "addresses": plain}), "")

    def test_order_and_dates(self) -> None:
        names = {"a": (0, 0), "b": (1, 2), "c": (0, 9), "d": (0, 0)}
        routes = [{"name": name, "active": n, "matches": m} for name, (n, m) in names.items()]
        self.assertEqual([row["name"] for row in view.busy_routes(routes)], ["b", "c", "a", "d"])
        for seconds, shown in ((DATE.least, "1-01-0"), (DATE.most, "9999-12-")):
            self.assertIn(shown, view.date(seconds))
        rows: list[dict[str, Any]] = [{"n": 2}, {"n": None}, {"n": 7}, {}]
        for is_descending, wanted in ((False, [2, 7]), (True, [7, 2])):
            listed = view.ordered(rows, Column("n", "n", "count"), is_descending=is_descending)
            self.assertEqual([row.get("n") for row in listed], [*wanted, None, None])
        states = ["valid", "of a newer version", "ends soon", None, "ended", "not valid yet"]
        ranked = ["ended", "not valid yet", "ends soon", "valid", "of a newer version", None]
        listed = sorted(({"state": state} for state in states), key=view.certificate_rank)
        self.assertEqual([row["state"] for row in listed], ranked)

    def test_attention_of_this_and_of_older_versions(self) -> None:
        item = {
            "level": "critical", "what": "backend", "text": "backend web: no server can serve",
            "cause": "connection refused, 37 of 37 in 12 s", "since": _NOW - 75,
            "do": "txmux servers web",
        }  # fmt: skip
        listed = view.attention_items(
            {"attention": ["it burns", {"what": "x", "text": "old"}, item]}
        )
        line = "backend web: no server can serve (connection refused, 37 of 37 in 12 s), for 1 min 15 s"
        found = [(one["level"], view.attention_line(one, _NOW)) for one in listed]
        self.assertEqual(found, [("critical", line), ("warning", "it burns"), ("warning", "old")])
        code, lines = view.attention_verdict({"attention": listed})
        self.assertEqual((code, lines[1:]), (2, ["WARNING: it burns", "WARNING: old"]))
        self.assertTrue(lines[0].endswith("; 2 more | critical=1;;;0 warning=2;;;0 note=0;;;0"))

    def test_many_of_one_owner(self) -> None:
        """What another owner does hides nothing: of each topic, five items of theirs are shown, and how many more there are."""
        listed = [
            {"text": f"{what} {number}", "level": "warning", "what": what, "owner": owner}
            for what, owner in (("renewal", "user 1001"), ("unit", "user 1001"), ("unit", "a.ini"))
            for number in range(7)
        ]
        listed.append({"text": "last", "level": "warning", "what": "unit"})
        shown = [item["text"] for item in view.folded_attention({"attention": listed})]
        self.assertEqual(len(shown), 3 * 6 + 1)
        self.assertEqual(shown[4:7], ["renewal 4", "user 1001: 2 more of these", "unit 0"])
        self.assertEqual(shown[-2:], ["a.ini: 2 more of these", "last"])
        _, lines = view.attention_verdict({"attention": listed})
        self.assertEqual(len(lines), len(shown))
        self.assertIn("; 21 more | critical=0;;;0 warning=22;;;0", lines[0])
        own = [{**item, "owner": ""} for item in listed]
        self.assertEqual(len(view.folded_attention({"attention": own})), len(listed))

    def test_views_of_a_status(self) -> None:
        routes: list[dict[str, Any]] = [{"active": 2}, {}]
        ended = {"ended": 3, "bytes_in": 1, "bytes_out": 2}
        counts = {"active": 5, "undecided": 1, "total": 9, "limit": 20, "unrouted": ended}
        measured = {"connections": 1.5, "bytes_in": 2000}
        status: dict[str, Any] = {"connections": counts, "rates": measured}
        row = {**ended, "name": "-", "backend": "no route", "matches": 5, "active": 2}
        self.assertEqual([*view.unrouted(status, routes)], [row])
        self.assertEqual([one["active"] for one in view.unrouted(status, [{"active": 9}])], [0])
        for number, active, is_shown in ((0, 3, False), (0, 4, True), (1, 3, True)):
            its = {**counts, "active": active, "unrouted": {**ended, "ended": number}}
            self.assertEqual(len([*view.unrouted({"connections": its}, routes)]), is_shown)
        self.assertEqual([*view.unrouted({}, routes)], [])
        self.assertEqual(
            view.connection_counts(status), "5 active, 1 undecided, 9 so far, at most 20"
        )
        self.assertEqual(
            view.connection_counts({"connections": {"total": 9, "limit": 0}}), "9 so far"
        )
        self.assertEqual(view.rates(status), "connections 1.5/s, bytes in 2 kB/s")
        self.assertEqual(view.rates({"rates": None}), "")
        for level, code, line in (
            ("critical", 2, "CRITICAL: a/b (c) | active=5;;;0;20 undecided=1;;;0 total=9c;;;0 critical=1;;;0 warning=0;;;0 note=0;;;0"),
            ("note", 0, "NOTE: a/b (c) | active=5;;;0;20 undecided=1;;;0 total=9c;;;0 critical=0;;;0 warning=0;;;0 note=1;;;0"),
            ("warning", 1, "WARNING: a/b (c) | active=5;;;0;20 undecided=1;;;0 total=9c;;;0 critical=0;;;0 warning=1;;;0 note=0;;;0"),
        ):  # fmt: skip
            item = {"level": level, "text": "a|b", "cause": "c"}
            self.assertEqual(
                view.attention_verdict({**status, "attention": [item]}), (code, [line])
            )
        for since, age in ((200.0, ", for 0 s"), (10.0, ", for 1 min 30 s"), (None, "")):
            self.assertEqual(view.attention_line({"text": "x", "since": since}, 100.0), f"x{age}")

    def test_states_of_workers_listeners_and_servers(self) -> None:
        """Each in words, and whether it is well."""
        cases: list[tuple[Table, dict[str, Any], str, str]] = [
            (documents.WORKERS, {"ready": False}, "starts", "partly"),
            (documents.WORKERS, {}, "does not answer", "down"),
            (documents.WORKERS, {"active": 0, "retiring": True}, "retires", "idle"),
            (documents.WORKERS, {"active": 0}, "serves", ""),
            (documents.listeners(), {}, "-", ""),
            (documents.listeners(), {"accepting": True}, "accepts", ""),
            (documents.listeners(), {"accepting": False}, "does not accept", "drain"),
            (documents.listeners(), {"accepting": False, "why": "paused by x"}, "does not accept: paused by x", "drain"),
            (documents.listeners(), {"accepting": False, "why": "full"}, "does not accept: full", "down"),
            (documents.SERVERS, {"state": "unresolved"}, "unresolved", "down"),
            (documents.SERVERS, {"state": "probing"}, "probing", "partly"),
            (documents.SERVERS, {"state": "drain", "why": "drained, and down"}, "drained, and down", "drain"),
            (documents.SERVERS, {"state": "up", "check": {}}, "not checked", "unchecked"),
            (documents.SERVERS, {}, "?", "down"),
            (documents.CERTIFICATES, {"state": "ends soon"}, "ends soon", "partly"),
            (documents.CERTIFICATES, {"state": "not valid yet"}, "not valid yet", "down"),
        ]  # fmt: skip
        for table, row, text, health in cases:
            cells = table.only("state").cells(row, COMMAND, _NOW)
            self.assertEqual((cells, table.health(row) or ""), ([text], health), row)
            if table is documents.SERVERS:
                self.assertEqual(view.needs_attention(row), health != "unchecked")
        rows: list[dict[str, Any]] = [{}, {"weight": 2}, {"weight": 2, "effective_weight": 0.5}]
        weights = [view.slow_start(row) for row in rows]
        self.assertEqual(weights, ["", "", "starting slowly: weight 0.5 of 2"])
        table = documents.BANS.first("left")
        self.assertEqual([column.title for column in table.columns], ["left", "network", "reason"])
        self.assertEqual(table.key({"network": "10.0.0.0/8"}), "10.0.0.0/8")
        [last] = documents.SERVERS.only("last failure").columns
        failed = {"cause": "x", "time": 5.0}
        self.assertEqual((last.order({"last_failure": failed}), last.order({})), (5.0, None))
        self.assertIsNone(Column(field="a").order({"a": ""}))

    def test_columns_that_fit(self) -> None:
        """Where there is little room, some go, in their order; what is left is cut, the widest first."""
        columns = [
            Column("name"), Column("n", kind="count", goes=1), Column("empty", goes=1),
            Column("words", goes=2, least=4), Column("spare", goes=5), Column("path", keeps_end=True),
        ]  # fmt: skip
        texts = ["x" * 10, "123", "-", "y" * 12, "z" * 5, f"/{'p' * 29}"]
        lines = [[column.title for column in columns], texts]
        for width, shown in (
            (80, {0: 10, 1: 3, 3: 12, 4: 5, 5: 30}), (68, {0: 10, 1: 3, 3: 12, 4: 5, 5: 30}),
            (67, {0: 10, 1: 3, 3: 12, 5: 30}), (60, {0: 10, 1: 3, 3: 12, 5: 29}), (50, {0: 10, 1: 3, 3: 7, 5: 24}),
            (46, {0: 10, 1: 3, 5: 29}), (38, {0: 10, 5: 26}), (30, {0: 10, 5: 18}), (16, {0: 8, 5: 6}), (1, {0: 1, 5: 1}),
        ):  # fmt: skip
            self.assertEqual(
                dict(zip(*view.fitted(columns, lines, width), strict=True)), shown, width
            )

    @given(st.sampled_from(_TABLES), st.integers(1, 200), st.text(max_size=40))
    def test_tables_of_any_width_with_missing_fields(
        self, table: Table, width: int, text: str
    ) -> None:
        """Whatever a service leaves out, there is a cell; none is wider than there is room, while each column has one at least."""
        row = {"state": text, "is_self_signed": False, "acme": False, "file": text, "server": text}
        cells = table.cells(row, COMMAND, _NOW)
        titles = [column.title for column in table.columns]
        shown, widths = view.fitted(table.columns, [titles, cells], width)
        always = [at for at, column in enumerate(table.columns) if not column.goes]
        self.assertLessEqual({*always}, {*shown})
        if width >= 3 * len(shown):
            self.assertLessEqual(sum(widths) + 2 * (len(shown) - 1), width)
        self.assertIn(table.style(row), STYLES.values())
