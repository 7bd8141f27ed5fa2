"""Whom the kernel kills first when memory has run out (``oom_score_adj``, proc(5)), and whom it has killed.

Without the supervisor no new client is served, and it is usually the largest process. So the others of a service come before it: first a
new supervisor that does not serve yet, then the workers, then the starter, whose successor would share no memory with the supervisor. The
helper has the supervisor's score.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from txmux.processes.forking import how_ended
from txmux.processes.memory import PROC, MemoryGroup, kills_of_machine, megabytes, memory_groups
from txmux.telemetry.attention import MEMORY_RAN_OUT

_SCORE = Path("/proc/self/oom_score_adj")
_MORE = 300
"""What workers have more than the supervisor: 30 % of the memory that there is."""
_MORE_OF_STARTER = 150
_MOST = 1000
_RECENT = 5.0  # seconds in which the end of a process that was killed is reported


def own_score() -> int | None:
    try:
        return int(_SCORE.read_text())
    except (OSError, ValueError):
        return None


def set_score(score: int) -> None:
    """Set it for this process and for those that it will start; without effect where ``/proc`` cannot be written, as in some containers.

    Any process may raise its own, and lower it again to the last value that a privileged one has written.
    """
    with suppress(OSError):
        _SCORE.write_text(str(min(score, _MOST)))


_usual: int | None = None
"""The score of this process when it serves, while it has another one."""


def go_first() -> None:
    """Be killed before the workers of the process that serves."""
    global _usual  # noqa: PLW0603 - it is about the process
    _usual = own_score()
    if _usual is not None:
        set_score(_usual + 2 * _MORE)


def go_last() -> None:
    """Be killed after all workers again."""
    global _usual  # noqa: PLW0603 - as above
    if _usual is not None:
        set_score(_usual)
        _usual = None


def score_of_supervisor() -> str:
    """Return the score that this process has when it serves, for the starter; empty if the system has none."""
    own = own_score() if _usual is None else _usual
    return "" if own is None else str(own)


class StarterScore:
    """The score of the starter, and of the workers that it forks.

    It is kept open: a process that has given up root may not open it again.

    Args:
        of_supervisor: See `score_of_supervisor`.
    """

    def __init__(self, of_supervisor: str) -> None:
        usual = int(of_supervisor or 0)
        self._own, self._of_workers = usual + _MORE_OF_STARTER, usual + _MORE
        self._file: int | None = None
        if of_supervisor:
            with suppress(OSError):
                self._file = os.open(_SCORE, os.O_WRONLY | os.O_CLOEXEC)
        self._write(self._own)

    @contextmanager
    def of_worker(self) -> Iterator[None]:
        """Fork in this context; the new process calls `close`."""
        self._write(self._of_workers)
        try:
            yield
        finally:
            self._write(self._own)

    def _write(self, score: int) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.pwrite(self._file, str(min(score, _MOST)).encode(), 0)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class OomKills:
    """Notices that the kernel has killed processes of this service since memory had run out."""

    def __init__(self, proc: Path = PROC, seconds: Callable[[], float] = time.monotonic) -> None:
        self._proc = proc
        self._seconds = seconds
        self._groups: Sequence[MemoryGroup] | None = None
        self._count: int | None = None
        self._seen: deque[float] = deque(maxlen=100)

    def look(self) -> None:
        """Count; to be called each second, since the end of a process is reported a moment after it was killed."""
        if self._groups is None:
            self._groups = memory_groups(self._proc)
        # Its own group counts also what the limit of one above, or the whole machine, has cost it.
        counts = [group.kills() for group in self._groups[:1]]
        count = counts[0] if counts and counts[0] is not None else kills_of_machine(self._proc)
        if count is not None and self._count is not None and count > self._count:
            self._seen.extend([self._seconds()] * min(count - self._count, 100))
        self._count = count

    def explain(self) -> str:
        """Return why a process has just been killed, if it was for that: a part of a sentence. Each kill explains one end."""
        self.look()
        while self._seen and self._seconds() - self._seen[0] > _RECENT:
            self._seen.popleft()
        if not self._seen:
            return ""
        self._seen.popleft()
        limits = [limit for group in self._groups or () if (limit := group.limit()) is not None]
        which = (
            f"the limit of the memory group is {megabytes(min(limits))}"
            if limits
            else "that of the machine"
        )
        return f"{MEMORY_RAN_OUT} ({which})"


KILLS = OomKills()
"""Those of this process's memory group."""


def how_killed(status: int | None) -> str:
    """Return how a process has ended, as `how_ended` does, and whether the kernel has killed it since memory had run out."""
    is_killed = (
        status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    )
    why = KILLS.explain() if is_killed else ""
    return f"was killed by the kernel: {why}" if why else how_ended(status)
