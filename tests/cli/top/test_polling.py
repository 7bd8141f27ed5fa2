from __future__ import annotations

import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.cli.remote.errors import NoServiceError, ServiceRefusedError
from txmux.cli.top.polling import Polling, fetch_snapshot
from txmux.cli.top.state import ChangeRequest, RequestResult


class SnapshotTests(SynchronousTestCase):
    def test_filter_by_a_name_that_is_gone(self) -> None:
        def ask(_: str, path: str, **__: object) -> Any:
            if path.startswith("/api/connections?"):
                raise ServiceRefusedError(["there is no route 'a'"], 404, {})
            return {} if path == "/api/status" else [{"path": path}]

        found = fetch_snapshot(ask, {"route": "a"}, is_lenient=True)
        self.assertEqual((found.problem, found.connections), ("there is no route 'a'", []))
        self.assertEqual(found.routes, [{"path": "/api/routes"}])
        self.assertRaises(ServiceRefusedError, fetch_snapshot, ask, {"route": "a"})


class WishTests(SynchronousTestCase):
    def told(self, answer: Any) -> RequestResult:
        def ask(*_: object, **__: object) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        ready = threading.Event()
        polling = Polling(ask, ready.set)
        polling.send(ChangeRequest("/api/connections/1-1/close", {}, "close it"))
        self.assertTrue(ready.wait(60))
        found = polling.news.get()
        self.assertIsInstance(found, RequestResult)
        return found  # type: ignore[return-value]

    def test_changes_of_the_answer_or_the_request_itself(self) -> None:
        self.assertEqual(self.told({"changes": "a\x07b"}).message, r"a\x07b")
        self.assertEqual(self.told({}), RequestResult("close it"))

    def test_no_service_or_another_one(self) -> None:
        self.assertEqual(
            self.told(NoServiceError("gone\nfar")), RequestResult("gone far", is_bad=True)
        )
        others: tuple[Any, ...] = ([], None, 5)
        for other in others:
            told = self.told(other)
            self.assertTrue(told.is_bad)
            self.assertIn("is not txmux", told.message)
