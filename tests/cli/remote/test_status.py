import json
import time
from copy import deepcopy

from tests.cli.support import CommandTestCase, Terminal
from tests.support.changes import change_environment, set_wall_clock

_STARTED = 1795203607.25
"""2026-11-20T19:40:07 in UTC."""

_STATUS = {
    "version": "1.2.3", "pid": 4711, "started": _STARTED, "generation": 3,
    "workers": [
        {"worker": 1, "pid": 4712, "ready": True, "retiring": False, "sandbox": True, "generation": 3, "active": 10, "undecided": 1, "older": 4},
        {"worker": 2, "pid": 4713, "ready": True, "retiring": True, "sandbox": False, "generation": 2, "active": 2, "undecided": 0, "older": 2},
        {"worker": 3, "pid": 4714, "ready": False, "retiring": False},
        {"worker": 4, "pid": 4715, "ready": True, "retiring": False},
    ],
    "listeners": [
        {"name": "public", "addresses": ["0.0.0.0:443", "[::]:443"], "accepting": True},
        {"name": "other", "addresses": ["unix:/run/x.sock"], "accepting": False},
    ],
    "connections": {
        "active": 12, "undecided": 1, "total": 4711,
        "unrouted": {"ended": 4000, "bytes_in": 20, "bytes_out": 5000}, "limit": 10000,
    },
    "attention": [
        {"level": "note", "what": "rules", "text": "the rules have changed on disk"},
        {
            "level": "critical", "what": "backend", "text": "backend db: no server can serve",
            "cause": "connection refused, 37 of 37 in 12 s", "since": _STARTED + 89925,
            "do": "txmux servers db",
        },
    ],
    "bans": {"active": 1500, "shared": "complete"},
    "rates": {"connections": 12.34, "bytes_in": 1234567.0, "bytes_out": 0.0},
    "last_reload": {"time": _STARTED + 60, "ok": True, "changes": "2 routes new (a, b), 1 changed (c), 1 gone (d); listener x opened; 31 connections keep older rules", "errors": []},
    "draining": False,
    "rules_path": "/etc/txmux/rules.ini",
    "rules_sha256": "b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c",
}  # fmt: skip

_SHOWN = """\
critical     backend db: no server can serve (connection refused, 37 of 37 in 12 s), for 1 min 15 s
             txmux servers db
note         the rules have changed on disk
txmux        1.2.3, process 4711
state        serves since 2026-11-20 19:40:07 UTC, for 1 d 1 h
rules        /etc/txmux/rules.ini, generation 3, sha256 b5bb9d8014a0
reload       2026-11-20 19:41:07 UTC: 2 routes new (a, b), 1 changed (c), 1 gone (d); listener x opened; 31 connections keep older rules
connections  12 active, 1 undecided, 4711 so far, at most 10000
rates        connections 12.3/s, bytes in 1.23 MB/s, bytes out 0 B/s
bans         1500, shared with other machines: complete

listener  address                state
public    0.0.0.0:443, [::]:443  accepts
other     unix:/run/x.sock       does not accept

route  to        active  matches      in    out
web    db             3       12  1.5 MB  300 B
-      no route       8   4.01 k    20 B   5 kB

backend  server         state        active  failed  why
db       10.0.0.2:5432  down              0       0  3 checks failed; last: tls
web      10.0.0.4:80    drained           1       0  drained by an operator
web      10.0.0.1:80    not checked       2      17  -
web      10.0.0.3:80    up                0       0  -

worker  process  state            sandbox  rules  active  undecided  older rules
1       4712     serves           yes      3          10          1            4
2       4713     retires          no       2           2          0            2
3       4714     starts           -        -           -          -            -
4       4715     does not answer  -        -           -          -            -
"""


_ROUTES = [
    {"name": "idle", "backend": "db", "matches": 0, "active": 0, "bytes_in": 0, "bytes_out": 0},
    {"name": "web", "backend": "db", "matches": 12, "active": 3, "bytes_in": 1500000, "bytes_out": 300},
]  # fmt: skip


def _server(address: str, state: str, **more: object) -> dict[str, object]:
    return {"server": address, "state": state, "active": 0, "failed": 0, **more}


_WEB = [
    _server("10.0.0.1:80", "up", active=2, failed=17),
    _server("10.0.0.3:80", "up", check={"ok": True}),
    _server("10.0.0.4:80", "drain", active=1, why="drained by an operator"),
]
_DB = [_server("10.0.0.2:5432", "down", why="3 checks failed; last: tls")]


class StatusTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.environ.update(TZ="UTC", COLUMNS="80")
        self.addCleanup(time.tzset)
        change_environment(self, TZ="UTC")
        time.tzset()
        set_wall_clock(self, _STARTED + 90000)
        self.status = deepcopy(_STATUS)
        self.server = self.answering(document=self.status)
        self.backends: list[object] = []
        self.server.others["/api/backends"] = self.backends
        self.routes: list[object] = []
        self.server.others["/api/routes"] = self.routes

    def test_shown(self) -> None:
        self.backends += [{"name": "web", "servers": _WEB}, {"name": "db", "servers": _DB}]
        self.routes += _ROUTES
        self.assertEqual(self.ask("status"), (0, _SHOWN, ""))
        self.assertEqual(
            [(asked.method, asked.path, asked.body) for asked in self.server.asked],
            [("GET", f"/api/{name}", None) for name in ("status", "routes", "backends")],
        )
        self.server.headers["Txmux-Missing"] = "worker 2: no answer"
        warning = "warning: the answer is not complete: worker 2: no answer\n"
        self.assertEqual(self.ask("status"), (0, _SHOWN, warning))

    def test_check(self) -> None:
        """A line of plugins for Nagios with its exit code; what monitoring reads says why it cannot ask, as NRPE has no error output."""
        self.status["connections"] = {"active": 3, "undecided": 1, "total": 70, "limit": 9}
        counts = "active=3;;;0;9 undecided=1;;;0 total=70c;;;0"
        bad = {"level": "critical", "what": "x", "text": "a|b is gone", "cause": "why"}
        for items, code, line in (
            ([], 0, f"OK: nothing needs attention | {counts} critical=0;;;0 warning=0;;;0 note=0;;;0\n"),
            ([bad], 2, f"CRITICAL: a/b is gone (why) | {counts} critical=1;;;0 warning=0;;;0 note=0;;;0\n"),
        ):  # fmt: skip
            self.status["attention"] = items
            self.assertEqual(self.ask("status", "--check"), (code, line, ""))
        self.assertEqual(self.ask("status")[0], 0)
        self.server.document, self.server.status = {"error": "no"}, 403
        self.assertEqual(self.ask("status", "--check"), (3, "UNKNOWN: no\n", ""))
        self.server.document, self.server.status = {"a": 1}, 200
        for option, why in (
            (["--admin=unix:/nowhere"], "/nowhere"), (["--token-file=/nowhere"], "/nowhere"),
            ([], "^what answers .*is not txmux.*\n$"),
        ):  # fmt: skip
            code, out, err = self.ask("status", "--check", *option)
            self.assertEqual((code, out[:9], err), (3, "UNKNOWN: ", ""))
            self.assertRegex(out[9:], why)

    def test_found_addresses(self) -> None:
        found = [{"address": "10.0.0.1:80", "state": "up"}, {"address": "b", "state": "down"}]
        servers = [_server("consul:web", "up", addresses=found), _server("10.0.0.1:80", "up")]
        self.backends.append({"name": "web", "servers": servers})
        for command, after in (("status", "\n"), ("servers", "")):
            _, out, _ = self.ask(command)
            self.assertIn(f"\nweb      consul:web  b (down), 10.0.0.1:80\n{after}", out)
            self.assertEqual(out.count("\n\nbackend  server "), 1 + (command == "status"))

    def test_many_servers_are_left_to_their_own_command(self) -> None:
        servers = [_server(f"10.0.0.{n}:80", "down" if n == 25 else "up") for n in range(1, 26)]
        self.backends.append({"name": "web", "servers": servers})
        _, out, _ = self.ask("status")
        _, first, *lines = out.partition("\nbackend  server")[2].splitlines()
        self.assertEqual(first.split(), ["web", "10.0.0.25:80", "down", "0", "0"])
        self.assertEqual(lines[19], "and 5 more: txmux servers")
        self.server.others["/api/backends?backend=web"] = self.backends
        _, out, _ = self.ask("servers", "web")
        self.assertEqual(len(out.splitlines()), 1 + 25)

    def test_json_and_missing_fields(self) -> None:
        self.assertEqual(json.loads(self.told(0, self.ask("status", "--json"))), self.status)
        # No servers, or no such backend.
        self.assertEqual(self.ask("servers"), (0, "there are no servers\n", ""))
        why = "there is no backend 'wbe'; did you mean 'web'?"
        self.server.others["/api/backends?backend=wbe"] = 404, {"error": why}
        self.assertEqual(self.ask("servers", "wbe"), (1, "", f"{why}\n"))
        # Missing fields of another version are left out.
        self.server.document = {"pid": 1, "connections": {"active": 0, "limit": 0}, "listeners": [{"name": "a", "endpoints": [":443"]}], "more": [1]}  # fmt: skip
        told = (
            "txmux        ?, process 1\nstate        serves\nrules        ?\nconnections  0 active\n\n"
            "listener  address\na         :443\n"
        )
        self.assertEqual(self.ask("status"), (0, told, ""))

    def on_terminal(self) -> str:
        change_environment(self, **self.environ, TERM="xterm", NO_COLOR="")
        return self.told(0, self.run_main("status", out=Terminal()))

    def test_on_a_terminal(self) -> None:
        # Of 80 columns.
        folded = "1 changed (c), 1 gone\n             (d); listener x opened;"
        self.assertIn(folded, self.on_terminal())
        # With colours, without control characters.
        self.status["rules_path"] = "/etc/\x1b[2Jrules.ini"
        shown = self.on_terminal()
        self.assertIn("/etc/\\x1b[2Jrules.ini", shown)
        self.assertRegex(shown, "\x1b\\[1;31m.*does not answer")
        # A failed reload has all errors.
        error = "/etc/txmux/rules.ini:12: [route redis] match: unknown matcher 'redsi'; did you mean 'redis'?"
        last = {"time": _STARTED, "ok": False, "changes": "", "errors": [error] * 2}
        self.status |= {"last_reload": last, "draining": True, "started": _STARTED + 90000 - 61}
        _, out, _ = self.ask("status")
        reload = "reload       2026-11-20 19:40:07 UTC: FAILED, nothing has changed\n"
        self.assertIn(reload + 2 * f"             {error}\n", out)
        state = "state        stops; served since 2026-11-21 20:39:06 UTC, for 1 min 1 s\n"
        self.assertIn(state, out)
