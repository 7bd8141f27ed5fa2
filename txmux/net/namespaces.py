"""Users and groups that this process's user namespace does not know (user_namespaces(7))."""

import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

UNKNOWN = -1
"""Stands for each user, or group, without a number here: it is none of those that rules name, and not this process's."""

_ALL = 2**32 - 1  # the last number means none
_USUAL = 65534


def known_user(number: int) -> int:
    # The kernel gives this number for all users that are not mapped.
    return UNKNOWN if number == overflow_ids()[0] else number


def known_group(number: int) -> int:
    return UNKNOWN if number == overflow_ids()[1] else number


def user_text(number: int) -> str:
    return (
        "a user that this user namespace does not know" if number == UNKNOWN else f"user {number}"
    )


@cache
def overflow_ids() -> tuple[int | None, int | None]:
    """Return the number of all users, and of all groups, that are not mapped; ``None`` where all are.

    A confined process cannot find it out, so it is called before.
    """
    return overflow_id("uid"), overflow_id("gid")


def overflow_id(kind: str, proc: Path = Path("/proc")) -> int | None:
    number = _USUAL if sys.platform == "linux" else None
    with suppress(OSError):  # as in a unit with ProcSubset=pid
        number = int((proc / f"sys/kernel/overflow{kind}").read_text())
    with suppress(OSError):  # /proc may not be mounted
        ranges = (proc / f"self/{kind}_map").read_text().split()
        return number if sum(map(int, ranges[2::3])) < _ALL else None
    return number
