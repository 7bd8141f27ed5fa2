"""Child processes of the benchmark: started with a time limit, measured, and ended by their own process id."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_LISTEN, _UNCONNECTED = "0A", "07"
_PATIENCE = 60.0
_PORT_COUNT = 2_700
_PORTS = itertools.cycle(range(30_000, 30_000 + _PORT_COUNT))
"""Those that benchmarks choose from: tests have those below, and Linux gives outgoing connections those above."""
_QUIET, _QUIET_SHARE = 0.15, 0.05
"""Seconds for which a program that has nothing to do is quiet, and the share of them that it may work all the same."""


class BenchmarkError(Exception):
    """Something could not be measured; the message says what and why."""


class Child:
    """A server that runs while something is measured.

    It is started below ``timeout``, so that it ends even if the benchmark itself is killed.

    Args:
        command: The program and its arguments.
        log: The file that takes what it prints.
        cores: The CPU cores that it may use.
        limit: Seconds after which it is ended, whatever happens.
    """

    def __init__(
        self, command: Sequence[str], log: Path, cores: Iterable[int], limit: float = 300.0
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["timeout", "--kill-after=5", f"{limit:g}", *pinned(cores), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Self:
        """Give itself; `end` comes at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """End it."""
        self.end()

    def end(self) -> None:
        """End it and the processes that it has started."""
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            # `timeout` leads a process group of its own, with all that it started in it.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_PATIENCE)

    @property
    def pid(self) -> int:
        """The process group of all that it has started, as `timeout` makes one."""
        return self._process.pid

    def has_ended(self) -> bool:
        """Tell whether it has ended by itself."""
        return self._process.poll() is not None

    def last_words(self) -> str:
        """Give the last line that it printed."""
        return last_line(self.log.read_text(errors="replace"))

    def started(self) -> set[int]:
        """Give the processes that it has started."""
        return descendants(self.pid) - {self.pid}

    def cpu(self) -> float:
        """Give the CPU time of all its processes so far, see `cpu_time`, in seconds."""
        return sum(map(cpu_time, self.started()))

    def lifetime_cpu(self) -> float:
        """Give the CPU time of all its processes so far, also of those that have ended, in seconds."""
        return sum(map(lifetime_cpu, self.started()))

    def main(self) -> int:
        """Give the process that it has started first."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def memory(self) -> int:
        """Give the resident memory of all its processes, in bytes; what they share counts once."""
        return sum(map(proportional, self.started()))

    def settled(self) -> float:
        """Wait until it has nothing to do, and give the CPU time that all its processes took, in seconds.

        Raises:
            BenchmarkError: It has always something to do.
        """
        spent = [-1.0]

        def is_quiet() -> bool:
            time.sleep(_QUIET)
            spent.append(self.cpu())
            # What has much to do, and does not get a CPU core or its data, takes no time either.
            is_idle = spent[-1] - spent[-2] < _QUIET_SHARE * _QUIET
            return is_idle and not any(map(_is_busy, self.started()))

        eventually(is_quiet, "it has nothing to do")
        return spent[-1]


def _statistics(pid: int) -> list[str]:
    """Give the fields of ``/proc/PID/stat`` from the third on (proc(5)); none if the process has ended."""
    with contextlib.suppress(OSError):
        # The name of the program may have blanks in it, and ends at the last parenthesis.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []


def descendants(pid: int) -> set[int]:
    """Give the children of a process, theirs, and so on."""
    everyone = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    parents = {child: int(fields[1]) for child in everyone if (fields := _statistics(child))}
    found: set[int] = set()
    ahead = {pid}
    while ahead:
        ahead = {child for child, parent in parents.items() if parent in ahead}
        found |= ahead
    return found


def cpu_time(pid: int) -> float:
    """Give the CPU time that the threads of a process took so far, user's and system's together, in seconds.

    It is what the scheduler has counted, in nanoseconds (``Documentation/scheduler/sched-stats.rst`` of Linux). The ticks of ``/proc/PID/stat``
    are samples, and miss much of what sleeps and wakes often. Threads that have ended are not in it.
    """
    total = 0
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((path / "schedstat").read_text().split()[0])
    return total / 1e9


def lifetime_cpu(pid: int) -> float:
    """Give the CPU time that a process took so far, and those of its children that have ended, in seconds (proc(5), in ticks)."""
    return sum(map(int, _statistics(pid)[11:15])) / _TICKS


def _is_busy(pid: int) -> bool:
    """Tell whether a thread of a process runs, waits for a CPU core, or for a disk (proc(5))."""
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                if (path / "stat").read_text().rpartition(")")[2].split()[0] in "RD":
                    return True
    return False


def threads(pid: int) -> list[int]:
    """Give the threads of a process (proc(5)); none if it has ended."""
    with contextlib.suppress(OSError):
        return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    return []


def is_asleep(pid: int) -> bool:
    """Tell whether all threads of a process wait for something to do: none runs, nor is halted for whatever traces it (proc(5))."""
    return all(_statistics(thread)[:1] == ["S"] for thread in threads(pid))


def name_of(pid: int) -> str:
    """Give the name of a process (proc(5)); none if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    return ""


