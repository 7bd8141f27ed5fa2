import json

from tests.cli.remote.answering import RemoteTestCase
from txmux.cli.remote import changes

_BACKENDS = [
    {"name": "other", "servers": [{"server": "10.0.0.9:1", "state": "up"}]},
    {
        "name": "web",
        "servers": [
            {"server": "10.0.0.5:8443", "state": "up"},
            {"server": "unix:/run/a.sock", "state": "down"},
            {"server": "10.0.0.7:8443", "state": "disabled"},
        ],
    },
]


class DrainTests(RemoteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.answering(document={"ok": True, "changes": "done"})
        self.server.others["/api/backends"] = _BACKENDS

    def asked(self, *arguments: str) -> list[tuple[str, object]]:
        self.server.asked.clear()
        code, out, err = self.ask("drain", *arguments)
        posts = [(one.path, one.body) for one in self.server.asked if one.method == "POST"]
        self.assertEqual((code, out, err), (0, "done\n" * len(posts), ""))
        return posts

    def test_each_state_of_one_server(self) -> None:
        for option, state in (
            ([], "drain"),
            (["--maintenance"], "maintenance"),
            (["--ready"], "ready"),
        ):
            wanted = {"state": state, "close_connections": False}
            path = "/api/backends/web/servers/unix%3A%2Frun%2Fa.sock"
            self.assertEqual(self.asked(*option, "web/unix:/run/a.sock"), [(path, wanted)])

    def test_backend_in_one_request(self) -> None:
        wanted = {"state": "drain", "close_connections": True}
        self.assertEqual(self.asked("--close", "web"), [("/api/backends/web", wanted)])

    def test_older_service_gets_a_request_for_each_server_that_is_not_down(self) -> None:
        self.server.others["/api/backends/web"] = (404, {"error": "there is nothing at this path"})
        wanted = {"state": "ready", "close_connections": False}
        paths = ["", "/servers/10.0.0.5%3A8443", "/servers/unix%3A%2Frun%2Fa.sock"]
        self.assertEqual(self.ask("drain", "--ready", "web"), (0, "done\ndone\n", ""))
        posts = [(one.path, one.body) for one in self.server.asked if one.method == "POST"]
        self.assertEqual(posts, [(f"/api/backends/web{path}", wanted) for path in paths])

    def test_longest_backend_name_with_slashes(self) -> None:
        self.server.others["/api/backends"] = [
            {"name": name, "servers": [{"server": name, "state": "up"}]}
            for name in ("unix:/run", "unix:/run/a", "unix:/run/a.sock", "unix:")
        ]
        wanted = {"state": "ready", "close_connections": False}
        sock, folder = "unix%3A%2Frun%2Fa.sock", "unix%3A%2Frun"
        for name, path in (
            ("unix:/run/a.sock", sock),
            ("unix:/run/a.sock/unix:/run/a.sock", f"{sock}/servers/{sock}"),
            ("unix:/run", folder),
            ("unix:/run/b.sock", f"{folder}/servers/b.sock"),
        ):
            with self.subTest(name):
                self.assertEqual(self.asked("--ready", name), [(f"/api/backends/{path}", wanted)])

    def test_unknown_backend_is_refused_with_those_there_are(self) -> None:
        for name in ("wed", "wed/10.0.0.5:8443", "webs", "/"):
            told = f"there is no backend {name!r} (there are other, web)\n"
            self.assertEqual(self.ask("drain", name), (1, "", told))
        code, out, _ = self.ask("drain", "--json", "wed")
        why = "there is no backend 'wed' (there are other, web)"
        self.assertEqual((code, json.loads(out)), (1, {"error": why}))
        self.assertEqual(self.ask("drain", "--ready", "--maintenance", "web")[0], 2)
        self.assertEqual(self.ask("drain")[0], 2)

    def test_refusal(self) -> None:
        self.server.others["/api/backends/web"] = {"ok": False, "errors": ["b: refused"]}
        self.assertEqual(self.ask("drain", "web"), (1, "", "b: refused\n"))

    def test_wait_only_for_servers_that_drain_and_exist(self) -> None:
        self.assertEqual(self.ask("drain", "--wait", "--ready", "web")[0], 2)
        busy = {"server": "10.0.0.5:8443", "state": "drain", "active": 1}
        self.server.first = {"/api/backends": [[{"name": "web", "servers": [busy]}]] * 3}
        told = "waiting for 1 connection to end; see them: txmux connections --backend web\n"
        self.server.others["/api/backends"] = [{"name": "web", "servers": []}]
        self.patch(changes, "_PERIOD", 0)
        self.assertEqual(self.ask("drain", "--wait", "web/10.0.0.5:8443"), (0, "done\n", told))
        self.assertEqual(self.ask("drain", "--wait", "web/10.0.0.5:8443"), (0, "done\n", ""))


class WeightTests(RemoteTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.answering(document={"ok": True, "changes": "done"})
        self.server.others["/api/backends"] = _BACKENDS

    def test_requests(self) -> None:
        for name, weight, path, number in (
            ("web/unix:/run/a.sock", "7", "web/servers/unix%3A%2Frun%2Fa.sock", 7),
            ("web/10.0.0.5:8443", "0", "web/servers/10.0.0.5%3A8443", None),
            ("other/10.0.0.9:1", "default", "other/servers/10.0.0.9%3A1", None),
            ("other", "65535", "other/servers/10.0.0.9%3A1", 65535),
        ):
            self.assertEqual(self.ask("weight", name, weight), (0, "done\n", ""))
            *_, asked = self.server.asked
            self.assertEqual(
                (asked.path, asked.body), (f"/api/backends/{path}", {"weight": number})
            )

    def test_wrong(self) -> None:
        for weight in ("65536", "-1", "x", "1.5", "\N{SUPERSCRIPT TWO}"):
            self.assertEqual(self.ask("weight", "--", "other", weight)[0], 2)
        code, _, err = self.ask("weight", "web", "2")
        self.assertEqual(code, 2)
        self.assertIn("several servers; name one of web/10.0.0.5:8443, web/unix:/run/a.sock\n", err)
        self.assertEqual(self.ask("weight", "wed", "2")[0], 1)

    def test_pause_and_resume(self) -> None:
        for command, accepting in (("pause", False), ("resume", True)):
            self.assertEqual(self.ask(command, "a b"), (0, "done\n", ""))
            *_, asked = self.server.asked
            self.assertEqual(
                (asked.path, asked.body), ("/api/listeners/a%20b", {"accepting": accepting})
            )
