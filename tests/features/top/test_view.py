import re
from collections.abc import Mapping
from typing import Any

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from twisted.trial.unittest import SynchronousTestCase

from tests.features.top.snapshot import CONNECTION, RECENT, ROUTES, SERVER, SNAPSHOT
from tests.support.everything import BACKENDS, SERVERS, STATUS, names
from txmux.features.top.keys import HELP
from txmux.features.top.state import PANES, Mode, Pane, RequestResult, Snapshot, TopState, text_of
from txmux.features.top.view import screen, sparkline

_ROUTE = {"says": "match", "at": None, "needs_up_to": None, "error": None}
_LINE = {**_ROUTE, "match": "tls sni=" + 30 * "www.example.com,"}
_SITE = {"route": "site", "excluded_by": None, "dry_run": False, "lines": [_LINE], "inside": None}
_FACTS = {"sni": "\x1b[2Jwww.example.com"}
_SAID = {"by": "route", "route": "site", "bytes": 517, "facts": _FACTS}
_EXPLAINED = {**CONNECTION, "facts": {}, "explanation": {**_SAID, "routes": [{**_ROUTE, **_SITE}]}}
_ATTENTION = [
    {"what": "servers", "text": "backend web: 4 of 8 servers are down: s6, s4"},
    {"what": "certificate", "text": "the certificate site.pem of route site ended 2 d ago"},
]
_FEW_OR_MANY = st.integers(0, 30) | st.integers(0, 3)
_COUNTS = st.tuples(*[_FEW_OR_MANY] * 4, st.integers(0, 8))
_MODES: list[Mode] = ["browse", "filter", "question", "value", "help", "explanation"]


def _with(attention: Any = None, servers: Any = None, **more: Any) -> Snapshot:
    """What is usual, with other things that need attention, or other servers of one backend."""
    more |= {"status": {**STATUS, "attention": attention}} if attention is not None else {}
    more |= {"backends": [{"name": "web", "servers": servers}]} if servers is not None else {}
    return attrs.evolve(SNAPSHOT, **more)


def _many(row: Mapping[str, Any], count: int = 100, key: str = "id") -> list[dict[str, Any]]:
    return [{**row, key: f"{key[0]}{number}"} for number in range(count)]


def _drawn(state: TopState, snapshot: Snapshot, width: int = 80, height: int = 24) -> list[str]:
    return [line.plain for line in screen(state, snapshot, width, height)]


