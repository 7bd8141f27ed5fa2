import json
from typing import Any

from twisted.trial.unittest import TestCase
from twisted.web.server import NOT_DONE_YET

from tests.support.played import Played

KEY = "a0b1c2d3e4f5"


class CrowdSecPlayed(Played):
    """Answers bouncers.

    Attributes:
        new: What the next answer tells.
        asked: The queries that came, by their first value of ``startup``.
        wrong: What is answered instead: a status, a text, or ``None``.
    """

    def __init__(self, case: TestCase) -> None:
        super().__init__(case)
        self.new: list[Any] | None = None
        self.deleted: list[Any] | None = None
        self.asked: list[str] = []
        self.wrong: int | str | None = None

    def render(self, request: Any) -> Any:
        self.asked.append(request.args[b"startup"][0].decode())
        if request.getHeader("X-Api-Key") != KEY:
            request.setResponseCode(403)
            return b'{"message":"access forbidden"}'
        if isinstance(self.wrong, int):
            request.setResponseCode(self.wrong)
            return b"{}"
        if self.wrong == "silent":
            return NOT_DONE_YET
        if isinstance(self.wrong, str):
            return self.wrong.encode()
        assert request.path == b"/v1/decisions/stream"
        return json.dumps({"new": self.new, "deleted": self.deleted}).encode()
