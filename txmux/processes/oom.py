"""Whom the kernel kills first when memory has run out (``oom_score_adj``, proc(5)).

Without the supervisor nobody serves, and it is usually the largest process. So the others of a service come before it: first a
new supervisor that does not serve yet, then the starter and the workers. The helper has the supervisor's score.
"""

from contextlib import suppress
from pathlib import Path

_SCORE = Path("/proc/self/oom_score_adj")
_MORE = 300
"""What workers have more than the supervisor: 30 % of the memory that there is."""
_MOST = 1000


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


def score_of_workers() -> str:
    """Return the score for the starter, as its argument; empty if the system has none."""
    own = own_score() if _usual is None else _usual
    return "" if own is None else str(own + _MORE)
