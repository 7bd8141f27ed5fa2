import json
import sys
import threading
from typing import Any
from unittest.mock import patch

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.remote.answering import Answering
from tests.control.test_hostile_answers import ANSWERS, CELLS, MESSAGES, PlayedWorker
from tests.features.top.snapshot import CONNECTIONS, RECENT, ROUTES
from tests.support.everything import BACKENDS, STATUS, names
from tests.support.kit import PATIENCE, CommandTestCase, Terminal, change_constants
from txmux.cli.remote.errors import NoServiceError
from txmux.control.connections import find_connection
from txmux.features.top.polling import Polling, fetch_snapshot
from txmux.features.top.state import ChangeRequest, RequestResult, TopState
from txmux.features.top.view import screen

_SHOWN = r"""
connections: 3 active, 1 undecided, 4 so far, at most 100
rates: connections [\d.]+/s, bytes in [\d.]+ B/s, bytes out 0 B/s

connections: 3
client           listener  route  server          state           age +idle +in  out  id      facts
192\.0\.2\.1:50001  public    site   127\.0\.0\.1:8080  relaying  1 h 2 min .* 11 B  0 B  5f3a-1  proxy_peer=.*
"""


class OnceTests(CommandTestCase):
    def top(self, query: str = "limit=1000") -> Answering:
        server = self.answering(document={"error": "not this"})
        server.others = {
            "/api/status": STATUS, "/api/routes": ROUTES, "/api/backends": BACKENDS,
            "/api/recent": RECENT, f"/api/connections?{query}": CONNECTIONS,
        }  # fmt: skip
        return server

    def test_all_panes_as_plain_text_or_json_with_filters(self) -> None:
        server = self.top("route=site&client=10.0.0.0%2F8&limit=1000")
        out = self.told(0, self.ask("top", "--json", "route=site", "--client", "10.0.0.0/8"))
        wanted = {"status": STATUS, "routes": ROUTES, "backends": BACKENDS}
        self.assertEqual(json.loads(out), {**wanted, "connections": CONNECTIONS, "recent": RECENT})
        server.others["/api/connections?limit=1000"] = CONNECTIONS
        out = self.told(0, self.ask("top"))
        title, _, rest = out.partition("\n")
        pattern = r"^txmux \S+ · process 4711 · 1 worker · serves for .* · /etc/txmux/rules\.ini, "
        self.assertRegex(title, pattern)
        self.assertRegex(rest, _SHOWN)
        for head in ("routes: 2", "servers: 2", "recent ends: 1"):
            self.assertIn(f"\n\n{head}\n", rest)
        for name in names():
            self.assertIn(name, rest)
        for count, more in ((20, "\n"), (21, "\nand 1 more\n")):
            rows = [{**CONNECTIONS[0], "id": f"1-{number}"} for number in range(count)]
            server.others["/api/connections?limit=1000"] = rows
            self.assertIn(f"{more}\nroutes: 2\n", self.ask("top", "--once")[1])

    def test_exit_codes_of_the_other_commands(self) -> None:
        self.assertEqual(self.ask("top")[0], 3)
        change_constants(self, sys, stdin=Terminal())
        code, _, err = self.run_main("top", out=Terminal())
        self.assertEqual(code, 3, err)
        self.top().headers["Txmux-Missing"] = "worker 2 has not answered"
        code, _, err = self.ask("top", "colour=b")
        self.assertEqual((code, err.partition(";")[0]), (2, "txmux: 'colour=b' is not a filter"))
        out = self.told(0, self.ask("top", "--once"))
        self.assertEqual(out.count("the answer is not complete: worker 2 has not answered\n"), 1)

    def test_rich_is_missing(self) -> None:
        gone = [name for name in sys.modules if name.startswith(("txmux.features.top", "rich."))]
        with patch("sys.stdin", Terminal()), patch.dict("sys.modules", {"rich": None}):
            for name in gone:
                del sys.modules[name]
            code, _, err = self.run_main("top", out=Terminal())
        self.assertEqual((code, "pip install 'txmux[cli]', or use --once\n" in err), (1, True), err)


class WishTests(SynchronousTestCase):
    def told(self, answer: Any) -> RequestResult:
        def ask(*_: object, **__: object) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        ready = threading.Event()
        polling = Polling(ask, ready.set)
        polling.send(ChangeRequest("/api/connections/1-1/close", {}, "close it"))
        self.assertTrue(ready.wait(PATIENCE))
        found = polling.news.get()
        self.assertIsInstance(found, RequestResult)
        return found  # type: ignore[return-value]

    def test_changes_of_the_answer_or_no_service(self) -> None:
        self.assertEqual(self.told({"changes": "a\x07b"}).message, r"a\x07b")
        self.assertEqual(self.told({}), RequestResult("close it"))
        found = self.told(NoServiceError("gone\nfar"))
        self.assertEqual(found, RequestResult("gone far", is_bad=True))
        others: tuple[Any, ...] = ([], None, 5)
        for other in others:
            told = self.told(other)
            self.assertTrue(told.is_bad)
            self.assertIn("is not txmux", told.message)


class ScreenTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.played = PlayedWorker(self)

    def view(self) -> None:
        snapshot = fetch_snapshot(self.played.ask, {})
        screen(TopState(), snapshot, 170, 60)
        for row in self.played.result(find_connection(self.played.control, "1-1")):
            chosen = RequestResult(connection=json.loads(json.dumps(row)))
            screen(TopState(mode="explanation", result=chosen), snapshot, 80, 25)

    @given(ANSWERS, MESSAGES, CELLS)
    def test_screen(
        self, answers: dict[str, Any], sent: list[tuple[str, dict[str, Any]]], cells: list[int]
    ) -> None:
        self.played.answer(answers, sent, cells, self.view)
