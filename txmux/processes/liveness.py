"""Judges by what a process does whether it hangs, and not by the clock alone.

On a small or a busy machine a process answers late: it waits for the processor, or works for seconds in one turn of its loop. Neither
is a fault, and to replace it would make all the others later still. So a process hangs if, since its loop last turned, it has

- waited for too long: it slept in a system call, or was halted, and used no processor time. A process that is ready to run and is not
  given the processor (others have it, or the quota of its control group is used up) does not wait; or
- run for too long, in processor time of its own, as in an endless loop.
"""

import os
from contextlib import suppress
from pathlib import Path

import attrs

from txmux.classes import define, frozen

MOST_SILENT = 10
"""Seconds that a process may wait in one turn of its loop."""
MOST_SILENT_AT_WORK = 60
"""The same while it starts, imports modules or prepares rules, and where the system does not show what it does."""

LONGEST_TURN = 20.0
"""Seconds of processor time that one turn of a loop may take."""
LONGEST_TURN_AT_WORK = 120.0
"""The same while it starts, imports modules or prepares rules: with 20,000 routes, a few seconds on a fast processor."""

_SUSPECT = 3
"""Seconds of waiting after which a process is reported; one that does its work waits for less than two."""

_PROC = "/proc"
_RUNNABLE = "R"
_HALTED = "Tt"
_ENDED = "ZXx"
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
"""The units of processor time in a second."""


@frozen
class ProcessActivity:
    """What a process or its main thread has done, and what it does now.

    Attributes:
        state: A letter of proc(5).
        cpu: Seconds of processor time.
        faults: How often it has waited for a page of its memory: each time it went on afterwards.
    """

    state: str
    cpu: float
    faults: int = 0

    @property
    def has_ended(self) -> bool:
        return self.state in _ENDED

    @property
    def is_halted(self) -> bool:
        return self.state in _HALTED

    @property
    def waits(self) -> bool:
        return self.state != _RUNNABLE and not self.has_ended


def activity_of(pid: int) -> ProcessActivity | None:
    """Return what a process does; ``None`` if the system does not show it. Other threads may work while its loop hangs."""
    return _activity_in(Path(f"{_PROC}/{pid:d}/task/{pid:d}"))


def is_halted(pid: int) -> bool:
    now = activity_of(pid)
    return now is not None and now.is_halted


def activity_of_threads(pid: int) -> ProcessActivity | None:
    """Return what all threads of a process do together, one of which may work while its loop waits."""
    folder = Path(f"{_PROC}/{pid:d}")
    found = _activity_in(folder)
    with suppress(OSError):
        if found is not None and any(map(_is_runnable, (folder / "task").iterdir())):
            return attrs.evolve(found, state=_RUNNABLE)
    return found


def _is_runnable(thread: Path) -> bool:
    found = _activity_in(thread)
    return found is not None and found.state == _RUNNABLE


def _activity_in(folder: Path) -> ProcessActivity | None:
    try:
        text = (folder / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ProcessActivity("X", 0.0) if Path(f"{_PROC}/self/stat").exists() else None
    except OSError:
        return None
    with suppress(IndexError, ValueError):
        state, *numbers = text.rpartition(") ")[2].split()
        return ProcessActivity(
            state, (int(numbers[10]) + int(numbers[11])) / _TICKS, int(numbers[8])
        )
    return None


def activity_of_family(pid: int) -> ProcessActivity | None:
    """Return what a process and its descendants do, of all their threads; ``None`` if the system does not show it."""
    states, cpu, faults, left = set(), 0, 0, [pid]
    while left:
        folder = Path(f"{_PROC}/{left.pop():d}")
        try:
            state, *numbers = (
                (folder / "stat").read_text(errors="replace").rpartition(") ")[2].split()
            )
            # With what its children that have ended had used.
            cpu, faults = cpu + sum(map(int, numbers[10:14])), faults + int(numbers[8])
            states.add(state)
            for thread in (folder / "task").iterdir():
                left += map(int, (thread / "children").read_text().split())
        except (OSError, IndexError, ValueError):
            if (folder / "task" / folder.name).exists() or not Path(f"{_PROC}/self/stat").exists():
                return None  # CONFIG_PROC_CHILDREN is not set
    shown = next((state for state in (_RUNNABLE, *sorted(states)) if state in states), "X")
    return ProcessActivity(shown, cpu / _TICKS, faults)


def workers_of(pid: int) -> list[int]:
    """Return the workers of a supervisor, as far as the system shows them."""
    found, left = list[int](), [pid]
    with suppress(OSError, ValueError):
        while left:
            folder = Path(f"{_PROC}/{left.pop():d}/task")
            for thread in folder.iterdir():
                children = [*map(int, (thread / "children").read_text().split())]
                found += filter(is_worker, children)
                left += children
    return found


def is_worker(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"{_PROC}/{pid:d}/comm").read_text().startswith("txmux: worker")
    return False


@define
class HangDetector:
    """Judges one process, by a `look` each second.

    Looks are counted, and not seconds, in case the machine is suspended.

    Attributes:
        waited: The looks since its loop last turned at which it waited, and had done nothing since the look before.
        ran: The processor time since then, in seconds.
    """

    waited: int = 0
    ran: float = 0.0
    _last: ProcessActivity | None = None

    def observe(
        self, now: ProcessActivity | None, *, has_turned: bool, is_cut_off: bool = False
    ) -> None:
        """Add what has happened since the last look.

        Args:
            now: What the process does; ``None`` if that is unknown.
            has_turned: Whether its loop has turned.
            is_cut_off: Whether messages no longer reach the process, so that it might as well hang.
        """
        before, self._last = self._last, now
        if has_turned and not is_cut_off:
            self.waited, self.ran = 0, 0.0
        elif now is None or (is_cut_off and not now.has_ended):
            self.waited += 1
        elif before is not None:
            self.ran += max(0.0, now.cpu - before.cpu)
            has_run = (now.cpu, now.faults) != (before.cpu, before.faults)
            self.waited += now.waits and not has_run

    @property
    def is_suspect(self) -> bool:
        # No process that does its work waits for as long.
        return self.waited >= (_SUSPECT if self._last is not None else MOST_SILENT)

    @property
    def is_halted(self) -> bool:
        return self.waited > 0 and self._last is not None and self._last.is_halted

    def why(self, *, at_work: bool = False, most_silent: int = 0) -> str:
        """Return why the process hangs, a part of a sentence; or nothing if it lives.

        Args:
            at_work: Whether it starts, imports modules or prepares rules.
            most_silent: The seconds that it may wait, if these are others.
        """
        at_work = at_work or self._last is None
        if self._last is None or not most_silent:
            most_silent = MOST_SILENT_AT_WORK if at_work else MOST_SILENT
        if self.waited >= most_silent:
            return f"has done nothing for {self.waited} s, though it could run"
        if self.ran >= (LONGEST_TURN_AT_WORK if at_work else LONGEST_TURN):
            return f"has used {self.ran:.0f} s of processor time without answering"
        return ""