def resident(pid: int) -> int:
    """Give the resident memory of a process, in bytes (proc(5))."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def proportional(pid: int) -> int:
    """Give the resident memory of a process, in bytes, its part alone of what it shares with others (proc(5), `Pss`)."""
    with contextlib.suppress(OSError):
        match = re.search(
            r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE
        )
        return int(match[1]) * 1024 if match else 0
    return 0


def pinned(cores: Iterable[int]) -> list[str]:
    """Give the command that starts another one on these CPU cores."""
    return ["taskset", "--cpu-list", ",".join(map(str, cores))]


def last_line(text: str) -> str:
    """Give the last line that has a word in it: JSON of an error ends with brackets."""
    lines = [line.strip() for line in text.splitlines() if re.search(r"\w", line)]
    return lines[-1] if lines else "it said nothing"


def output_of(command: Sequence[str], cores: Iterable[int], limit: float = 300.0) -> str:
    """Run a load generator to its end.

    Args:
        command: The program and its arguments.
        cores: The CPU cores that it may use.
        limit: Seconds that it may take.

    Returns:
        What it wrote to its standard output.

    Raises:
        BenchmarkError: It failed, or took too long.
    """
    try:
        done = subprocess.run(
            [*pinned(cores), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{command[0]} took more than {limit:g} s") from None
    if done.returncode:
        raise BenchmarkError(
            f"{command[0]} gave {done.returncode}: {last_line(done.stderr or done.stdout)}"
        )
    return done.stdout


def cost_of(command: Sequence[str], cores: Iterable[int], limit: float = 300.0) -> float:
    """Run a program to its end, and give the CPU time that it took, see `cpu_time`, in seconds.

    Args:
        command: The program and its arguments.
        cores: The CPU cores that it may use.
        limit: Seconds that it may take.

    Raises:
        BenchmarkError: It failed, or took too long.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [*pinned(cores), *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        # One that has ended can be looked at until somebody has waited for it.
        how = os.WEXITED | os.WNOWAIT | os.WNOHANG
        try:
            eventually(
                lambda: os.waitid(os.P_PID, process.pid, how) is not None,
                f"{command[0]} has ended",
                limit,
            )
            spent = cpu_time(process.pid)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        if process.returncode:
            said = last_line(output.read().decode(errors="replace"))
            raise BenchmarkError(f"{command[0]} gave {process.returncode}: {said}")
    return spent


def eventually(condition: Callable[[], bool], what: str, patience: float = _PATIENCE) -> None:
    """Wait until something is so.

    Raises:
        BenchmarkError: It was not so within that many seconds; ``what`` says what it was.
    """
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {patience:g} s in vain until {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def free_ports(count: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[list[int]]:
    """Choose ports of 127.0.0.1 that nothing has, and that no benchmark chooses, this one included, until the block ends.

    Raises:
        BenchmarkError: Fewer are free.
    """
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in itertools.islice(_PORTS, _PORT_COUNT):
            if len(found) == count:
                break
            # A name, since what is meant for a program that does not listen yet, or not always, looks free; an abstract one is no file (unix(7)).
            keeper = stack.enter_context(socket.socket(socket.AF_UNIX))
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, kind) as probe:
                keeper.bind(f"\0txmux-benchmarks-{port}")
                probe.bind(("127.0.0.1", port))
                found.append(port)
        if len(found) < count:
            raise BenchmarkError(f"{count} ports are needed, and {len(found)} are free")
        yield found


def is_listening(port: int) -> bool:
    """Tell whether somebody listens on a port, without a connection: iperf3 would count it as a client."""
    return _is_there("tcp", port, _LISTEN)


def is_bound(port: int) -> bool:
    """Tell whether somebody has a port of UDP."""
    return _is_there("udp", port, _UNCONNECTED)


def _is_there(protocol: str, port: int, state: str) -> bool:
    rows = Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]
    fields = (row.split() for row in rows)
    return any(row[1].endswith(f":{port:04X}") and row[3] == state for row in fields)


@contextlib.contextmanager
def process(target: Callable[[], object]) -> Iterator[None]:
    """Run something beside."""
    forked = multiprocessing.get_context("fork").Process(target=target, daemon=True)
    forked.start()
    try:
        yield
    finally:
        forked.kill()
        forked.join()
