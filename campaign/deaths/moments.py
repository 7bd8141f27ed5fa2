"""When a process is struck: at a message between two processes, which the table of messages names."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import attrs

import txmux.control.gauges  # noqa: F401 - it has a row of the table
from txmux.net.channel.messages import MESSAGES

UPGRADE, RELOAD, MORE, FEWER = "upgrade", "reload", "2 to 3 workers", "2 to 1 workers"
CHANGES = (UPGRADE, RELOAD, MORE, FEWER)
KILLED, HALTED, RESUMED = "killed", "halted", "halted for a while"
SUPERVISORS = ("old supervisor", "new supervisor")
HELPER = "helper"
VICTIMS = (*SUPERVISORS, "old worker", "new worker", "old starter", "new starter", HELPER)
"""Whom it befalls: those that were there before the change, and those that it starts. There is a helper with `user` alone."""


@attrs.frozen
class Moment:
    """A moment of a change.

    Attributes:
        kind: Of a message.
        act: What is done with it: ``sends``, ``receives``, ``answers``, or ``is answered``.
        process: Who does it: a supervisor or a worker, ``old``, ``new`` or either.
        count: How often that process does it until then.
    """

    kind: str
    act: str
    process: str = ""
    count: int = 1

    def __str__(self) -> str:
        who = self.process or "a process"
        return f"{who} {self.act} {self.kind}{f' {self.count}' if self.count > 1 else ''}"

    @property
    def environment(self) -> str:
        """Give what the hook reads, but for the file that has to be there."""
        return f"{self.kind},{self.act},{self.count},{self.process}"


ANY = Moment("*", "")
"""The hook writes what happens, and halts nobody."""


@attrs.frozen
class Strike:
    """What befalls whom, when."""

    change: str
    victim: str
    how: str
    moment: Moment

    def __str__(self) -> str:
        return f"{self.change}: {self.victim} {self.how} when {self.moment}"


_PREPARED = {
    "before the commit": Moment("prepare", "receives", "worker"),
    "at it": Moment("commit", "receives", "worker"),
    "after it": Moment("commit", "is answered", "supervisor"),
}
MATRIX = {
    UPGRADE: {
        "before the commit": Moment("count_on", "is answered", "old supervisor"),
        "at it": Moment("serve", "receives", "new supervisor"),
        "after it": Moment("adopt", "receives", "new worker", 2),
    },
    RELOAD: _PREPARED,
    MORE: _PREPARED,
    FEWER: {**_PREPARED, "after it": Moment("adopt", "receives", "worker", 2)},
}
"""Moments around the commit of each change."""


def can_befall(change: str, victim: str) -> bool:
    return (
        change == UPGRADE
        or not victim.startswith("new")
        or (change, victim) == (MORE, "new worker")
    )


@cache
def moments() -> Collection[tuple[str, str]]:
    """Give what may happen with the messages of the table; some of it happens in no change."""
    found = set()
    for row in MESSAGES:
        found |= {(row.kind, "sends"), (row.kind, "receives")}
        if row.answer is not None:
            found |= {(row.kind, "answers"), (row.kind, "is answered")}
    return found
