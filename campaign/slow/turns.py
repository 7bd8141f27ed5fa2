"""The debug clock: how long the longest turn of each reactor is, and what it did; `hook/sitecustomize.py` measures."""

from __future__ import annotations

import mmap
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import attrs

from campaign.deaths.trial import role_of
from campaign.slow.hook.sitecustomize import HEAD, LONGEST, NAME, NOW, PLACES, SIZE
from tests.processes.running import name_of

_HOOK = Path(__file__).parent / "hook"
_ASKS = 0.012
"""Seconds after which a turn is asked what it does: what is shorter is nobody's bar."""
_LOOKS = 0.004


@attrs.frozen
class Turn:
    """The turn of a process with the most CPU time.

    Attributes:
        name: What the process is: a supervisor or a worker.
        cpu: Seconds of CPU time.
        seconds: Seconds by the clock, in which other programs may have run.
        doing: What it did after some time: the functions, the innermost first; empty if it was short.
    """

    name: str
    cpu: float
    seconds: float
    doing: str

    def __str__(self) -> str:
        doing = f" in {self.doing}" if self.doing else ""
        return f"{self.cpu * 1000:.0f} ms of CPU time ({self.seconds * 1000:.0f} ms){doing}"


class TurnClock:
    """Measures the reactors of a service that is started with `before`, and asks those whose turn is long what they do.

    Args:
        folder: For its file.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "turns"
        self._file.write_bytes(bytes(PLACES * SIZE))
        with self._file.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._asked: dict[int, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def before(self) -> tuple[str, ...]:
        """Give a command that runs the rest of its arguments as a command that is measured."""
        path = os.pathsep.join([str(_HOOK), *filter(None, [os.environ.get("PYTHONPATH")])])
        return ("env", f"PYTHONPATH={path}", f"{NAME}={self._file}")

    def begin(self) -> None:
        """Forget the longest turns until now."""
        for place, (pid, began, _, _, cpu, count) in self._rows():
            HEAD.pack_into(self._memory, place, pid, began, 0.0, 0.0, cpu, count)
            self._memory[place + LONGEST] = 0

    def longest(self) -> dict[int, Turn]:
        """Give the longest turn of each process that lives."""
        found = {}
        for place, (pid, _, cpu, seconds, _, _) in self._rows():
            if name_of(pid):
                text = self._memory[place + LONGEST : place + SIZE].split(b"\0")[0]
                found[pid] = Turn(role_of(pid), cpu, seconds, text.decode(errors="replace"))
        return found

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()
        self._memory.close()

    def _rows(self) -> list[tuple[int, tuple[int, float, float, float, float, int]]]:
        places = range(0, PLACES * SIZE, SIZE)
        rows = [(place, HEAD.unpack_from(self._memory, place)) for place in places]
        return [(place, row) for place, row in rows if row[0]]

    def _run(self) -> None:
        looked, rows = 0.0, self._rows()
        while not self._is_over.wait(_LOOKS):
            now = time.monotonic()
            if now - looked > 0.2:
                looked, rows = now, self._rows()
            for place, _ in rows:
                pid, began, *_ = HEAD.unpack_from(self._memory, place)
                if began and now - began > _ASKS and self._asked.get(pid) != began:
                    self._asked[pid] = began
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGRTMIN)


assert NOW < LONGEST < SIZE
