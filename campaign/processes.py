"""The processes of a service, and the streams that each of them has."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.support.proc import name_of, open_files


class Family:
    """The processes of a service, which is the leader of a session; those that it starts may begin a session of their own."""

    def __init__(self, session: int) -> None:
        self._sessions = {str(session)}
        self._old: set[int] = set()

    def pids(self) -> list[int]:
        """Return those that live, the oldest first."""
        names = [path.name for path in Path("/proc").iterdir() if path.name.isdecimal()]
        stats = {pid: stat_of(int(pid)) for pid in names}
        found: list[str] = []
        for pid in sorted(names, key=lambda pid: (int(stats[pid][19]), int(pid))):
            state, parent, _, session = stats[pid][:4]
            if parent in found:
                self._sessions.add(session)
            if session in self._sessions and state not in "ZX":
                found.append(pid)
        return [*map(int, found)]

    def change_begins(self) -> None:
        self._old = set(self.pids())

    def called(self, name: str) -> list[int]:
        """Return those called ``worker``, or ``old worker`` and the like."""
        *age, role = name.split()
        return [
            pid
            for pid in self.pids()
            if role_of(pid) == role and (not age or (pid in self._old) is (age == ["old"]))
        ]

    def kill(self) -> None:
        for pid in reversed(self.pids()):
            send(pid, 9)


def role_of(pid: int) -> str:
    """Return what a process is; a supervisor has no name before it serves."""
    name = name_of(pid).removeprefix("txmux: ")
    return next(
        (one for one in ("starter", "helper", "worker") if name.startswith(one)), "supervisor"
    )


def stat_of(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` from the state on, which is ``X`` for one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return ["X", "0", *"0" * 30]


def state_of(pid: int) -> str:
    return stat_of(pid)[0]


def parent_of(pid: int) -> int:
    return int(stat_of(pid)[1])


def streams_in(pids: Iterable[int], port: int) -> dict[int, set[int]]:
    """Return the clients' ports of the connections that each of these processes has accepted at a port."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    own = f":{port:04X}"
    ports = {f"socket:[{row[9]}]": int(row[2][-4:], 16) for row in rows if row[1].endswith(own)}
    return {pid: {ports[name] for name in open_files(pid) if name in ports} for pid in pids}


def send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
