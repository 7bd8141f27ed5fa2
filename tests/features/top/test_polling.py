import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE
from txmux.cli.remote.errors import NoServiceError
from txmux.features.top.polling import Polling
from txmux.features.top.state import ChangeRequest, RequestResult


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
        self.assertEqual(
            self.told(NoServiceError("gone\nfar")), RequestResult("gone far", is_bad=True)
        )
        others: tuple[Any, ...] = ([], None, 5)
        for other in others:
            told = self.told(other)
            self.assertTrue(told.is_bad)
            self.assertIn("is not txmux", told.message)
