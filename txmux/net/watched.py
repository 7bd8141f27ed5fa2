"""Files that clients need, which are read again when they change."""

import errno
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ClassVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.files import state_at
from txmux.net.tls.errors import TLSFileError
from txmux.net.turns import outcome_of_look

# Times as long as reading took, until files that are wrong are read again though they look the same.
_REST = 50
_WAIT = 0.05  # seconds that a client waits for a look, for which a healthy disk needs a thousandth of that
_SILENT = {errno.EPIPE, errno.ETIMEDOUT}  # errors of the helper, and of a disk


class WatchedFiles:
    """Reads files again when they have changed, which it checks when a client connects.

    Args:
        seconds: The clock.
        section: Where the rules name the files, in brackets.
        is_quiet: Whether another process logs what happens.
        is_read: Whether the caller reads the files now; otherwise the next look does.

    Attributes:
        trouble: Why what is in the files is not in use; empty if it is.
    """

    _log = Logger()
    _pause = 1.0  # minimum seconds between two checks of the files
    _rule: ClassVar[str]  # the key of the rules that names them

    def __init__(
        self,
        seconds: Callable[[], float],
        section: str = "",
        *,
        is_quiet: bool = False,
        is_read: bool = True,
    ) -> None:
        self._seconds, self._section, self._is_quiet = seconds, section, is_quiet
        self.trouble, self._again_at, self._is_looking = "", 0.0, False
        # Before reading, so that a change in between is noticed.
        self._seen: list[object] = self._states() if is_read else []
        self._looked_at = seconds() if is_read else -self._pause

    def look(self) -> None:
        """Check the files, unless they were checked a moment ago, or are being checked: their disk may not answer."""
        if self._seconds() - self._looked_at >= self._pause and not self._is_looking:
            self._is_looking = True
            Deferred.fromCoroutine(self.look_in_thread(_WAIT))

    async def look_in_thread(self, wait: float = 0.0) -> None:
        """Look at the files now, in a thread; for `wait`, see `outcome_of_look`."""
        use, problem = await outcome_of_look(self._examine, wait=wait)
        self._is_looking = False
        if use is not None:
            use()
        elif isinstance(problem, OSError):
            self._keep(problem)
        elif problem is not None:
            raise problem

    def look_now(self) -> None:
        """Look at the files now, where a start or a reload waits for it."""
        try:
            use = self._examine()
        except OSError as problem:
            self._keep(problem)
        else:
            use()

    def _examine(self) -> Callable[[], None]:
        """Look at the files; return what puts to use what was found, which the reactor's thread calls.

        An `OSError` says that a disk does not answer (``ETIMEDOUT``), or the helper (``EPIPE``).
        """
        self._looked_at = now = self._seconds()
        seen, states, again_at = self._seen, self._states(must_answer=True), 0.0
        # What is wrong may be mended without another state.
        if states == seen and not (self.trouble and now >= self._again_at):
            return lambda: None
        problem = None
        try:
            use = self._read()
        except TLSFileError as error:
            if error.cause is not None and error.cause.errno in _SILENT:
                raise error.cause from None
            problem, ended = error, self._seconds()
            again_at = ended + _REST * (ended - now)

        def take() -> None:
            if self._seen is not seen:
                return  # a reload has read them meanwhile
            self._seen, self._again_at = states, again_at
            if problem is None:
                use()
            self._report("" if problem is None else self._why_kept(problem))

        return take

    def _keep(self, problem: OSError) -> None:
        if problem.errno == errno.EPIPE:  # it would not open them, either
            what = "the helper that looks at the files does not answer"
            self._report(f"{self._section}{self._rule}: {what}")
        else:
            what = f"cannot read '{problem.filename or 'its files'}': {problem.strerror}"
            self._report(self._why_kept(TLSFileError(self._rule, what)))

    def _report(self, trouble: str) -> None:
        before, self.trouble = self.trouble, trouble
        if trouble not in {"", before} and not self._is_quiet:
            self._log.error("{trouble}", trouble=trouble)

    def _paths(self) -> Iterable[Path]:
        raise NotImplementedError

    def _read(self) -> Callable[[], None]:
        """Read the files, and return what puts them to use; a `TLSFileError` if they cannot be used."""
        raise NotImplementedError

    def _why_kept(self, problem: TLSFileError) -> str:
        return f"{self._section}{problem.key}: {problem.what}; what is in use is kept"

    def _states(self, *, must_answer: bool = False) -> list[object]:
        return [self._state_at(path, must_answer=must_answer) for path in self._paths()]

    def _state_at(self, path: Path, *, must_answer: bool) -> object:
        try:
            return state_at(path)
        except OSError as problem:
            if must_answer and problem.errno in _SILENT:
                raise
            return problem.errno  # reading reports it
