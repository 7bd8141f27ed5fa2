from typing import Any

from tests.cli.support import CommandTestCase
from tests.support.changes import change_constants
from txmux.cli.remote import changes

_BACKENDS: list[dict[str, Any]] = [
    {
        "name": "db",
        "hold": {"until": None},
        "servers": [{"server": "10.0.0.5:5432", "state": "up", "active": 0}],
    }
]


class HoldTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.answering(document={"ok": True, "changes": "done"})
        self.server.others["/api/backends?backend=db"] = _BACKENDS

    def asked(self, *words: str) -> list[tuple[str, object]]:
        self.server.asked.clear()
        self.assertEqual(self.ask(*words), (0, "done\n", ""))
        return [(one.path, one.body) for one in self.server.asked if one.method == "POST"]

    def test_requests(self) -> None:
        path = "/api/backends/db"
        self.assertEqual(self.asked("hold", "db"), [(f"{path}/hold", {})])
        self.assertEqual(
            self.asked("hold", "db", "--for", "5m"), [(f"{path}/hold", {"seconds": 300})]
        )
        self.assertEqual(self.asked("hold", "--wait", "db"), [(f"{path}/hold", {})])
        (released,) = self.asked("release", "unix:/run/a.sock")
        self.assertEqual(released[0], "/api/backends/unix%3A%2Frun%2Fa.sock/release")

    def test_hold_that_ends_during_the_wait(self) -> None:
        (db,) = _BACKENDS
        busy = {**db, "servers": [{**db["servers"][0], "active": 1}], "hold": {"until": 1.0}}
        change_constants(self, changes, _PERIOD=0)
        # Whether connections are left does not matter: others come.
        ended = {**db, "hold": None}
        self.server.first["/api/backends?backend=db"] = [[busy], [busy], [busy], [ended]]
        err = self.told(1, self.ask("hold", "db", "--for", "1s", "--wait"))
        self.assertIn("backend db: its hold ended before its connections did", err)

    def test_wrong_arguments(self) -> None:
        err = self.told(2, self.ask("hold", "db", "--for", "soon"))
        self.assertIn("'soon' is not a duration", err)
        self.assertEqual(self.ask("hold")[0], 2)
