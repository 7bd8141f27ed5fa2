"""Polls the service each second, and sends the user's requests, in threads."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from typing import Any
from urllib.parse import quote, urlencode

import attrs

from txmux.cli.remote.errors import NoServiceError, ServiceRefusedError, of_txmux
from txmux.errors import printable
from txmux.features.top.state import ExplainRequest, RequestResult, Snapshot, TopRequest

_PERIOD = 1.0
_HISTORY = 300  # rates
_NOT_TXMUX = "what answers is not txmux; name another endpoint"
_MOST = 1000  # connections to list; more would cost the service time, and are not read


def fetch_snapshot(ask: Callable[..., Any], filters: Mapping[str, str]) -> Snapshot:
    warnings: list[str] = []

    def get(path: str) -> Any:
        return ask("GET", path, warn=warnings.append)

    def listed(path: str) -> Any:
        rows = get(path)
        if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise NoServiceError(_NOT_TXMUX)
        return rows

    query = urlencode({**filters, "limit": str(_MOST)})
    status = get("/api/status")
    if not isinstance(status, dict):
        raise NoServiceError(_NOT_TXMUX)
    return Snapshot(
        status=status,
        routes=listed("/api/routes"),
        backends=listed("/api/backends"),
        connections=listed(f"/api/connections?{query}"),
        recent=listed("/api/recent"),
        warnings=tuple(dict.fromkeys(warnings)),
        filters=filters,
        at=time.time(),
    )


class Polling:
    """Asks in threads of its own, until the program ends, so that keys work while an answer is late; calls `ready` in another thread when there are `news`."""

    def __init__(self, ask: Callable[..., Any], ready: Callable[[], object]) -> None:
        self.news: SimpleQueue[Snapshot | RequestResult] = SimpleQueue()
        self._ask, self._ready = ask, ready
        self._filters: Mapping[str, str] = {}
        self._at_once = threading.Event()
        self._last = Snapshot()
        self._history: deque[Mapping[str, float]] = deque(maxlen=_HISTORY)

    def start(self, filters: Mapping[str, str]) -> None:
        self._filters = filters
        threading.Thread(target=self._poll, daemon=True).start()

    def want(self, filters: Mapping[str, str]) -> None:
        if filters != self._filters:
            self._filters = filters
            self._at_once.set()

    def send(self, request: TopRequest) -> None:
        threading.Thread(target=self._send, args=[request], daemon=True).start()

    def _poll(self) -> None:
        while True:
            began = time.monotonic()
            self._at_once.clear()
            self._report(self._snapshot())
            self._at_once.wait(max(0.1, _PERIOD - (time.monotonic() - began)))

    def _snapshot(self) -> Snapshot:
        try:
            snapshot = fetch_snapshot(self._ask, self._filters)
        except (NoServiceError, ServiceRefusedError) as problem:
            why = f"trying again: {printable(' '.join(str(problem).splitlines()))}"
            return attrs.evolve(self._last, problem=why)
        self._history.append(snapshot.status.get("rates") or {})
        self._last = attrs.evolve(snapshot, history=tuple(self._history))
        return self._last

    def _send(self, request: TopRequest) -> None:
        self._report(self._answer_to(request))
        self._at_once.set()

    def _answer_to(self, request: TopRequest) -> RequestResult:
        try:
            with of_txmux():
                if isinstance(request, ExplainRequest):
                    path = f"/api/connections/{quote(request.identity, safe='')}"
                    return RequestResult(connection=self._ask("GET", path, warn=_ignore))
                answer = self._ask("POST", request.path, dict(request.body), warn=_ignore)
                return RequestResult(printable(str(answer.get("changes", request.what))))
        except (NoServiceError, ServiceRefusedError) as problem:
            return RequestResult(printable(" ".join(str(problem).splitlines())), is_bad=True)

    def _report(self, news: Snapshot | RequestResult) -> None:
        self.news.put(news)
        self._ready()


def _ignore(_: str) -> None:
    pass  # the next snapshot has the warning, too
