"""Asking the service while the screen goes on."""

from __future__ import annotations

import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.cli.remote.errors import NoServiceError
from txmux.cli.top.polling import Polling
from txmux.cli.top.state import ChangeRequest, RequestResult


class WishTests(SynchronousTestCase):
    """What became of a wish."""

    def told(self, answer: Any) -> RequestResult:
        """Send a wish that is answered so."""

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

    def test_answers(self) -> None:
        """What it has changed, in one line; or else what was wished for, is told to be done."""
        self.assertEqual(self.told({"changes": "a\x07b"}).message, r"a\x07b")
        self.assertEqual(self.told({}), RequestResult("close it"))

    def test_problems(self) -> None:
        """Nobody answers, or somebody else: that is told, too."""
        self.assertEqual(
            self.told(NoServiceError("gone\nfar")), RequestResult("gone far", is_bad=True)
        )
        others: tuple[Any, ...] = ([], None, 5)
        for other in others:
            told = self.told(other)
            self.assertTrue(told.is_bad)
            self.assertIn("is not txmux", told.message)
