"""What a service has when no client is there, process by process: it must come back to that."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import attrs

from tests.interop.children import eventually
from tests.processes.running import family_of, is_gone

INSIDE = Path(__file__).parent / "inside"
"""Of what each process tells about itself; see there."""
COUNTED = ("processes", "descriptors", "threads", "timers", "readers")
"""What must never be more again when all clients have gone."""
_TOLD = "told"
_PLACES, _SIZE = 512, 64
"""Of the file in which each process tells about itself, at a place by its ID."""
KEPT_PIPES = 64
"""Ends of pipes that a process may keep for later: two pools of 16 pipes."""


@attrs.frozen
class State:
    """All processes of a service together.

    Attributes:
        processes: How many there are.
        memory: Bytes, where a page that several have counts in parts.
        descriptors: How many are open, without pipes.
        pipes: How many of pipes are open.
        threads: Of all processes.
        timers: That are set.
        readers: Of all reactors.
    """

    processes: int
    memory: int
    descriptors: int
    pipes: int
    threads: int
    timers: int
    readers: int

    def differences(self, before: State) -> list[str]:
        """Name what is counted and was less before."""
        names = (name for name in COUNTED if getattr(self, name) > getattr(before, name))
        found = [f"{name} {getattr(before, name)} to {getattr(self, name)}" for name in names]
        if self.pipes > KEPT_PIPES * self.processes:
            found.append(f"pipes to {self.pipes}")
        return found

    def least(self, other: State) -> State:
        """Give the lower one of each number."""
        return State(*map(min, attrs.astuple(self), attrs.astuple(other)))


def make_told(folder: Path) -> Path:
    """Make the file in which processes tell about themselves."""
    told = folder / _TOLD
    told.write_bytes(bytes(_PLACES * _SIZE))
    return told


def look(pid: int, folder: Path) -> State:
    """Look at a service.

    Args:
        pid: Its supervisor.
        folder: Where its processes tell about themselves.
    """
    while True:
        pids = [one for one in family_of(pid) if not is_gone(one)]
        told = [told for told in (_ask(one, folder) for one in pids) if told]
        if len(told) == len(pids):  # a worker has not been replaced just now
            break
    files = [[*_links(one)] for one in pids]
    pipes = sum(name.startswith("pipe:") for names in files for name in names)
    return State(
        processes=len(pids),
        memory=sum(map(_memory, pids)),
        descriptors=sum(map(len, files)) - pipes,
        pipes=pipes,
        threads=sum(len(list(Path(f"/proc/{one}/task").iterdir())) for one in pids),
        timers=sum(one["timers"] for one in told),
        readers=sum(one["readers"] for one in told),
    )


def _ask(pid: int, folder: Path) -> dict[str, int]:
    """Have a process tell about itself; one that has ended tells nothing."""
    place = pid % _PLACES * _SIZE
    with (folder / _TOLD).open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), bytes(_SIZE), place)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGRTMIN)

        def told() -> bytes:
            return os.pread(file.fileno(), _SIZE, place).strip(b"\0")

        eventually(lambda: bool(told()) or is_gone(pid), f"process {pid} tells about itself")
        found: dict[str, int] = json.loads(told() or b"{}")
    return found


def _links(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return found


def _memory(pid: int) -> int:
    match = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def growth(measured: Sequence[int]) -> int:
    """Tell by how much something has grown, from the middle of its first third to that of the last; 0 if that is too few."""
    third = len(measured) // 3
    return int(median(measured[-third:]) - median(measured[:third])) if third else 0
