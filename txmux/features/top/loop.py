"""The loop of `txmux top`: keys and answers come in, the screen goes out."""

import os
import signal
import termios
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from txmux.features.top.keys import pressed
from txmux.features.top.polling import Polling
from txmux.features.top.state import RequestResult, Snapshot, TopState
from txmux.features.top.terminal import Terminal, read_keys
from txmux.features.top.view import screen

_ESCAPE = 0.05
"""Seconds after which an escape character is the key of that name, and not the beginning of a sequence."""


def watch(ask: Callable[..., Any], filters: Mapping[str, str], keyboard: int) -> int:
    terminal = Terminal(keyboard)
    polling = Polling(ask, terminal.wake)
    try:
        with terminal.shown():
            polling.start(filters)
            _watch(terminal, polling, TopState(filters=filters))
    except (OSError, termios.error):
        if terminal.ended_by is None:  # the terminal is gone, with whatever was being written
            raise BrokenPipeError from None
    number = terminal.ended_by
    if number is None or number == signal.SIGINT:
        return 0
    # Die of the signal, so that its sender sees it.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def _watch(terminal: Terminal, polling: Polling, state: TopState) -> None:
    snapshot = newest = Snapshot()
    left = b""
    while not state.should_exit and terminal.ended_by is None:
        terminal.show(screen(state, snapshot, *terminal.size))
        typed = terminal.wait(_ESCAPE if left else None)
        keys, left = read_keys(left + typed, is_last=not typed)
        for key in keys:
            state, request = pressed(state, snapshot, key)
            if request is not None:
                polling.send(request)
            polling.want(state.filters)
        while not polling.news.empty():
            news = polling.news.get()
            if isinstance(news, Snapshot):
                newest = news
            else:
                state = _with_result(state, news)
        if not state.is_paused:
            snapshot = newest


def _with_result(state: TopState, result: RequestResult) -> TopState:
    if result.connection is None:
        return attrs.evolve(state, result=result)
    if state.mode == "browse":
        return attrs.evolve(state, result=result, mode="explanation", scrolled=0)
    return state
