import json
import threading
from typing import Any

from hypothesis import given
from twisted.trial.unittest import SynchronousTestCase

from tests.control.test_hostile_answers import ANSWERS, CELLS, MESSAGES, PlayedWorker
from tests.interop.children import PATIENCE
from txmux.cli.remote.errors import NoServiceError
from txmux.control.connections import find_connection
from txmux.features.top.polling import Polling, fetch_snapshot
from txmux.features.top.state import ChangeRequest, RequestResult, TopState
from txmux.features.top.view import screen


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

    def test_changes_of_the_answer_or_the_request_itself(self) -> None:
        self.assertEqual(self.told({"changes": "a\x07b"}).message, r"a\x07b")
        self.assertEqual(self.told({}), RequestResult("close it"))

    def test_no_service_or_another_one(self) -> None:
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
