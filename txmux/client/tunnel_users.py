"""Checks the users and passwords of clients that ask for a tunnel, in a thread, since bcrypt takes long on purpose."""

import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.errors import MuxError
from txmux.files import read_bytes, state_at
from txmux.net.turns import outcome_in_thread
from txmux.rules.reading.tunnels import read_users
from txmux.wire.tunnel.dialogue import Login

_PAUSE = 5.0  # minimum seconds between two looks at the file
_MOST_WAITING, _MOST_PER_SOURCE = 16, 2  # logins that are being checked
_MOST_KNOWN = 1000
_LONGEST = 72  # bytes of a password that bcrypt looks at


class TunnelUsers:
    """The users of one route's file, which is read again when it has changed.

    While it cannot be read, those that are known are kept; without any, nobody can log in.
    """

    _log = Logger()

    def __init__(self, route: str, path: Path) -> None:
        try:
            import bcrypt  # noqa: PLC0415 - optional: `txmux[tunnel]`
        except ImportError:
            what = "needs bcrypt; install txmux[tunnel]"
            raise MuxError(f"[route {route}] tunnel_users: {what}") from None
        self._compare: Any = bcrypt.checkpw
        self._name, self._path = f"[route {route}] tunnel_users: {path}", path
        self._hashes: Mapping[str, bytes] = {}
        self._state: object = None  # of the file, or the number of the error
        self._looked_at = -_PAUSE
        # By digests of logins that are being checked: who has sent each first, and who waits for it.
        self._waiting: dict[bytes, tuple[int, list[Deferred[bool]]]] = {}
        # Digests of right logins: a client that comes again does not wait, nor cost a quarter of a second of CPU.
        self._known: set[bytes] = set()
        self._salt = secrets.token_bytes(16)
        self._look()

    def _look(self) -> None:
        if monotonic() - self._looked_at < _PAUSE:
            return
        self._looked_at = monotonic()
        hashes, state, problems = self._hashes, self._state, list[str]()
        try:
            state = state_at(self._path)[0]
            if state != self._state:
                hashes, problems = read_users(read_bytes(self._path))
        except OSError as error:
            state = error.errno
            problems = [f" cannot be read: {error.strerror}; users that are known are kept"]
        if state != self._state:
            self._state, self._hashes = state, hashes
            for problem in problems:
                self._log.error("{name}{problem}", name=self._name, problem=problem)

    def check(self, source: int, login: Login) -> Deferred[bool] | bool | None:
        """Return whether a login is right, now or later; ``None`` if too many are being checked."""
        self._look()
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
