"""Asking the service while the screen goes on: each second how it is, and whatever somebody wants of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import attrs

from txmux.cli.remote.errors import NobodyError, OrderRefusedError, of_txmux
from txmux.cli.top.state import Explain, Sent, Snapshot, WishResult
from txmux.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Polling", "look"]

_PERIOD = 1.0
_HISTORY = 300  # rates
_NOT_TXMUX = "what answers is not txmux; name another endpoint"
_MOST = 1000
"""Connections that are asked for; more are not read, and cost the service time."""


def look(ask: Callable[..., Any], filters: Mapping[str, str]) -> Snapshot:
    """Ask for all that is shown.

    Args:
        ask: See `txmux.cli.remote.command.run`.
        filters: Which connections are wanted.
    """
    warnings: list[str] = []

    def get(path: str) -> Any:
        return ask("GET", path, warn=warnings.append)

    def listed(path: str) -> Any:
        found = get(path)
        if not (isinstance(found, list) and all(isinstance(one, dict) for one in found)):
            raise NobodyError(_NOT_TXMUX)
        return found

    query = urlencode({**filters, "limit": str(_MOST)})
    status = get("/api/status")
    if not isinstance(status, dict):
        raise NobodyError(_NOT_TXMUX)
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
    """Asks in threads of its own, so that keys are obeyed while an answer is late.

    Args:
        ask: Asks one question.
        ready: Called in another thread when there is something in `news`.

    Attributes:
        news: What has come: snapshots, and what became of wishes.
    """

    def __init__(self, ask: Callable[..., Any], ready: Callable[[], object]) -> None:
        self.news: SimpleQueue[Snapshot | WishResult] = SimpleQueue()
        self._ask, self._ready = ask, ready
        self._filters: Mapping[str, str] = {}
        self._at_once = threading.Event()
        self._is_over = False
        self._last = Snapshot()
        self._history: deque[Mapping[str, float]] = deque(maxlen=_HISTORY)

    def start(self, filters: Mapping[str, str]) -> None:
        """Begin."""
        self._filters = filters
        threading.Thread(target=self._poll, daemon=True).start()

    def stop(self) -> None:
        """Ask no more."""
        self._is_over = True
        self._at_once.set()

    def want(self, filters: Mapping[str, str]) -> None:
        """Ask for these connections from now on."""
        if filters != self._filters:
            self._filters = filters
            self._at_once.set()

    def send(self, wish: Sent) -> None:
        """Ask for something, and tell in `news` what came of it."""
        threading.Thread(target=self._send, args=[wish], daemon=True).start()

    def _poll(self) -> None:
        while not self._is_over:
            began = time.monotonic()
            self._at_once.clear()
            self._tell(self._look())
            self._at_once.wait(max(0.1, _PERIOD - (time.monotonic() - began)))

    def _look(self) -> Snapshot:
        try:
            found = look(self._ask, self._filters)
        except (NobodyError, OrderRefusedError) as problem:
            why = f"trying again: {printable(' '.join(str(problem).splitlines()))}"
            return attrs.evolve(self._last, problem=why)
        self._history.append(found.status.get("rates") or {})
        self._last = attrs.evolve(found, history=tuple(self._history))
        return self._last

    def _send(self, wish: Sent) -> None:
        self._tell(self._done(wish))
        self._at_once.set()

    def _done(self, wish: Sent) -> WishResult:
        try:
            with of_txmux():
                if isinstance(wish, Explain):
                    path = f"/api/connections/{quote(wish.identity, safe='')}"
                    return WishResult(connection=self._ask("GET", path, warn=_overlook))
                answer = self._ask("POST", wish.path, dict(wish.body), warn=_overlook)
                return WishResult(printable(str(answer.get("changes", wish.what))))
        except (NobodyError, OrderRefusedError) as problem:
            return WishResult(printable(" ".join(str(problem).splitlines())), is_bad=True)

    def _tell(self, news: Snapshot | WishResult) -> None:
        self.news.put(news)
        self._ready()


def _overlook(_: str) -> None:
    """The next snapshot says it, too."""
