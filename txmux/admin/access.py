"""Who may use the endpoint ``admin``, and what for."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import attrs
from twisted.logger import Logger

from txmux.access.network_sources import WatchedFile
from txmux.admin.listen_addresses import read_token
from txmux.classes import frozen
from txmux.errors import MuxError
from txmux.rules.model import Settings
from txmux.rules.model.settings import RIGHTS, AdminUser, Right
from txmux.rules.reading.service import is_by_tcp
from txmux.rules.reading.tokens import LARGEST_TOKENS, OWN, AdminToken, read_tokens
from txmux.telemetry.formatting import plural

_ROOT = 0


@frozen
class AdminAccess:
    """Who may use the endpoint ``admin``: by a token over TCP, as a user by a UNIX socket.

    Attributes:
        users: By their number; ``None`` lets every user of the socket do everything.
    """

    _tokens: Mapping[bytes, AdminToken] = attrs.field(factory=dict)
    users: Mapping[int, Right] | None = None
    groups: Mapping[int, Right] = attrs.field(factory=dict)

    @classmethod
    def of(cls, tokens: Iterable[AdminToken], users: Iterable[AdminUser]) -> AdminAccess:
        """Look up users and groups: names that this machine does not have are left out."""
        users = [*users]
        return cls(
            {_digest(token.secret): token for token in tokens},
            _by_number([user for user in users if not user.is_group]) if users else None,
            _by_number([user for user in users if user.is_group]),
        )

    def with_tokens(self, tokens: Iterable[AdminToken]) -> AdminAccess:
        return attrs.evolve(self.of(tokens, ()), users=self.users, groups=self.groups)

    def token(self, secret: str) -> AdminToken | None:
        # By its digest, so that how long it takes says nothing of the other ones.
        return self._tokens.get(_digest(secret))

    def right_of(self, uid: int | None, groups: Iterable[int]) -> Right | None:
        """Return what a user of these groups may do: the most that one of them may."""
        if self.users is None or uid in {_ROOT, os.geteuid()}:
            return "all"
        rights = [self.users.get(-1 if uid is None else uid), *map(self.groups.get, groups)]
        return max(filter(None, rights), key=RIGHTS.index, default=None)


NO_ACCESS = AdminAccess(users={})


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _by_number(users: Iterable[AdminUser]) -> dict[int, Right]:
    found: dict[int, Right] = {}
    for user in users:
        with suppress(KeyError):  # which `txmux check` notes
            look_up = grp.getgrnam if user.is_group else pwd.getpwnam
            number = int(user.name) if user.name.isdecimal() else look_up(user.name)[2]
            found[number] = max(found.get(number, user.right), user.right, key=RIGHTS.index)
    return found


class AdminTokens:
    """The tokens that settings name; none without an endpoint of TCP.

    Attributes:
        trouble: Why the file could not be read again; empty if it could.
    """

    _log = Logger()

    def __init__(self, settings: Settings) -> None:
        is_needed = any(map(is_by_tcp, settings.admin))
        self._own_file = settings.admin_token if is_needed else None
        self._path = settings.admin_tokens if is_needed else None
        self._watched = None if self._path is None else WatchedFile(self._path, LARGEST_TOKENS)
        self._own: AdminToken | None = None
        self._others: Sequence[AdminToken] = ()
        self.trouble = ""

    def read(self) -> Sequence[AdminToken]:
        """Read all of them.

        Raises:
            MuxError: A file cannot be read, or is wrong.
        """
        if self._own_file is not None:
            self._own = AdminToken(OWN, "all", read_token(self._own_file))
        self._others = self._read_others() or ()
        return self._all()

    async def read_again(self) -> Sequence[AdminToken] | None:
        """Return all of them if the file has changed; one that cannot be read, or is wrong, changes nothing, and `trouble` says why."""
        before = self.trouble
        if self._watched is None:
            return None
        try:
            others = await self._watched.read_in_thread(self._read_others)
        except (MuxError, OSError) as error:
            why = self._unreadable(error) if isinstance(error, OSError) else error
            self.trouble = f"{why}; the tokens read before stay valid until this is right"
            if self.trouble != before:
                self._log.warn("{trouble}", trouble=self.trouble)
            return None
        if others is None:
            return None
        self.trouble = ""
        if not before and others == self._others:
            return None
        self._log.info(
            "{path}: {tokens}", path=str(self._path), tokens=plural(len(others), "token")
        )
        self._others = others
        return self._all()

    def _read_others(self) -> Sequence[AdminToken] | None:
        """Return the tokens of the file if it may have changed."""
        if self._watched is None:
            return None
        try:
            data = self._watched.read()
        except OSError as error:
            raise self._unreadable(error) from error
        if data is None:
            return None
        tokens, problems = read_tokens(data, self._own)
        if problems:
            more = plural(len(problems) - 1, "more line")
            end = f" (and {more}: txmux check)" if problems[1:] else ""
            raise _wrong(f"{self._path}{problems[0]}{end}")
        return tokens

    def _unreadable(self, error: OSError) -> MuxError:
        return _wrong(f"{self._path} cannot be read: {error.strerror}")

    def _all(self) -> Sequence[AdminToken]:
        return [*filter(None, [self._own]), *self._others]


def _wrong(why: str) -> MuxError:
    return MuxError(f"[txmux] admin_tokens: {why}")
