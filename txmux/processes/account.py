"""The user that the process becomes after opening what takes privileges."""

import ctypes
import errno
import grp
import os
import pwd
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from txmux.classes import frozen
from txmux.errors import MuxError
from txmux.files import groups_of
from txmux.processes.libc import c_call, system_call
from txmux.processes.worker.seccomp import MACHINES
from txmux.rules.model import Rules
from txmux.rules.problems import Problem

_NO_ID = 2**32 - 1
_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
# `struct __user_cap_header_struct`, of version 3.
_CAPABILITIES = (ctypes.c_uint32 * 2)(0x20080522, 0)


class AccountError(MuxError):
    """The process cannot become the user of the rules; `problems` are lines of these that rule it out on every machine."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.problems = problems


@frozen
class UserAccount:
    """A user, by its name or its ID in digits, and the group that the process gets.

    Attributes:
        more: IDs of groups that the user gets besides its own ones.
    """

    user: str
    uid: int
    gid: int
    more: tuple[int, ...] = ()

    @property
    def is_current(self) -> bool:
        return (os.getuid(), os.geteuid()) == (self.uid, self.uid)

    def check(self) -> None:
        if not self.is_current and os.geteuid() != 0:
            raise AccountError(
                f"[txmux] user: this process is user {os.geteuid()}, and only root can become {self.user!r}; "
                "start it as root, or remove the key if systemd or 'twistd --uid' has changed the user already"
            )

    @property
    def group(self) -> str:
        """The name of the group; where it has none, as that of a user whom systemd makes, that of the user."""
        try:
            return grp.getgrgid(self.gid).gr_name
        except KeyError:
            return str(self.gid) if self.user.isdecimal() else self.user

    @property
    def owner(self) -> tuple[int, int]:
        return (self.uid, self.gid)

    def become(self) -> bool:
        """Become this user for good; return whether the process was another user before.

        It is an `AccountError` if that fails, or can be undone.
        """
        self.check()
        if self.is_current:
            return False
        try:
            # In this order: a process that is no longer root cannot change groups.
            os.setgroups(self.groups())
            os.setgid(self.gid)
            _leave_session_keyring()
            os.setuid(self.uid)
            _drop_capabilities()
        except OSError as problem:
            message = f"[txmux] user: cannot switch to user {self.user!r}: {problem.strerror}"
            raise AccountError(message) from problem
        with suppress(PermissionError):
            os.setuid(0)
            raise AccountError(
                f"[txmux] user: this process became {self.user!r}, but could go back to root, and so could an intruder; "
                "take the capability CAP_SETUID from it, or remove the key"
            )
        return True

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Make this process, which is root, open files as this user until the context ends.

        It is an `AccountError` if that fails.
        """
        if os.geteuid() == self.uid:
            yield
            return
        groups, gid, is_root = os.getgroups(), os.getegid(), os.geteuid() == 0
        try:
            try:
                os.setgroups(self.groups())
                os.setegid(self.gid)
                os.seteuid(self.uid)
            except OSError as problem:
                raise AccountError(
                    f"cannot open files as user {self.user!r}: {problem.strerror}; run this as root"
                ) from problem
            yield
        finally:
            if is_root:
                os.seteuid(0)
                os.setegid(gid)
                os.setgroups(groups)

    def groups(self) -> list[int]:
        return [*groups_of(self.uid, self.gid), *self.more]


def _leave_session_keyring() -> None:
    """Join an empty one (session-keyring(7)): what is in that of root may be read by all who have it."""
    numbers, _ = MACHINES.get(os.uname().machine, ({}, 0))
    if sys.platform == "linux" and numbers:
        try:
            system_call(numbers["keyctl"], ctypes.c_long(_JOIN_SESSION_KEYRING), ctypes.c_long(0))
        except OSError as problem:
            # A kernel without keys, or a container that may not use any, has none to be read.
            if problem.errno not in {errno.ENOSYS, errno.EPERM}:
                raise


def _drop_capabilities() -> None:
    """Drop also those that a change of the user leaves: the inheritable ones, and all of a process that has locked securebits."""
    if sys.platform == "linux":
        # Ambient capabilities are always inheritable, so that they go with these (capabilities(7)).
        c_call("capset", _CAPABILITIES, (ctypes.c_uint32 * 6)())


def account_of(rules: Rules) -> UserAccount | None:
    """Return the account in the rules, if any. It is an `AccountError` if it is unusable, or the rules need root later, too."""
    settings = rules.settings
    if settings.user is None:
        return None
    account = find_account(settings.user, settings.group)
    if not account.is_current:
        message = "client needs the capability CAP_NET_ADMIN as long as txmux runs, and 'user' in [txmux] gives it up; let systemd change the user and leave it that capability instead"
        in_need = [one for one in rules.backends.values() if "client" in one.source]
        if in_need:
            problems = [one.section.problem(message, "source") for one in in_need]
            raise AccountError(f"[backend {in_need[0].name}] source: {message}", problems)
    account.check()
    return account


def find_account(user: str, group: str | None, where: str = "[txmux] ") -> UserAccount:
    """Return the account of a user, with its own group or a named one; an `AccountError`, which begins with `where`, if there is none."""
    number = None if group is None else group_id(group, where)
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if user.isdecimal() and number is not None and int(user) < _NO_ID:
            return UserAccount(user, int(user), number)  # as in a container without a list of users
        message = f"{where}user: there is no user {user!r} on this machine; create it, or name another one"
        raise AccountError(message) from None
    return UserAccount(user, entry.pw_uid, entry.pw_gid if number is None else number)


def group_id(group: str, where: str) -> int:
    if group.isdecimal() and int(group) < _NO_ID:
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        message = f"{where}group: there is no group {group!r} on this machine; create it, or name another one"
        raise AccountError(message) from None
