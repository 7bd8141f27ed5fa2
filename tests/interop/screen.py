"""A terminal (tmux) for interactive programs."""

import contextlib
import os
import re
import shlex
from pathlib import Path

from tests.interop.children import eventually, output_of, run
from tests.support.proc import family_of, is_gone, pids_of


class Screen:
    def __init__(
        self, folder: Path, width: int = 80, height: int = 24, shell: str = "PS1='$ ' sh"
    ) -> None:
        # One that ends may have its socket for another moment.
        self._socket = folder / f"tmux-{os.urandom(4).hex()}.sock"
        size = ("-x", str(width), "-y", str(height))
        command = f"env COLUMNS=80 LINES=24 {shell}"
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, command)

    def _tmux(self, *words: str) -> str:
        return output_of("tmux", "-u", "-S", self._socket, *words).decode()

    def run(self, *words: str | Path) -> None:
        self.type(f"{shlex.join(map(str, words))}; echo exit=$?\n")

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def press(self, *names: str) -> None:
        self._tmux("send-keys", *names)

    def resize(self, width: int, height: int) -> None:
        name = self._tmux("display-message", "-p", "#{pane_tty}").strip()

        def has_it() -> bool:
            self._tmux("resize-window", "-x", str(width), "-y", str(height))
            return output_of("stty", "-F", name, "size").split() == [b"%d" % height, b"%d" % width]

        eventually(has_it, "the terminal has another size")

    @property
    def text(self) -> str:
        return self._tmux("capture-pane", "-p")

    @property
    def coloured(self) -> str:
        return self._tmux("capture-pane", "-p", "-e")

    def wait_for(self, pattern: str) -> str:
        """Wait until its text matches a regular expression, and return the text."""
        shown = ""

        def is_there() -> bool:
            nonlocal shown
            shown = self.text
            return re.search(pattern, shown, re.MULTILINE) is not None

        try:
            eventually(is_there, f"the screen shows {pattern!r}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{shown}") from None
        return shown

    @property
    def pid(self) -> int:
        pid = int(self._tmux("display-message", "-p", "#{pane_pid}"))
        while children := pids_of(pid):
            pid = children[-1]
        return pid

    def end(self) -> None:
        shown = run("tmux", "-S", self._socket, "display-message", "-p", "#{pid} #{pane_pid}")
        inside: list[int] = []
        for pid in map(int, shown.stdout.split()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                inside += family_of(pid)
        run("tmux", "-S", self._socket, "kill-server")
        # Shells write to their files at last.
        eventually(lambda: all(map(is_gone, inside)), "what ran in it has ended")
