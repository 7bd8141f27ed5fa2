"""Checks the users and passwords of clients that ask for a tunnel, in a thread, since bcrypt takes long on purpose."""

import secrets
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred
from typing_extensions import override

from txmux.client.watched import WatchedFiles
from txmux.errors import MuxError
from txmux.files import read_list
from txmux.net.tls.errors import TLSFileError
from txmux.net.turns import outcome_in_thread
from txmux.rules.reading.tunnels import read_users
from txmux.wire.tunnel.dialogue import Login

_MOST_WAITING, _MOST_PER_SOURCE = 16, 2  # logins that are being checked
_MOST_KNOWN = 1000
_LONGEST = 72  # bytes of a password that bcrypt looks at


class TunnelUsers(WatchedFiles):
    """The users of one route's file.

    While it cannot be read, those that are known are kept; without any, nobody can log in.
    """

    _key, _pause = "tunnel_users", 5.0

    def __init__(self, route: str, path: Path) -> None:
        try:
            import bcrypt  # noqa: PLC0415 - optional: `txmux[tunnel]`
        except ImportError:
            what = "needs bcrypt; install txmux[tunnel]"
            raise MuxError(f"[route {route}] tunnel_users: {what}") from None
        self._compare: Any = bcrypt.checkpw
        self._path, self._hashes = path, dict[str, bytes]()
        # By digests of logins that are being checked: who has sent each first, and who waits for it.
        self._waiting: dict[bytes, tuple[int, list[Deferred[bool]]]] = {}
        # Digests of right logins: a client that comes again does not wait, nor cost a quarter of a second of CPU.
        self._known: set[bytes] = set()
        self._salt = secrets.token_bytes(16)
        super().__init__(monotonic, f"[route {route}] ")
        self._seen = []  # none is read yet
        self.look_again()

    @override
    def _paths(self) -> list[Path]:
        return [self._path]

    @override
    def _read_again(self) -> None:
        try:
            self._hashes, problems = read_users(read_list(self._path))
        except OSError as error:
            what = f"{self._path} cannot be read: {error.strerror}"
            raise TLSFileError(self._key, what) from None
        for problem in problems:
            where = f"{self._section}{self._key}: {self._path}"
            self._log.error("{where}{problem}", where=where, problem=problem)

    @override
    def _kept(self, problem: TLSFileError) -> str:
        then = "users that are known are kept" if self._hashes else "nobody can log in"
        return f"{self._section}{problem.key}: {problem.what}; {then}"

    def check(self, source: int, login: Login) -> Deferred[bool] | bool | None:
        """Return whether a login is right, now or later; ``None`` if too many are being checked."""
        self.look()
        # A user that does not exist takes as long as another.
        other = next(iter(self._hashes.values()), b"")
        hashed = self._hashes.get(login.user, b"")
        digest = sha256(self._salt + hashed + login.password).digest()
        if not other or (hashed and digest in self._known):
            return bool(other)
        password = login.password[:_LONGEST].replace(b"\0", b"\1")
        later = Deferred[bool]()
        if digest in self._waiting:  # clients open several connections at once, with one login
            self._waiting[digest][1].append(later)
            return later
        sources = [first for first, _ in self._waiting.values()]
        if len(sources) >= _MOST_WAITING or sources.count(source) >= _MOST_PER_SOURCE:
            return None
        self._waiting[digest] = source, [later]

        def judged(outcome: tuple[bool | None, Exception | None]) -> None:
            is_right = bool(outcome[0] and hashed and password == login.password)
            if is_right:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known.add(digest)
            for one in self._waiting.pop(digest)[1]:
                one.callback(is_right)

        outcome_in_thread(self._compare, password, hashed or other).addCallback(judged)
        return later
