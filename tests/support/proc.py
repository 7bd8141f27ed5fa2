import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.interop.children import eventually
from txmux.processes.forking import exit_after


def forked(run: Callable[[], object]) -> int:
    """Return a process that does this, and ends: one that failed would go on as another one that runs these tests."""
    pid = os.fork()  # noqa: TID251
    if not pid:
        exit_after(run)
    return pid


def pids_of(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name_of(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    return ""


def named(pid: int, name: str) -> list[int]:
    return [child for child in pids_of(pid) if name_of(child) == f"txmux: {name}"]


def starter_of(pid: int) -> int:
    (starter,) = named(pid, "starter")
    return starter


def workers_of(pid: int) -> list[int]:
    """Return the workers that the present starter of a supervisor has forked, the oldest first."""
    found: list[int] = []
    for starter in named(pid, "starter"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found += pids_of(starter)
    return found


def family_of(pid: int) -> list[int]:
    return [pid, *(one for child in pids_of(pid) for one in family_of(child))]


def is_gone(pid: int) -> bool:
    try:
        return _state(pid) == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def oom_score_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def await_oom_scores(pid: int, *expected: int) -> None:
    """Wait until a supervisor, its starter and its workers have these. A worker has the starter's until it runs."""

    def scores() -> list[int]:
        found: list[int] = []
        for one in (pid, starter_of(pid), *workers_of(pid)):
            with suppress(FileNotFoundError, ProcessLookupError):  # ended
                found.append(oom_score_of(one))
        return found

    eventually(lambda: scores() == [*expected], f"{pid} and its children have {expected}")


def halt(*pids: int) -> None:
    """Stop processes, which go on until the kernel has run them once more."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: all(_state(pid) == "T" for pid in pids), f"the processes {pids} halt")


@contextmanager
def halted(pids: Collection[int]) -> Iterator[None]:
    """Stop processes for a while, so that the others accept all clients. Workers are replaced after ten seconds."""
    try:
        halt(*pids)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):  # it has been replaced
                os.kill(pid, signal.SIGCONT)


def worker_of(connection_id: str) -> str:
    return connection_id.partition("-")[0]


def open_files(pid: int) -> set[str]:
    found = set()
    # It has ended, or is about to: then what it had is root's.
    with suppress(FileNotFoundError, PermissionError, ProcessLookupError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.add(str(link.readlink()))
    return found


def count_descriptors(*kinds: str) -> int:
    """Count those of this process that lead to something of these kinds."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that the list is read with
            count += str(link.readlink()).startswith(kinds)
    return count


def has_connection(pid: int, end: socket.socket) -> bool:
    return _has_socket(pid, _port(end.getpeername()[1]), column=1)


def serves(pid: int, client: socket.socket) -> bool:
    return _has_socket(pid, _port(client.getsockname()[1]), column=2)


def _has_socket(pid: int, port: str, column: int) -> bool:
    inodes = [words[9] for words in _tcp_sockets(port) if words[column].endswith(port)]
    return not open_files(pid).isdisjoint(f"socket:[{inode}]" for inode in inodes)


def listening_inode(port: int) -> str:
    own = _port(port)
    address = int.from_bytes(socket.inet_aton("127.0.0.1"), sys.byteorder)
    place = f"{address:08X}{own}"  # others may have the port elsewhere
    (inode,) = (words[9] for words in _tcp_sockets(own) if words[1] == place and words[3] == "0A")
    return inode


def connecting_to(port: int) -> int:
    """Count the sockets that wait for an answer of this port (SYN_SENT)."""
    return sum(
        words[2].endswith(_port(port)) and words[3] == "02" for words in _tcp_sockets(_port(port))
    )


def _port(number: int) -> str:
    return f":{number:04X}"


def _tcp_sockets(port: str) -> list[list[str]]:
    """Return the rows with a port at either end; there may be thousands in TIME_WAIT."""
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return [line.split() for line in lines if f"{port} " in line]


def cpu_time(processes: Iterable[int]) -> float:
    """Return the seconds of processor time that processes have used (proc(5))."""
    ticks = 0
    for pid in processes:
        _, _, fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        ticks += sum(map(int, fields.split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")
