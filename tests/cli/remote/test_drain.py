"""Tests of ``txmux drain``."""

from __future__ import annotations

import json

from tests.cli.remote.answering import RemoteTestCase

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
    """What is asked for."""

    def setUp(self) -> None:
        """Start what answers."""
        super().setUp()
        self.server = self.answering(document={"ok": True, "changes": "done"})
        self.server.others["/api/backends"] = _BACKENDS

    def asked(self, *arguments: str) -> list[tuple[str, object]]:
        """Drain, and give what the service was told, and where."""
        self.server.asked.clear()
        code, out, err = self.ask("drain", *arguments)
        posts = [(one.path, one.body) for one in self.server.asked if one.method == "POST"]
        self.assertEqual((code, out, err), (0, "done\n" * len(posts), ""))
        return posts

    def test_server(self) -> None:
        """One server, in each state."""
        for option, state in (
            ([], "drain"),
            (["--maintenance"], "maintenance"),
            (["--ready"], "ready"),
        ):
            wanted = {"state": state, "close_connections": False}
            path = "/api/backends/web/servers/unix%3A%2Frun%2Fa.sock"
            self.assertEqual(self.asked(*option, "web/unix:/run/a.sock"), [(path, wanted)])

    def test_backend(self) -> None:
        """All servers of a backend but those that the rules call down, with the end of their connections."""
        wanted = {"state": "drain", "close_connections": True}
        paths = ["10.0.0.5%3A8443", "unix%3A%2Frun%2Fa.sock"]
        told = [(f"/api/backends/web/servers/{path}", wanted) for path in paths]
        self.assertEqual(self.asked("--close", "web"), told)

    def test_slashes(self) -> None:
        """The name of a backend may have slashes; of several that would do, the longest one is meant."""
        self.server.others["/api/backends"] = [
            {"name": name, "servers": [{"server": name, "state": "up"}]}
            for name in ("unix:/run", "unix:/run/a", "unix:/run/a.sock", "unix:")
        ]
        wanted = {"state": "ready", "close_connections": False}
        sock, folder = "unix%3A%2Frun%2Fa.sock", "unix%3A%2Frun"
        for name, path in (
            ("unix:/run/a.sock", f"{sock}/servers/{sock}"),
            ("unix:/run/a.sock/unix:/run/a.sock", f"{sock}/servers/{sock}"),
            ("unix:/run", f"{folder}/servers/{folder}"),
            ("unix:/run/b.sock", f"{folder}/servers/b.sock"),
        ):
            with self.subTest(name):
                self.assertEqual(self.asked("--ready", name), [(f"/api/backends/{path}", wanted)])

    def test_wrong(self) -> None:
        """A backend that is not there is refused, with or without a server, and those that there are are named."""
        for name in ("wed", "wed/10.0.0.5:8443", "webs", "/"):
            told = f"there is no backend {name!r} (there are other, web)\n"
            self.assertEqual(self.ask("drain", name), (1, "", told))
        code, out, _ = self.ask("drain", "--json", "wed")
        why = "there is no backend 'wed' (there are other, web)"
        self.assertEqual((code, json.loads(out)), (1, {"error": why}))
        self.assertEqual(self.ask("drain", "--ready", "--maintenance", "web")[0], 2)
        self.assertEqual(self.ask("drain")[0], 2)

    def test_partly(self) -> None:
        """If a server is refused after others were changed, these are told."""
        self.server.others["/api/backends/web/servers/10.0.0.5%3A8443"] = {"changes": "a: drain"}
        self.server.others["/api/backends/web/servers/unix%3A%2Frun%2Fa.sock"] = {
            "ok": False,
            "errors": ["b: refused"],
        }
        told = "b: refused\ndone before that: a: drain\n"
        self.assertEqual(self.ask("drain", "web"), (1, "", told))
        document = json.loads(self.ask("drain", "--json", "web")[1])
        self.assertEqual(document["done"], [{"changes": "a: drain"}])
        self.server.others["/api/backends/web/servers/unix%3A%2Frun%2Fa.sock"] = b"<html>"
        code, _, err = self.ask("drain", "web")
        self.assertEqual((code, "; done before that: a: drain\n" in err), (3, True), err)

    def test_wait(self) -> None:
        """It is not waited for servers that are to have connections again, nor for those that are gone."""
        self.assertEqual(self.ask("drain", "--wait", "--ready", "web")[0], 2)
        self.server.others["/api/backends"] = [{"name": "web", "servers": []}]
        self.assertEqual(self.ask("drain", "--wait", "web/10.0.0.5:8443"), (0, "done\n", ""))
