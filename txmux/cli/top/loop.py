"""The loop of `txmux top`: keys and answers come in, the screen goes out."""

import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from txmux.cli.top.keys import pressed
from txmux.cli.top.polling import Polling
from txmux.cli.top.state import RequestResult, Snapshot, TopState
from txmux.cli.top.terminal import Terminal, read_keys
from txmux.cli.top.view import screen

_ESCAPE = 0.05
"""Seconds after which an escape character is the key of that name, and not the beginning of a sequence."""


def watch(ask: Callable[..., Any], filters: Mapping[str, str], keyboard: int) -> int:
    terminal = Terminal(keyboard)
    polling = Polling(ask, terminal.wake)
    try:
        with terminal.shown():
            polling.start(filters)
            _Watching(terminal, polling, TopState(filters=filters)).run()
    finally:
        polling.stop()
        terminal.close()
    number = terminal.ended_by
    if number is None or number == signal.SIGINT:
        return 0
    # Die of the signal, so that its sender sees it.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


@attrs.define
class _Watching:
    terminal: Terminal
    polling: Polling
    state: TopState
    snapshot: Snapshot = attrs.field(factory=Snapshot)
    _newest: Snapshot = attrs.field(factory=Snapshot)

    def run(self) -> None:
        left = b""
        while not self.state.should_exit and self.terminal.ended_by is None:
            self.terminal.show(screen(self.state, self.snapshot, *self.terminal.size))
            typed = self.terminal.wait(_ESCAPE if left else None)
            if typed is None:
                return
            keys, left = read_keys(left + typed, is_last=not typed)
            for key in keys:
                self.press(key)
            self.take_news()

    def press(self, key: str) -> None:
        self.state, request = pressed(self.state, self.snapshot, key)
        if request is not None:
            self.polling.send(request)
        self.polling.want(self.state.filters)

    def take_news(self) -> None:
        while not self.polling.news.empty():
            news = self.polling.news.get()
            if isinstance(news, Snapshot):
                self._newest = news
            else:
                self.show_result(news)
        if not self.state.is_paused:
            self.snapshot = self._newest

    def show_result(self, result: RequestResult) -> None:
        if result.connection is None:
            self.state = attrs.evolve(self.state, result=result)
        elif self.state.mode == "browse":
            self.state = attrs.evolve(self.state, result=result, mode="explanation", scrolled=0)
