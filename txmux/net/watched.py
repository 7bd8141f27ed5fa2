"""Files that clients need, which are read again when they change: by the supervisor, which sends workers what it uses."""

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.files import Reader, read_bytes, state_at
from txmux.net.tls.errors import TLSFileError
from txmux.net.turns import outcome_of_look

# Times as long as reading took, until files that are wrong are read again though they look the same.
_REST = 50
_WAIT = 0.05  # seconds that a client waits for a look, for which a healthy disk needs a thousandth of that
_SILENT = {errno.EPIPE, errno.ETIMEDOUT}  # errors of the helper, and of a disk


class FilesInUse(NamedTuple):
    """The files of one user, each with when it was written; `trouble` is why those on the disk are not in use."""

    files: Mapping[Path, tuple[float, bytes]] = MappingProxyType({})
    trouble: str = ""

    def __repr__(self) -> str:
        return f"FilesInUse({[*map(str, self.files)]}, {self.trouble!r})"  # not the secrets in them

    def read(self, path: Path) -> bytes:
        return self.files[path][1]


class OnDisk(dict[Path, tuple[float, bytes]]):
    """Files that are read when they are needed."""

    def __init__(self, read: Reader = read_bytes) -> None:
        self._read = read

    def __missing__(self, path: Path) -> tuple[float, bytes]:
        found = self[path] = state_at(path)[3] / 1e9, self._read(path)
        return found


class ReceivedFiles(dict[str, FilesInUse]):
    """The files that another process of the service uses.

    Attributes:
        are_all: Whether this process is a worker, which has them by user, and reads none itself. Another one has those that were lost
            before it started, by the section of the rules.
    """

    are_all = False


RECEIVED = ReceivedFiles()


