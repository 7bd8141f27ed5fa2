"""Files that clients need, which are read again when they change."""

import errno
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from twisted.logger import Logger

from txmux.files import state_at
from txmux.net.tls.errors import TLSFileError

# Times as long as reading took, until files that are wrong are read again though they look the same.
_REST = 50
_PAUSE_OF_HELPER = 5.0  # minimum seconds where the helper checks the files, while all clients wait


class WatchedFiles:
    """Reads files again when they have changed, which it checks when a client connects.

    Args:
        seconds: The clock.
        section: Where the rules name the files, in brackets.
        is_quiet: Whether another process logs what happens.

    Attributes:
        trouble: Why what is in the files is not in use; empty if it is.
        is_helped: Whether the helper looks at the files, while this process waits.
    """

    _log = Logger()
    _pause = 1.0  # minimum seconds between two checks of the files
    _key: ClassVar[str]  # of the rules

    def __init__(
        self, seconds: Callable[[], float], section: str = "", *, is_quiet: bool = False
    ) -> None:
        self._seconds, self._section, self._is_quiet = seconds, section, is_quiet
        self.trouble, self._again_at = "", 0.0
        # Before reading, so that a change in between is noticed.
        self._seen = self._states()
        self._looked_at = seconds()

    def look(self) -> None:
        """Look at the files, unless that was just done."""
        pause = _PAUSE_OF_HELPER if self.is_helped else self._pause
        if self._seconds() - self._looked_at >= pause:
            self.look_again()

    def look_again(self) -> None:
        """Look at the files now, so that reports are right in a process without clients."""
        self._looked_at = now = self._seconds()
        states, before = self._states(), self.trouble
        if self._is_helper_silent:  # it would not open them, either
            what = "the helper that looks at the files does not answer"
            self.trouble = f"{self._section}{self._key}: {what}"
        # What is wrong may be mended without another state.
        elif states != self._seen or (before and now >= self._again_at):
            self._seen = states
            try:
                self._read_again()
            except TLSFileError as problem:
                self.trouble, ended = self._kept(problem), self._seconds()
                self._again_at = ended + _REST * (ended - now)
            else:
                self.trouble = ""
        if self.trouble not in {"", before} and not self._is_quiet:
            self._log.error("{trouble}", trouble=self.trouble)

    def _paths(self) -> Iterable[Path]:
        raise NotImplementedError

    def _read_again(self) -> None:
        """Read the files; raises `TLSFileError` if they cannot be used."""
        raise NotImplementedError

    def _kept(self, problem: TLSFileError) -> str:
        return f"{self._section}{problem.key}: {problem.what}; what is in use is kept"

    def _states(self) -> list[object]:
        self.is_helped = self._is_helper_silent = False
        return [self._state_at(path) for path in self._paths()]

    def _state_at(self, path: Path) -> object:
        try:
            state, is_helped = state_at(path)
        except OSError as problem:  # reading reports it
            self._is_helper_silent |= problem.errno == errno.EPIPE
            return problem.errno
        self.is_helped |= is_helped
        return state
