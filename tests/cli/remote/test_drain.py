import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from tests.cli.remote.answering import Answering
from tests.support.kit import CommandTestCase, change_constants
from txmux.cli.remote import changes

_BACKENDS: dict[str, list[dict[str, Any]]] = {
    "other": [{"server": "10.0.0.9:1", "state": "up"}, {"server": "b", "state": "disabled"}],
    "web": [
        {"server": "10.0.0.5:8443", "state": "up", "active": 1},
        {"server": "unix:/run/a.sock", "state": "down", "active": 2},
    ],
}


def knows(server: Answering, *names: str, **backends: Sequence[Mapping[str, Any]]) -> None:
    """Have a service know these backends, by what it answers; those with servers are reported."""
    server.others["/api/backends*"] = 404, {"error": "there is no such backend"}
    for name in (*names, *backends):
        path = f"/api/backends/{quote(name, safe='')}"
        server.others[f"{path}/servers/*"] = 404, {"error": f"backend {name} has no such server"}
        server.others[path] = {"ok": True, "changes": "done"}
    for name, rows in backends.items():
        for row in rows:
            path = f"/api/backends/{quote(name, safe='')}/servers/{quote(row['server'], safe='')}"
            server.others[path] = {"ok": True, "changes": "done"}
        server.others[f"/api/backends?backend={name}"] = [{"name": name, "servers": rows}]


class DrainTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.answering(document={"ok": True, "changes": "done"})
        knows(self.server, **_BACKENDS)

    def asked(self, *words: str) -> list[tuple[str, str, object]]:
        """Return what was asked, and answered with something."""
        self.server.asked.clear()
        self.assertEqual(self.ask(*words), (0, "done\n", ""))
        return [(one.method, one.path, one.body) for one in self.server.asked]

    def test_one_request(self) -> None:
        # For one server: the service may have thousands of others.
        for option, state in (
            ([], "drain"), (["--maintenance"], "maintenance"), (["--ready"], "ready"),
        ):  # fmt: skip
            wanted = {"state": state, "close_connections": False}
            path = "/api/backends/web/servers/unix%3A%2Frun%2Fa.sock"
            asked = self.asked("drain", *option, "web/unix:/run/a.sock")
            self.assertEqual(asked, [("POST", path, wanted)])
        # For a backend.
        change = "POST", "/api/backends/web", {"state": "drain", "close_connections": True}
        self.assertEqual(self.asked("drain", "--close", "web"), [change])
        # Unknown names are refused as the service says.
        no_backend, no_server = "there is no such backend\n", "backend web has no such server\n"
        for name in ("wed", "wed/10.0.0.5:8443", "webs", "/"):
            self.assertEqual(self.ask("drain", name), (1, "", no_backend))
        self.assertEqual(self.ask("drain", "web/a/b"), (1, "", no_server))
        code, out, _ = self.ask("drain", "--json", "wed")
        self.assertEqual((code, json.loads(out)), (1, {"error": no_backend.rstrip()}))
        self.assertEqual(self.ask("drain", "--ready", "--maintenance", "web")[0], 2)
        self.assertEqual(self.ask("drain")[0], 2)
        self.server.others["/api/backends/web"] = {"ok": False, "errors": ["b: refused"]}
        self.assertEqual(self.ask("drain", "web"), (1, "", "b: refused\n"))

    def test_backend_names_with_slashes(self) -> None:
        sock = "unix:/run/a.sock"
        knows(self.server, "unix:/run", "a/b", **{sock: [{"server": sock}]}, a=[{"server": "b/c"}])
        quoted, folder = "unix%3A%2Frun%2Fa.sock", "unix%3A%2Frun"
        done = {"ok": True, "changes": "done"}
        self.server.others[f"/api/backends/{folder}/servers/b.sock"] = done
        for name, path in (
            (sock, quoted), (f"{sock}/{sock}", f"{quoted}/servers/{quoted}"), ("unix:/run", folder),
            ("unix:/run/b.sock", f"{folder}/servers/b.sock"), ("a/b", "a%2Fb"),
            ("a/b/c", "a/servers/b%2Fc"),
        ):  # fmt: skip
            with self.subTest(name):
                *_, asked = self.asked("drain", "--ready", name)
                self.assertEqual(asked[1], f"/api/backends/{path}")

    def test_wait_only_for_servers_that_drain_and_exist(self) -> None:
        self.assertEqual(self.ask("drain", "--wait", "--ready", "web")[0], 2)
        change_constants(self, changes, _PERIOD=0)
        web, end = "/api/backends?backend=web", "see them: txmux connections --backend web\n"
        for name, count in (("web", "3 connections"), ("web/10.0.0.5:8443", "1 connection")):
            idle = [{**server, "active": 0} for server in _BACKENDS["web"]]
            rows = [[{"name": "web", "servers": its}] for its in ([], idle)]
            for after in (*rows, (404, {"error": "removed"})):
                self.server.first[web] = [self.server.others[web]] * 2 + [after]
                told = f"waiting for {count} to end; {end}"
                self.assertEqual(self.ask("drain", "--wait", name), (0, "done\n", told))

    def test_weights_and_listeners(self) -> None:
        for name, weight, path, number in (
            ("web/unix:/run/a.sock", "7", "web/servers/unix%3A%2Frun%2Fa.sock", 7),
            ("web/10.0.0.5:8443", "0", "web/servers/10.0.0.5%3A8443", None),
            ("other/10.0.0.9:1", "default", "other/servers/10.0.0.9%3A1", None),
            ("other", "65535", "other/servers/10.0.0.9%3A1", 65535),
        ):
            *_, asked = self.asked("weight", name, weight)
            self.assertEqual(asked, ("POST", f"/api/backends/{path}", {"weight": number}))
        for command, accepting in (("pause", False), ("resume", True)):
            *_, asked = self.asked(command, "a b")
            self.assertEqual(asked, ("POST", "/api/listeners/a%20b", {"accepting": accepting}))
        for weight in ("65536", "-1", "x", "1.5", "\N{SUPERSCRIPT TWO}"):
            self.assertEqual(self.ask("weight", "--", "other", weight)[0], 2)
        err = self.told(2, self.ask("weight", "web", "2"))
        self.assertIn("several servers; name one of web/10.0.0.5:8443, web/unix:/run/a.sock\n", err)
        self.assertEqual(self.ask("weight", "wed", "2")[0], 1)

    def test_holds(self) -> None:
        server = {"server": "10.0.0.5:5432", "state": "up", "active": 0}
        backend = {"name": "db", "hold": {"until": None}, "servers": [server]}
        self.server.others["/api/backends?backend=db"] = [backend]
        self.server.others["/api/backends*"] = self.server.document
        path = "/api/backends/db"
        for words, body in (((), {}), (("--for", "5m"), {"seconds": 300}), (("--wait",), {})):
            posted = [one for one in self.asked("hold", "db", *words) if one[0] == "POST"]
            self.assertEqual(posted, [("POST", f"{path}/hold", body)])
        asked = self.asked("release", "unix:/run/a.sock")
        paths = [path for method, path, _ in asked if method == "POST"]
        self.assertEqual(paths, ["/api/backends/unix%3A%2Frun%2Fa.sock/release"])
        err = self.told(2, self.ask("hold", "db", "--for", "soon"))
        self.assertIn("'soon' is not a duration", err)
        self.assertEqual(self.ask("hold")[0], 2)
        # A hold that ends during the wait.
        busy = {**backend, "servers": [{**server, "active": 1}], "hold": {"until": 1.0}}
        change_constants(self, changes, _PERIOD=0)
        # Whether connections are left does not matter: others come.
        ended = {**backend, "hold": None}
        self.server.first["/api/backends?backend=db"] = [[busy], [busy], [busy], [ended]]
        err = self.told(1, self.ask("hold", "db", "--for", "1s", "--wait"))
        self.assertIn("backend db: its hold ended before its connections did", err)
