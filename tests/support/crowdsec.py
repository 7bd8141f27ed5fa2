import json
from typing import Any

from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.support.peers import reactor
from tests.support.ports import free_port

KEY = "a0b1c2d3e4f5"


class CrowdSecPlayed(Resource):
    """Answers bouncers.

    Attributes:
        new: What the next answer tells.
        asked: The queries that came, by their first value of ``startup``.
        wrong: What is answered instead: a status, a text, or ``None``.
    """

    isLeaf = True

    def __init__(self, case: TestCase) -> None:
        super().__init__()
        self.new: list[Any] | None = None
        self.deleted: list[Any] | None = None
        self.asked: list[str] = []
        self.wrong: int | str | None = None
        # Nobody else gets it while nobody listens there.
        self.number = free_port("127.0.0.1")
        self._port: IListeningPort = reactor.listenTCP(
            self.number, Site(self, timeout=None), interface="127.0.0.1"
        )
        case.addCleanup(self.leave)
        self.url = f"http://127.0.0.1:{self.number}"

    def leave(self) -> Any:
        return self._port.stopListening()

    def come_back(self) -> None:
        port: Any = self._port
        port.port = self.number
        port.startListening()

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
