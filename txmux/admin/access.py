"""Who may use the endpoint ``admin``, and what for."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
from collections.abc import Iterable, Mapping
from contextlib import suppress

import attrs

from txmux.rules.model.settings import RIGHTS, AdminUser, Right
from txmux.rules.reading.tokens import AdminToken

_ROOT = 0


@attrs.frozen
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


NOBODY = AdminAccess(users={})


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
