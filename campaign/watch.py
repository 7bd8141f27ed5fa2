"""What a service says needs attention, second by second, while things are done to it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from txmux.cli.remote.ask import ask
from txmux.cli.remote.errors import NoServiceError, ServiceRefusedError
from txmux.cli.remote.find import AdminEndpoint
from txmux.telemetry.presentation import attention_verdict

_PERIOD = 0.5
_ANSWERS = 60.0
"""Seconds that an answer may take: the service may have a twentieth of a core."""


@attrs.define
class Item:
    text: str  # its level, its topic and its text
    began: float  # when it was first seen, as of ``time.monotonic()``
    last: float
    expected: bool  # something was done that it tells of


@attrs.frozen
class _Cause:
    pattern: re.Pattern[str]
    until: float = float("inf")


class Watch:
    """Asks a service for its status all along, in a thread of its own.

    Args:
        socket: Its admin socket; it need not be there yet.

    Attributes:
        items: What was seen, the oldest first. One that goes and comes again is there twice.
        codes: How often ``status --check`` would have ended with each code.
        longest: The longest that an answer took, in seconds.
        refused: Why there was no answer, by how often.
    """

    def __init__(self, socket: Path) -> None:
        self._endpoint = AdminEndpoint(socket, "", "the campaign")
        self.items: list[Item] = []
        self.codes: dict[int, int] = {}
        self.longest = 0.0
        self.refused: dict[str, int] = {}
        self._causes: list[_Cause] = []
        self._shown: dict[str, Item] = {}
        self._is_over, self._may_ask = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @contextmanager
    def expecting(self, *patterns: str, after: float = 15.0) -> Iterator[None]:
        """Do something of which items with such a text tell, meanwhile and for some seconds more."""
        causes = [_Cause(re.compile(pattern)) for pattern in patterns]
        self._causes += causes
        try:
            yield
        finally:
            until = time.monotonic() + after
            self._causes = [
                attrs.evolve(cause, until=until) if cause in causes else cause
                for cause in self._causes
            ]

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Ask nothing meanwhile: what is measured is without it."""
        with self._may_ask:
            yield

    def false_items(self) -> list[str]:
        """Return those that nothing was done for, with how long they lasted."""
        return [
            f"{item.text!r} for {item.last - item.began:.1f} s"
            for item in self.items
            if not item.expected
        ]

    def get(self, path: str) -> Any:
        return ask(self._endpoint, "GET", path, seconds=_ANSWERS, warn=lambda _: None)

    def post(self, path: str, body: object, seconds: float = 600.0) -> Any:
        return ask(self._endpoint, "POST", path, body, seconds=seconds, warn=lambda _: None)

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(_PERIOD):
            try:
                with self._may_ask:
                    began = time.monotonic()
                    status = self.get("/api/status")
            except (NoServiceError, ServiceRefusedError) as problem:
                text = str(problem)
                self.refused[text] = self.refused.get(text, 0) + 1
                continue
            self.longest = max(self.longest, time.monotonic() - began)
            code, _ = attention_verdict(status)
            self.codes[code] = self.codes.get(code, 0) + 1
            self.note(status.get("attention", ()))

    def note(self, rows: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        shown = {}
        for row in rows:
            text = f"{row['level']} {row['what']}: {row['text']}"
            item = self._shown.get(text)
            if item is None:
                item = Item(text, now, now, expected=False)
                self.items.append(item)
            item.last = now
            item.expected |= any(
                cause.until > now and cause.pattern.search(text) for cause in self._causes
            )
            shown[text] = item
        self._shown = shown
