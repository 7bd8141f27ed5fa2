from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.peers import reactor
from tests.support.ports import free_port


class Played(Resource):
    """A server of HTTP that a test plays: at a path, or at a port that nobody else gets while it is away.

    Attributes:
        streams: Requests that are not answered to the end, whose connections go with it.
    """

    isLeaf = True

    def __init__(self, case: TestCase, path: Path | None = None) -> None:
        super().__init__()
        self.streams: list[Any] = []
        self._path, self._number = path, 0 if path else free_port("127.0.0.1")
        self.url = f"unix:{path}" if path else f"http://127.0.0.1:{self._number}"
        self.listen()
        case.addCleanup(self.leave)

    def listen(self) -> None:
        site = Site(self, timeout=None)
        site.noisy = False
        if self._path:
            self._port = reactor.listenUNIX(str(self._path), site)
        else:
            self._port = reactor.listenTCP(self._number, site, interface="127.0.0.1")
        self.is_away = False

    async def leave(self) -> None:
        self.is_away = True
        await maybeDeferred(self._port.stopListening)
        self.cut()

    def cut(self) -> None:
        streams, self.streams = self.streams, []
        for request in streams:
            request.channel.transport.abortConnection()

    def keep(self, request: Any) -> None:
        self.streams.append(request)
        request.notifyFinish().addBoth(lambda _: self._ended(request))

    def _ended(self, request: Any) -> None:
        if request in self.streams:
            self.streams.remove(request)
