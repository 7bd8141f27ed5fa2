"""Checks the users and passwords of clients that ask for a tunnel: in a thread and in turns, since bcrypt takes long on purpose."""

import itertools
import re
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from time import monotonic
from typing import Any, Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred
from typing_extensions import override

from txmux.access.per_source import text_of_source
from txmux.classes import define
from txmux.errors import MuxError, how_to_install
from txmux.features.tunnels import read_users
from txmux.features.tunnels.dialogue import Login
from txmux.files import read_bytes
from txmux.net.tls.errors import TLSFileError
from txmux.net.turns import outcome_in_thread
from txmux.net.watched import RECEIVED, FilesInUse, WatchedFiles

T = TypeVar("T", bound=Hashable)

_MOST = 1000  # logins that wait, each with a connection of its own
_MOST_PER_SOURCE = 2
_REMEMBERED = 10_000  # sources with a wrong login
_FORGIVEN = 600.0  # seconds after the last one


_MANY = 16  # logins that wait: then an operator should know
_MOST_KNOWN = 1000
_LONGEST = 72  # bytes of a password that bcrypt looks at
_COST = re.compile(rb"\$2[abxy]\$([0-9]{2})\$")
_RECENT = 60.0  # seconds for which it is reported that many have waited


@define
class _Waiting(Generic[T]):
    turn: int  # when it came or had its last turn
    logins: deque[T] = attrs.field(factory=deque)