class WatchedFiles:
    """Reads files again when they have changed, which it checks when a client connects.

    Args:
        seconds: The clock.
        section: Where the rules name the files, in brackets.
        named: The files.
        may_lack: Whether files that cannot be used are no error.

    Raises:
        TLSFileError: They cannot be used.

    Attributes:
        user: The name of this user of these files, the same in each process.
        section, may_lack: As given.
        made: What was made of the files; ``None`` until they can be used.
        in_use: The files that it was made of.
        wrong: What is wrong in them, though they are used.
    """

    _log = Logger()
    _pause = 1.0  # minimum seconds between two checks of the files
    _rule: ClassVar[str]  # the key of the rules that names them
    _what: ClassVar[str] = ""  # what they have, for the log
    _read_file = staticmethod(read_bytes)
    made: Any = None
    wrong = ""

    def __init__(
        self,
        seconds: Callable[[], float],
        section: str,
        named: Sequence[Path],
        *,
        may_lack: bool = False,
    ) -> None:
        self._seconds, self.section, self._named = seconds, section, named
        self.user = f"{section}{self._rule} = {', '.join(map(str, named))}"
        self.may_lack = may_lack or RECEIVED.are_all
        self.in_use = FilesInUse()
        self._again_at, self._is_looking, self._looks = 0.0, False, 0
        # Before reading, so that a change in between is noticed.
        self._seen: list[object] = [] if RECEIVED.are_all else self._states()
        self._looked_at = seconds()
        if RECEIVED.are_all and named:
            self._receive()
            return
        try:
            self._take(*self._read())
        except TLSFileError as problem:
            before = RECEIVED.get(section)
            if before is not None and before.files.keys() >= {*named}:  # else of other rules
                self._take(before, self._make(before))
            elif not may_lack:
                raise
            self._report(self._why_kept(problem))

    @property
    def trouble(self) -> str:
        return self.in_use.trouble

    def look(self) -> None:
        """Check the files, unless they were checked a moment ago, or are being checked: their disk may not answer."""
        if RECEIVED.are_all:
            self._receive()
        elif self._seconds() - self._looked_at >= self._pause and not self._is_looking:
            self._is_looking = True
            Deferred.fromCoroutine(self._look_in_thread())

    async def _look_in_thread(self) -> None:
        use, problem = await outcome_of_look(self.examine, wait=_WAIT)
        self._is_looking = False
        if isinstance(problem, OSError):
            self.keep(problem)
        elif problem is not None:
            raise problem
        elif use is not None:
            use()

    def read_again(self) -> Callable[[], None]:
        """Do as `examine`, also where what is wrong has been read a moment ago; return what may do nothing."""
        self._again_at = 0.0
        return self.examine() or (lambda: None)

    def _receive(self) -> None:
        received, before = RECEIVED.get(self.user, self.in_use), self.in_use
        if received is before:
            return
        if received.files != before.files:
            self._take(received, self._make(received))
        self.in_use = received

    def examine(self) -> Callable[[], None] | None:
        """Look at the files, in a thread; return what puts to use what was found, for the reactor's, and ``None`` if nothing was.

        What an earlier look has found is used no more, since it may be older.
        """
        if RECEIVED.are_all:
            return self._receive
        self._looked_at = now = self._seconds()
        self._looks = look = self._looks + 1
        again_at, read = 0.0, None
        try:
            states = self._states(must_answer=True)
            # What is wrong may be mended without another state.
            if states == self._seen and not (self.trouble and now >= self._again_at):
                return None
            read = self._read()
        except OSError as error:
            return partial(self.keep, error)
        except TLSFileError as error:
            if error.cause is not None and error.cause.errno in _SILENT:
                return partial(self.keep, error.cause)
            problem, ended = error, self._seconds()
            again_at = ended + _REST * (ended - now)

        def take() -> None:
            if self._looks != look:
                return
            self._seen, self._again_at = states, again_at
            if read is None:
                self._report(self._why_kept(problem))
            else:
                was_troubled = bool(self.trouble)
                if (self._take(*read) or was_troubled) and self._what:
                    where = f"{self.section}{self._rule}" if self.section else self.user
                    self._log.info("{where}: {what} reloaded", where=where, what=self._what)

        return take

    def keep(self, problem: OSError) -> None:
        """Keep what is in use, as a disk does not answer (``ETIMEDOUT``), or the helper (``EPIPE``)."""
        if problem.errno == errno.EPIPE:  # it would not open them, either
            what = "the helper that looks at the files does not answer"
            self._report(f"{self.section}{self._rule}: {what}")
        else:
            what = f"cannot read '{problem.filename or 'its files'}': {problem.strerror}"
            self._report(self._why_kept(TLSFileError(self._rule, what)))

    def _report(self, trouble: str) -> None:
        before, self.in_use = self.trouble, self.in_use._replace(trouble=trouble)
        if trouble not in {"", before}:
            self._log.error("{trouble}", trouble=trouble)

    def _read(self) -> tuple[FilesInUse, Any]:
        files = FilesInUse(OnDisk(self._read_file))
        return files, self._make(files)

    def _take(self, files: FilesInUse, made: Any) -> bool:
        """Use what was made of files; return whether it is something else than before."""
        self.in_use = files
        has_changed = self.made is None or not self._is_same(made)
        if has_changed:
            self.made = made
        return has_changed

    def _make(self, files: FilesInUse) -> Any:
        """Return what is made of files, which may be read only now; a `TLSFileError` if they cannot be used."""
        raise NotImplementedError

    def _is_same(self, made: Any) -> bool:  # noqa: ARG002 - of others
        return False

    def _why_kept(self, problem: TLSFileError) -> str:
        return f"{self.section}{problem.key}: {problem.what}; what is in use is kept"

    def _paths(self) -> Iterable[Path]:
        return self._named

    def _states(self, *, must_answer: bool = False) -> list[object]:
        paths: Iterable[Path] = ()
        with suppress(TLSFileError):  # reading reports it
            paths = self._paths()
        return [
            self._state_at(path, must_answer=must_answer)
            for path in dict.fromkeys([*self._named, *paths])
        ]

    def _state_at(self, path: Path, *, must_answer: bool) -> object:
        try:
            return state_at(path)
        except OSError as problem:
            if must_answer and problem.errno in _SILENT:
                raise
            return problem.errno  # reading reports it