class ScreenTests(SynchronousTestCase):
    def test_all_panes_fit_into_80_by_24(self) -> None:
        drawn = _drawn(TopState(), SNAPSHOT)
        text = "\n".join(drawn)
        title = f"txmux {STATUS['version']} · /etc/txmux/rules.ini, generation 1 "
        self.assertTrue(drawn[0].startswith(title), drawn[0])
        self.assertIn(" · serves for 1 h 2 min · /etc", _drawn(TopState(), SNAPSHOT, 100)[0])
        for wanted in (
            "connections: 3 active, 1 undecided, 4 so far, at most 100",
            "192.0.2.1:50001  site   127.0.0.1:8080  relaying  1h2m    2s  11 B  0 B",
            "[1] connections  3", "[2] routes  2, busiest first", "[3] servers  2, 1 down", "1 check failed",
            "[4] recent ends  1", "no-route", "h help  q quit", *names(), "1.6/s     █          in 14.7 B/s",
        ):  # fmt: skip
            self.assertIn(wanted, text)
        folder = "/srv/a-long-folder-name/of-a-service"
        long = "[2001:db8:1234:5678:9abc::1]:8443"
        fails = {**SERVER, "state": "failing", "why": "3 connections failed within 10 s, " * 3}
        servers = [{**fails, "server": one} for one in (f"unix:{folder}/run/app.sock", long)]
        status = {**STATUS, "rules_path": f"{folder}/etc/txmux/rules.ini"}
        drawn = _drawn(TopState(pane="servers"), _with(servers=servers, status=status))
        self.assertRegex(drawn[0], r"· …[\w/-]+/etc/txmux/rules\.ini, generation 1 +[\d:]+$")
        text = "\n".join(drawn)
        self.assertRegex(text, rf" {re.escape(long)} +failing ")
        self.assertRegex(text, r" …[\w/-]+/run/app\.sock +failing ")

    def test_trouble_is_first_and_leaves_room(self) -> None:
        held = {"level": "note", "what": "hold", "text": "backend api: held"}
        down = {"level": "critical", "what": "backend", "text": "backend web: no server is up"}
        cause = {"cause": "connection refused", "since": SNAPSHOT.at - 90}
        told_too = {"problem": "nobody there; trying again", "warnings": ["worker 2"]}
        snapshot = _with([held, {**down, **cause}], **told_too)
        for told in ("\n".join(_drawn(TopState(), snapshot)), "\n".join(text_of(snapshot))):
            self.assertIn("\nnobody there; trying again", told)
            line = "critical: backend web: no server is up (connection refused), for 1 min 30 s"
            self.assertIn(f"\n{line}\nnote: backend api: held\n", told)
            self.assertIn("\nthe answer is not complete: worker 2", told)
        # With more of everything than there is room for.
        states = ["up", "drain", "up", "maintenance", "ejected", "up", "down", "disabled"]
        servers = [{**SERVER, "server": f"s{n}", "state": one} for n, one in enumerate(states)]
        backends = [{"name": name, "servers": servers} for name in ("web", "api")]
        many = {"connections": _many(CONNECTION), "routes": _many(ROUTES[0], key="name")}
        snapshot = _with(_ATTENTION, backends=backends, recent=_many(RECENT[0]), **many)
        wanted = [("down", 6), ("ejected", 4), ("maintenance", 3), ("drained", 1)]
        for width, height in ((80, 24), (130, 45), (200, 50)):
            for pane in PANES:
                drawn = _drawn(TopState(pane=pane), snapshot, width, height)
                self.assertNotIn("", [line.strip() for line in drawn])
                self.assertEqual(drawn[1:3], [f"warning: {one['text']}" for one in _ATTENTION])
                text = "\n".join(drawn)
                self.assertIn("[3] servers  16, 8 down or drained", text)
                self.assertIn("[2] routes  100", text)
                rows = re.findall(r"(web|api) +s(\d) +(\w+)", text)[:8]
                in_order = [(b, str(n), s) for s, n in wanted for b in ("web", "api")]
                self.assertEqual(rows, in_order, text)
        # A small screen gives it a fifth; the worst is the first that is whole.
        texts = (f"trouble {number} " + 9 * "and so on " for number in range(30))
        snapshot = _with([{"what": "x", "text": text} for text in texts])
        modes: list[Mode] = ["browse", "help"]
        for mode in modes:
            drawn = _drawn(TopState(mode=mode), snapshot)
            lines = [f"warning: trouble {n}{6 * ' and so on'}…" for n in range(3)]
            self.assertEqual(drawn[1:5], [*lines, "27 more: txmux status"])
            self.assertTrue(drawn[5].startswith("connections: 3 active"))
        trouble = [{"what": "x", "text": f"trouble {n} " + 20 * "and so on "} for n in range(3)]
        servers = [*_many({**SERVER, "state": "down"}, 4, "server"), *([SERVER] * 4)]
        drawn = _drawn(TopState(), _with(trouble, servers, connections=_many(CONNECTION)))
        self.assertEqual(sum(line.startswith("warning: ") for line in drawn), 3)
        self.assertEqual([line[:2] for line in drawn[1:6]], ["wa", "  ", "wa", "wa", "co"])
        self.assertEqual(sum("down" in line for line in drawn[6:]), 5)
        self.assertEqual(sum(line.startswith("192.0.2.1") for line in drawn), 4)

    @given(st.integers(60, 169), st.integers(40, 60), st.sampled_from(PANES), _COUNTS)
    def test_no_row_is_hidden_while_lines_are_blank(
        self, width: int, height: int, pane: Pane, counts: tuple[int, ...]
    ) -> None:
        connections, routes, servers, ends, troubles = counts
        snapshot = _with(
            _many({"what": "x"}, troubles, "text"),
            _many(SERVER, servers, "server"),
            connections=[{**CONNECTION, "client": f"c{n}", "id": n} for n in range(connections)],
            routes=[{**ROUTES[0], "name": f"r{n}"} for n in range(routes)],
            recent=[{**RECENT[0], "client": f"e{n}"} for n in range(ends)],
        )
        drawn = _drawn(TopState(pane=pane), snapshot, width, height)
        text = "\n".join(drawn)
        shown = [len(set(re.findall(rf"\b{kind}\d+\b", text))) for kind in "crset"]
        if any(not line.strip() for line in drawn):
            self.assertEqual(shown, [*counts], text)

    def test_what_is_too_long_is_folded_or_cut(self) -> None:
        calm = _with([])
        for width in (40, 80):
            drawn = _drawn(TopState(mode="help"), calm, width, 60)
            text = " ".join(" ".join(drawn).split())
            for keys, what in HELP:
                self.assertIn(what.rpartition(" ")[2], text)
                self.assertIn(keys, text)
            self.assertEqual(sum(line.endswith("…") for line in drawn[4:]), 1)
            last = [line for line in drawn if line.strip()][-2]
            scrolled = _drawn(TopState(mode="help", scrolled=1000), calm, width, 20)
            self.assertEqual(scrolled[-2], last)
        for letter, shown, width in (("x", 77, 80), ("語", 38, 79)):
            line = _drawn(TopState(mode="filter", typed=f"{letter * 100}z"), SNAPSHOT)[-1]
            self.assertEqual((line, cell_len(line)), (f"…{letter * shown}z_", width))
        state = TopState(mode="filter", typed="x" * 58)
        self.assertEqual(_drawn(state, SNAPSHOT)[-1], f"filter (Enter, Esc): {'x' * 58}_")
        self.assertEqual((sparkline([9, 0, 4, 8], 3), sparkline([0, 0], 5)), ("▁▄█", "▁▁"))
        self.assertEqual((sparkline([], 5), sparkline([1], 0)), ("", ""))
        state = TopState(mode="explanation", result=RequestResult(connection=_EXPLAINED))
        text = "\n".join(_drawn(state, SNAPSHOT))
        self.assertIn("…  match\n", text)
        self.assertIn("learnt    sni=\\x1b[2Jwww.example.com\n", text)
        self.assertIn("route\n          was sure", text)

    def test_colours_of_servers(self) -> None:
        states = {"down": "bold red", "drain": "yellow", "up": "green"}
        well = SERVERS[0]["check"]
        servers = [{**SERVER, "server": one, "state": one, "check": well} for one in states]
        servers.append({**SERVER, "server": "unknown"})
        lines = screen(TopState(), _with(servers=servers), 80, 45)
        of_web = [line for line in lines if line.plain.startswith("web ")]
        styles = {line.plain.split()[1]: str(line.style) for line in of_web}
        self.assertEqual(styles, {**states, "unknown": ""})

        attention = [{"level": level, "text": level} for level in ("critical", "warning", "note")]
        lines = screen(TopState(), _with(attention), 80, 24)[1:4]
        self.assertEqual([str(line.style) for line in lines], ["bold red", "yellow", "dim"])

    def test_rows_around_the_chosen_one(self) -> None:
        """In the pane that is looked at; another one shows its first rows."""
        rows = [{**CONNECTION, "id": f"1-{n}", "client": f"192.0.2.1:{n:05}"} for n in range(900)]
        state = TopState(chosen={"connections": ("1-444", 444)})
        snapshot = attrs.evolve(SNAPSHOT, connections=rows)
        lines = [(line.plain, str(line.style)) for line in screen(state, snapshot, 80, 24)]
        self.assertNotIn("192.0.2.1:00460", "\n".join(line for line, _ in lines))
        chosen = [line.partition(" ")[0] for line, style in lines if "reverse" in style]
        self.assertEqual([one for one in chosen if ":" in one], ["192.0.2.1:00444"])
        text = "\n".join(_drawn(attrs.evolve(state, pane="servers"), snapshot))
        self.assertIn("192.0.2.1:00000", text)
        title, *others = _drawn(TopState(), Snapshot())  # before the first answer
        self.assertEqual(title.strip(), "txmux")
        self.assertIn("waiting for the service", others)

    @given(
        st.integers(1, 250), st.integers(1, 80), st.sampled_from(PANES), st.sampled_from(_MODES),
        st.text(st.characters(), max_size=30),
    )  # fmt: skip
    @example(80, 24, "connections", "browse", "\x1b[31m\u202e\x07\x9b2J\n")
    @example(200, 60, "ends", "browse", "日本語" * 10)
    def test_any_size(self, width: int, height: int, pane: Pane, mode: Mode, text: str) -> None:
        hostile = {**CONNECTION, "client": text, "facts": {text: text}, "route": text, "id": text}
        said: dict[str, Any] = {"problem": text, "warnings": [text], "filters": {"route": text}}
        snapshot = _with(
            status={**STATUS, "version": text},
            connections=[hostile],
            recent=[{**hostile, "ended": 1.0, "reason": text, "duration_ms": 1.0}],
            routes=[{**SNAPSHOT.routes[0], "name": text}],
            backends=[{"name": text, "servers": [{**BACKENDS[0]["servers"][0], "why": text}]}],
            **said,
        )
        told = RequestResult(connection={**_EXPLAINED, "client": text, "facts": {text: text}})
        state = TopState(pane=pane, mode=mode, typed=text, result=told, sorts={pane: (0, True)})
        lines = _drawn(state, snapshot, width, height)
        self.assertEqual(len(lines), height)
        for line in [*lines, *text_of(snapshot)]:
            self.assertTrue(line.isprintable(), line)
        self.assertLessEqual(max(map(cell_len, lines)), width)
