"""What workers say that an intruder has taken over, as `txmux top` shows it."""

import json
from typing import Any

from hypothesis import given

from tests.control.test_hostile_answers import ANSWERS, CELLS, MESSAGES, ViewsCase
from txmux.control.connections import find_connection
from txmux.features.top.polling import fetch_snapshot
from txmux.features.top.state import RequestResult, TopState
from txmux.features.top.view import screen


class ScreenTest(ViewsCase):
    def view(self) -> None:
        control = self.control
        for coroutine in (control.sample(), control.look(), control.missing()):
            self.result(coroutine)
        snapshot = fetch_snapshot(self.ask, {})
        screen(TopState(), snapshot, 170, 60)
        for row in self.result(find_connection(control, "1-1")):
            chosen = RequestResult(connection=json.loads(json.dumps(row)))
            screen(TopState(mode="explanation", result=chosen), snapshot, 80, 25)

    @given(ANSWERS, MESSAGES, CELLS)
    def test_screen(
        self, answers: dict[str, Any], sent: list[tuple[str, dict[str, Any]]], cells: list[int]
    ) -> None:
        self.answer(answers, sent, cells)
