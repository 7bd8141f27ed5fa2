"""Forks small processes before this one has a reactor or a thread, and names processes."""

import ctypes
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from txmux.classes import frozen
from txmux.net.tls.deferred import import_reactor_without_tls
from txmux.processes.held_signals import held, release_signals


def environment() -> dict[str, str]:
    """Return an environment in which another Python process has the import path of this one."""
    paths = [path or str(Path.cwd()) for path in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


_PATIENCE = 2.0
"""Seconds that a process may take to end."""
_SET_NAME, _SET_CHILD_SUBREAPER = 15, 36  # prctl(2)
_STDERR = 2
_FOR_THE_SUPERVISOR = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
"""systemd and terminals send these to all processes of a service; only the supervisor acts on them."""


@frozen(eq=False)
class Child:
    """A child process, and this one's end of the pair of packet sockets (``SOCK_SEQPACKET``, unix(7)) between them.

    Attributes:
        is_forked: Whether it has what was in the memory of this process.
    """

    pid: int
    connection: socket.socket
    is_forked: bool = False

    def wait(self) -> None:
        """Wait for its end, after `connection` was closed; kill it if it hangs and this process may do that."""
        until = time.monotonic() + _PATIENCE
        with suppress(ChildProcessError, PermissionError):
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > until:
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
                    break
                time.sleep(0.005)


def how_ended(status: int | None) -> str:
    if status is None:
        return "ended"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was killed by signal {number} ({signal.Signals(number).name})"
    return f"exited with status {os.waitstatus_to_exitcode(status)}"


def can_fork() -> bool:
    return "twisted.internet.reactor" not in sys.modules and threading.active_count() == 1


def spawn(module: str, *arguments: str) -> Child:
    """Start a process that runs ``main(connection, *arguments)`` of a module; raises `OSError`.

    It is forked if this process can be, so that they share memory; otherwise it is a fresh Python.
    """
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    main: Callable[..., object]

    def run() -> None:
        # As in a fresh process: an inherited descriptor could give a worker access to other processes.
        own.close()
        os.closerange(_STDERR + 1, other.fileno())
        os.closerange(other.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        with open(os.devnull) as nothing:  # noqa: PTH123 - for its descriptor
            os.dup2(nothing.fileno(), 0)
        main(other, *arguments)

    with other, held():  # until it calls `ignore_signals`
        is_forked = can_fork()
        try:
            if is_forked:
                main = import_module(module).main
                gc.freeze()  # its pages stay shared while the collector does not touch them
                pid = os.fork()  # noqa: TID251
                if not pid:
                    exit_after(run)
            else:
                pid = subprocess.Popen(  # nosec B603  # noqa: S603 - this very program
                    [sys.executable, "-m", __name__, module, str(other.fileno()), *arguments],
                    stdin=subprocess.DEVNULL,
                    env=environment(),
                    pass_fds=[other.fileno()],
                ).pid
        except OSError:
            own.close()
            raise
    return Child(pid, own, is_forked)


def exit_after(run: Callable[[], Any]) -> None:
    """Run a function, and end this forked process with its result as exit status."""
    status = 1
    try:
        status = run() or 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:  # noqa: BLE001 - it must not run the code of its parent
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(status)


def ignore_signals(*others: signal.Signals) -> None:
    """Ignore these signals and those for the whole service, which the supervisor handles."""
    for number in (*_FOR_THE_SUPERVISOR, *others):
        signal.signal(number, signal.SIG_IGN)
    release_signals()


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents end, where the system can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def name_process(title: str) -> None:
    """Set the name of this process in ``ps`` and ``pgrep`` to ``txmux: …``, where the system can.

    The package setproctitle, which the extra ``txmux[titles]`` installs, changes the command line; without it, only the name of
    the process changes (prctl(2), ``PR_SET_NAME``), of which Linux keeps 15 bytes.
    """
    try:
        from setproctitle import setproctitle  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415 - an extra
    except ImportError:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_SET_NAME, f"txmux: {title}".encode()[:15], 0, 0, 0)
    else:
        setproctitle(f"txmux: {title}")


if __name__ == "__main__":
    import_reactor_without_tls()
    import_module(sys.argv[1]).main(socket.socket(fileno=int(sys.argv[2])), *sys.argv[3:])