class LoginQueue(Generic[T]):
    """Logins of sources that wait for their turn.

    A source that has sent no wrong login lately goes before all that have; so however many wrong ones others send, its first login
    waits for no more than the one that is being checked.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._sources: dict[int, _Waiting[T]] = {}
        self._turns = itertools.count()
        self._wrong: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, source: int, login: T) -> T | None:
        """Add a login. Returns one for which there is no room: this one, or another whose source has sent more wrong ones."""
        mine = self._sources.get(source)
        if mine is not None and len(mine.logins) >= _MOST_PER_SOURCE:
            return login
        pushed_out = None
        if self._count >= _MOST:
            worst = self.worst()
            wrong, waits = self._rank(source)
            # Of new sources the latest go first, so the one that has waited longest gives way to another.
            if self._rank(worst) <= (wrong, waits + bool(wrong)):
                return login
            pushed_out = self._pop(worst, last=True)
        if mine is None:
            mine = self._sources[source] = _Waiting(next(self._turns))
        mine.logins.append(login)
        self._count += 1
        return pushed_out

    def take(self) -> T | None:
        """Take the next login; ``None`` if none waits."""
        if not self._sources:
            return None
        source = min(self._sources, key=self._turn)
        self._sources[source].turn = next(self._turns)
        return self._pop(source)

    def remove(self, source: int, login: T) -> bool:
        """Remove a login whose client has left, and count it as a wrong one; return whether it still waited."""
        waiting = self._sources.get(source)
        if waiting is None or login not in waiting.logins:
            return False
        waiting.logins.remove(login)
        self._count -= 1
        if not waiting.logins:
            del self._sources[source]
        # Else, under attack, sources of which nothing has been checked yet would be new again and again.
        self.judged(source, is_right=False)
        return True

    def judged(self, source: int, *, is_right: bool) -> None:
        """Remember whether a login of a source was right."""
        count = 0 if is_right else self._wrong_of(source) + 1
        self._wrong.pop(source, None)
        if count:
            self._wrong[source] = count, self._seconds()
            if len(self._wrong) > _REMEMBERED:
                self._wrong.popitem(last=False)

    def _turn(self, source: int) -> tuple[int, int]:
        wrong, turn = self._wrong_of(source), self._sources[source].turn
        # Of those without a wrong one the newest goes first: while many come at once, as each would wait for all before it.
        return wrong, turn if wrong else -turn

    def worst(self) -> int:
        """Return the source that waits with the most wrong logins, then the most that wait, then the longest."""
        return max(
            self._sources, key=lambda source: (*self._rank(source), -self._sources[source].turn)
        )

    def _rank(self, source: int) -> tuple[int, int]:
        waiting = self._sources.get(source)
        return self._wrong_of(source), 0 if waiting is None else len(waiting.logins)

    def _wrong_of(self, source: int) -> int:
        count, at = self._wrong.get(source, (0, 0.0))
        return count if self._seconds() - at < _FORGIVEN else 0

    def _pop(self, source: int, *, last: bool = False) -> T:
        logins = self._sources[source].logins
        login = logins.pop() if last else logins.popleft()
        self._count -= 1
        if not logins:
            del self._sources[source]
        return login


@define(eq=False)
class _PasswordCheck:
    """A login that is to be checked, and the connections of its source that wait for that."""

    source: int
    login: Login
    waiting: list[Deferred[bool | None]] = attrs.field(factory=list)


class TunnelUsers(WatchedFiles):
    """The users of one route's file.

    While it cannot be read, those that are known are kept; without any, no user can log in.

    Attributes:
        wrong: What is wrong with a line of the file that was read, if anything is.
    """

    _rule, _what, _pause = "tunnel_users", "users", 5.0
    _read_file = staticmethod(read_bytes)

    def __init__(self, route: str, path: Path) -> None:
        try:
            import bcrypt  # noqa: PLC0415 - optional: `txmux[tunnel]`
        except ImportError:
            what = f"needs the package bcrypt; run: {how_to_install('tunnel')}"
            raise MuxError(f"[route {route}] tunnel_users: {what}") from None
        self.hash_password: Callable[[bytes, bytes], bytes] = bcrypt.hashpw
        self._hashes: Mapping[str, bytes] = {}
        self._path, self.wrong = path, ""
        self.queue = LoginQueue[_PasswordCheck](monotonic)
        self.checks: dict[tuple[int, Login], _PasswordCheck] = {}
        self._is_checking = False
        self._crowded: tuple[float, int, int] | None = None
        # Digests of right logins: a client that comes again does not wait, nor cost a quarter of a second of CPU.
        self.known: set[bytes] = set()
        self._salt = secrets.token_bytes(16)
        super().__init__(monotonic, f"[route {route}] ", [path], may_lack=True)

    @override
    def _make(self, files: FilesInUse) -> tuple[Mapping[str, bytes], Sequence[str]]:
        try:
            return read_users(files.read(self._path))
        except OSError as error:
            what = f"{self._path} cannot be read: {error.strerror}"
            raise TLSFileError(self._rule, what, error) from None

    @override
    def _take(self, files: FilesInUse, made: Any) -> bool:
        self._hashes, problems = made
        where = f"{self.section}{self._rule}: {self._path}"
        for_all = "; nobody can log in" if problems[1:] and not self._hashes else ""
        self.wrong = f"{where}{problems[0]}{for_all}" if problems else ""
        for problem in () if RECEIVED.are_all else problems:
            self._log.error("{where}{problem}", where=where, problem=problem)
        # The log has either these, or that the users were reloaded.
        return super()._take(files, made) and not problems

    @override
    def _why_kept(self, problem: TLSFileError) -> str:
        then = "users that are known are kept" if self._hashes else "nobody can log in"
        return f"{self.section}{problem.key}: {problem.what}; {then}"

    def check(self, source: int, login: Login) -> Deferred[bool | None] | bool | None:
        """Return whether a login is right, now or later; ``None`` if there is no room for it. Cancel what is not waited for."""
        self.look()
        if not self._hashes or self._digest(login) in self.known:
            return bool(self._hashes)
        check = self.checks.get((source, login))
        if check is None:  # clients open several connections at once, with one login
            check = _PasswordCheck(source, login)
            refused = self.queue.add(source, check)
            if len(self.queue) >= _MANY:
                self._note_crowd()
            if refused is check:
                return None
            self.checks[source, login] = check
            if refused is not None:
                self._answer(refused, None)
        later: Deferred[bool | None] = Deferred(lambda _: self._leave(check, later))
        check.waiting.append(later)
        self._check_next()
        return later

    def _leave(self, check: _PasswordCheck, later: Deferred[bool | None]) -> None:
        check.waiting.remove(later)
        if not check.waiting and self.queue.remove(check.source, check):
            del self.checks[check.source, check.login]

    def _note_crowd(self) -> None:
        now = monotonic()
        if self._crowded is None or now - self._crowded[0] >= 1:
            self._crowded = now, len(self.queue), self.queue.worst()

    def crowded(self) -> tuple[int, str] | None:
        """Return how many logins have waited lately, and the source of the most wrong ones; ``None`` if they were not many."""
        if self._crowded is None or monotonic() - self._crowded[0] > _RECENT:
            return None
        _, count, source = self._crowded
        return count, text_of_source(source)

    def _digest(self, login: Login) -> bytes:
        """Return what a right login is remembered by; of an unknown user nothing is."""
        hashed = self._hashes.get(login.user)
        return b"" if hashed is None else sha256(self._salt + hashed + login.password).digest()

    def _check_next(self) -> None:
        while not self._is_checking and (check := self.queue.take()) is not None:
            digest = self._digest(check.login)
            if digest in self.known:  # another source has used it meanwhile
                self._judged(check, is_right=True)
                continue
            self._is_checking = True
            comparing = outcome_in_thread(self._compare, check.login, self._hashes)
            comparing.addCallback(self._compared, check, digest)

    def _compared(
        self, outcome: tuple[bool | None, Exception | None], check: _PasswordCheck, digest: bytes
    ) -> None:
        self._is_checking = False
        if outcome[0]:
            if len(self.known) >= _MOST_KNOWN:
                self.known.clear()
            self.known.add(digest)
        self._judged(check, is_right=bool(outcome[0]))
        self._check_next()

    def _judged(self, check: _PasswordCheck, *, is_right: bool) -> None:
        self.queue.judged(check.source, is_right=is_right)
        self._answer(check, is_right)

    def _answer(self, check: _PasswordCheck, is_right: bool | None) -> None:  # noqa: FBT001 - of a Deferred
        del self.checks[check.source, check.login]
        while check.waiting:  # one that is answered may end others
            check.waiting.pop().callback(is_right)

    def _compare(self, login: Login, hashes: Mapping[str, bytes]) -> bool:
        """Compare a login; it takes as long for each user, and for those that do not exist, as for the one with the dearest hash."""
        password = login.password[:_LONGEST].replace(b"\0", b"\1")
        dearest = max(map(_cost, hashes.values()), default=0)
        hashed = hashes.get(login.user)
        if hashed is None:
            self.hash_password(password, _salt(dearest))
            return False
        computed = self.hash_password(password, hashed)
        # Each cost takes twice as long as the one before, so these and the own one together are the dearest.
        for cost in range(_cost(hashed), dearest):
            self.hash_password(password, _salt(cost))
        return compare_digest(computed, hashed) and password == login.password


def _cost(hashed: bytes) -> int:
    cost = _COST.match(hashed)
    return int(cost[1]) if cost else 0


def _salt(cost: int) -> bytes:
    return b"$2b$%02d$" % cost + b"." * 22
