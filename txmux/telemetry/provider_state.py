"""Whether the source of a provider answers, in a file beside its rules file that the service reads.

The provider keeps a lock on the file, so what a killed one has left is not believed.
"""

import fcntl
import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic

from txmux.classes import frozen
from txmux.errors import printable
from txmux.files import on_disk, replace_file
from txmux.rules.model import Rules
from txmux.rules.reading.files import included_paths
from txmux.telemetry.sources import LONGEST_WHY, OVERDUE, SourceState
from txmux.wire.jsontext import MISSHAPEN, parse_json

MODE = 0o644  # the service is another user
_MOST = 4096  # bytes
_MOST_OF_USER = 16  # sources of a user who is neither root nor the operator
_EFFECT = "what was known stays in use"


def _state_path(path: Path) -> Path:
    # It is hidden, so that no pattern of `include` matches it.
    return path.with_name(f".{path.name}.state")


class StateFile:
    """Says whether the source of a provider answers, as long as this process runs.

    Args:
        path: The rules file.
    """

    def __init__(self, path: Path) -> None:
        self._path = _state_path(path)
        self._why: str | None = None
        self._since = 0.0
        self._has_answered = False
        self._lock: int | None = None

    def report(self, why: str) -> None:
        """Write the file if this is new; `why` is empty while the source answers."""
        if why == self._why:
            return
        if not (why and self._why):  # another reason is no other outage
            self._since = monotonic()
        self._has_answered = self._has_answered or not why
        state = {
            "why": printable(why, LONGEST_WHY),
            "since": self._since,
            "has_answered": self._has_answered,
        }
        with suppress(OSError):  # nor can the rules be written then, which is logged
            self._path.parent.mkdir(exist_ok=True)
            replace_file(self._path, json.dumps(state).encode(), self._prepare)
            self._why = why

    def close(self) -> None:
        """Ignore what the file says from now on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _prepare(self, number: int) -> None:
        os.fchmod(number, MODE)
        fcntl.flock(number, fcntl.LOCK_EX)
        self.close()
        self._lock = os.dup(number)  # the lock ends with the last descriptor of the file


@frozen
class ReportedSource:
    """What a provider that runs says of its source.

    Attributes:
        name: Whose it is.
        why: Why it does not answer; empty if it does.
        since: Since when that is so, by the monotonic clock.
        has_answered: Whether it has answered that provider.
    """

    name: str
    why: str
    since: float
    has_answered: bool

    def state(self, now: float) -> SourceState:
        failing = max(0.0, now - self.since) if self.why else 0.0
        age = failing if self.has_answered else None
        overdue = failing >= OVERDUE
        return SourceState(self.name, not self.why, age, failing, overdue, self.why, _EFFECT)


def reported_sources(rules: Rules) -> list[ReportedSource]:
    """Read what the providers say whose files these rules include, or would include if they were there."""
    folder, authors = Path(rules.path).parent, rules.files.authors
    trusted, counts = {0, authors.get("", os.geteuid())}, Counter[int]()
    found = []
    for pattern in rules.files.included:
        hidden = _state_path(Path(pattern))
        for path in included_paths(folder, str(hidden)):
            with suppress(OSError, *MISSHAPEN), on_disk(path):
                data, user = _read_if_locked(path)
                rules_file = path.with_name(path.name.removeprefix(".").removesuffix(".state"))
                # Others who may write there say nothing of it, and not too much of files that are not there.
                counts[user] += 1
                is_its = (
                    authors.get(str(rules_file), user) == user and counts[user] <= _MOST_OF_USER
                )
                if data and (is_its or user in trusted):
                    state = parse_json(data)
                    its = f"provider {rules_file}", printable(state["why"], LONGEST_WHY)
                    since, has_answered = float(state["since"]), bool(state["has_answered"])
                    found.append(ReportedSource(*its, since, has_answered))
    return found


def _read_if_locked(path: Path) -> tuple[bytes, int]:
    """Return what is in a file that another process has locked, else nothing, and whose it is."""
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(number, "rb") as file:  # noqa: PTH123 - a descriptor
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read(_MOST), os.fstat(number).st_uid
    return b"", -1
