"""The terminal of `txmux top`: raw while the screen is shown and always restored; and its loop: keys and answers come in, the screen goes out."""

import contextlib
import os
import re
import select
import signal
import socket
import termios
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from rich.console import Console, ConsoleDimensions
from rich.text import Text

from txmux.features.top.keys import pressed
from txmux.features.top.polling import Polling
from txmux.features.top.state import RequestResult, Snapshot, TopState
from txmux.features.top.view import screen

_ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_OTHERS = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
_READ = 4096

_NAMES = {
    b"A": "up", b"B": "down", b"C": "right", b"D": "left", b"H": "home", b"F": "end",
    b"Z": "backtab", b"1~": "home", b"4~": "end", b"5~": "page-up", b"6~": "page-down",
    b"7~": "home", b"8~": "end",
}  # fmt: skip
_CONTROLS = {
    b"\t": "tab", b"\r": "enter", b"\n": "enter", b"\x08": "backspace", b"\x7f": "backspace",
    b"\x0c": "redraw", b"\x15": "clear",
}  # fmt: skip
_SEQUENCE = re.compile(rb"\x1b(?:\[([0-?]*[ -/]*[@-~])|O([ -~]))")
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_LONGEST = 32  # bytes of a sequence


_ESCAPE = 0.05
"""Seconds after which an escape character is the key of that name, and not the beginning of a sequence."""


class Terminal:
    """Shows the screen, and reads keys; `ended_by` is the signal that ends the program, if one has come."""

    def __init__(self, keyboard: int) -> None:
        self.console = Console(highlight=False, legacy_windows=False)
        self.ended_by: int | None = None
        self._keyboard = keyboard
        self._saved: list[Any] = []
        self._stop = self._continued = False
        self._wakes, self._woken = socket.socketpair()
        self._wakes.setblocking(False)  # noqa: FBT003 - of the library
        self._woken.setblocking(False)  # noqa: FBT003

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Take over the screen, and restore the terminal whatever happens."""
        before = {number: signal.getsignal(number) for number in (*_ENDS, *_OTHERS)}
        for number in before:
            signal.signal(number, self._signalled)
        wakes = signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        try:
            self._enter()
            yield
        finally:
            self._leave()
            signal.set_wakeup_fd(wakes)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._wakes.close()
            self._woken.close()

    def wake(self) -> None:
        """End a `wait`, from another thread."""
        # It may be full, and wakes; or be closed, as the program ends.
        with contextlib.suppress(OSError):
            self._wakes.send(b"\0")

    def wait(self, seconds: float | None) -> bytes:
        """Wait for keys, `wake` or a signal, and handle signals; return what was typed, maybe nothing. If the terminal is gone, that is an `OSError`."""
        readable, _, _ = select.select([self._keyboard, self._woken.fileno()], [], [], seconds)
        if self._woken.fileno() in readable:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(_READ)
        if self._stop:
            self._suspend()
        if self._continued:
            self._continued = False
            self._enter()
        if self._keyboard not in readable:
            return b""
        if typed := os.read(self._keyboard, _READ):
            return typed
        raise BrokenPipeError

    def show(self, lines: Sequence[Text]) -> None:
        screen = Text("\n", no_wrap=True, end="").join(lines)
        self.console.update_screen(screen)

    @property
    def size(self) -> tuple[int, int]:
        # Not by COLUMNS and LINES, which do not follow changes.
        size = os.get_terminal_size(self._keyboard)
        self.console.size = ConsoleDimensions(size.columns or 80, size.lines or 24)
        return self.console.size.width, self.console.size.height

    def _signalled(self, number: int, _: object) -> None:
        if number in _ENDS:
            self.ended_by = number
        elif number == signal.SIGTSTP:
            self._stop = True
        elif number == signal.SIGCONT:
            self._continued = True

    def _enter(self) -> None:
        attributes = termios.tcgetattr(self._keyboard)
        if not self._saved:
            self._saved = attributes
        # Control-C and Control-Z stay signals.
        tty.setcbreak(self._keyboard, termios.TCSADRAIN)
        self.console.set_alt_screen()
        self.console.show_cursor(False)  # noqa: FBT003 - of rich

    def _leave(self) -> None:
        # Each is tried even if the one before fails: the terminal may be gone.
        with contextlib.suppress(OSError):
            self.console.show_cursor()
            self.console.set_alt_screen(False)
        if self._saved:
            with contextlib.suppress(OSError, termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._saved)

    def _suspend(self) -> None:
        """Restore the terminal and stop, as others do on Control-Z, until the shell continues this process."""
        self._stop = False
        self._leave()
        self._saved = []  # the shell may change it meanwhile
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._signalled)
        self._continued = True


def read_keys(data: bytes, *, is_last: bool = False) -> tuple[list[str], bytes]:
    """Return keys, and the rest, to be put before the next bytes; with `is_last`, an incomplete sequence is single keys."""
    keys = []
    while data:
        if not is_last and len(data) < _LONGEST and _BEGUN.match(data):
            break
        if match := _SEQUENCE.match(data):
            name = _NAMES.get(match[1] or match[2])
            keys += [name] if name else []
            data = data[match.end() :]
        elif data[:1] == b"\x1b":
            keys.append("escape")
            data = data[1:]
        else:
            size = _size_of(data[0])
            if len(data) < size and not is_last:
                break
            key = _CONTROLS.get(data[:1]) or data[:size].decode("utf-8", "replace")
            keys += [key] if key.isprintable() else []
            data = data[size:]
    return keys, data


def _size_of(first: int) -> int:
    # The length of a character in UTF-8 follows from its first byte.
    return 2 + (first >= 0xE0) + (first >= 0xF0) if 0xC2 <= first < 0xF5 else 1


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
