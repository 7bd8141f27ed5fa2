"""When a process is struck: at a message between two processes, which the table of messages names."""

from __future__ import annotations

import attrs

UPGRADE, RELOAD, WORKERS = "upgrade", "reload", "other numbers of workers"
CHANGES = (UPGRADE, RELOAD, WORKERS)
KILLED, HALTED, RESUMED = "killed", "halted", "halted for a while"
VICTIMS = (
    "old supervisor",
    "new supervisor",
    "old worker",
    "new worker",
    "old starter",
    "new starter",
)
HELPERS = ("helper",)
"""With `user` alone."""


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
        """Give what the hook reads."""
        return f"{self.kind},{self.act},{self.count},{self.process}"


@attrs.frozen
class Strike:
    """What befalls whom, when.

    Attributes:
        change: Which change is under way.
        victim: Which process.
        how: `KILLED`, `HALTED` for good, or `RESUMED` after some seconds.
        moment: As above.
    """

    change: str
    victim: str
    how: str
    moment: Moment

    def __str__(self) -> str:
        return f"{self.change}: {self.victim} {self.how} when {self.moment}"


MATRIX = {
    UPGRADE: {
        "before the commit": Moment("count_on", "is answered", "old supervisor"),
        "at it": Moment("serve", "receives", "new supervisor"),
        "after it": Moment("adopt", "receives", "new worker", 2),
    },
    RELOAD: {
        "before the commit": Moment("prepare", "receives", "worker"),
        "at it": Moment("commit", "receives", "worker"),
        "after it": Moment("commit", "is answered", "supervisor"),
    },
    WORKERS: {
        "before the commit": Moment("prepare", "receives", "worker"),
        "at it": Moment("commit", "receives", "worker"),
        "after it": Moment("adopt", "receives", "worker", 2),
    },
}
"""The moments of the table."""
