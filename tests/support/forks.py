"""Programs of this environment, forked from a process that has imported them: a third of the time that a fresh Python takes to start.

The process of which they are forked is a child of the tests' own. It waits, and imports nothing before the first program is wanted.
"""

import gc
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import tests.support.compiled  # noqa: F401 - changes the environment
from tests.support.alone import see_no_services
from txmux.processes.forking import Child, environment, name_process

_PACKET = 2**17  # bytes
_BIN = Path(sys.executable).parent
_SCRIPTS = frozenset((str(_BIN / "twist"), str(_BIN / "txmux")))
_AT_START = ("COVERAGE_", "LANG", "LC_", "LD_", "MALLOC_", "PYTHON")
"""How variables begin that Python or the C library reads when it starts, or that have coverage look at it."""


class Program:
    """A program that was forked, with what the tests use of `subprocess.Popen`."""

    def __init__(self, args: list[str], pid: int, ended: socket.socket) -> None:
        self.args = args
        self.pid = pid
        self.stdin: IO[bytes] | None = None
        self.stdout: IO[bytes] | None = None
        self.returncode: int | None = None
        self._ended = ended
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None and _is_ready(self._ended, 0):
                self.returncode = int(self._ended.recv(64) or -signal.SIGKILL)
                self._ended.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (threading.TIMEOUT_MAX if timeout is None else timeout)
        while (status := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with suppress(ValueError):  # another thread has the status
                _is_ready(self._ended, min(deadline - time.monotonic(), 60))
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def can_fork(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether a command is ``python -m txmux``, `txmux` or `twist` of this environment, and a fork is like a fresh process.

    Before it may be ``env NAME=VALUE…``, and then ``python -c CODE…`` whose code passes sockets on as systemd does, by `os.execv`.
    Folders with nothing but a ``sitecustomize.py`` may have been added to ``PYTHONPATH``.
    """
    environ, before, words = _split(words, environ)
    is_known = (words[:1] and words[0] in _SCRIPTS) or words[:3] == [sys.executable, "-m", "txmux"]
    while folder := _customization(environ):
        rest = environ["PYTHONPATH"].removeprefix(folder).removeprefix(os.pathsep)
        environ = {**environ, "PYTHONPATH": rest}
    is_alike = _network() == _FORKED_IN and _at_start(environ) == _FORKED_WITH
    return bool(is_known and is_alike and (not before or "LISTEN_FDS" in before[0]))


def _customization(environ: Mapping[str, str]) -> str:
    """Return the first folder of ``PYTHONPATH`` if it has just a ``sitecustomize.py`` that does not look at imports."""
    folder = Path(environ.get("PYTHONPATH", "").partition(os.pathsep)[0])
    program = folder / "sitecustomize.py"
    is_alone = program.exists() and {*folder.iterdir()} <= {program, folder / "__pycache__"}
    return str(folder) if is_alone and "meta_path" not in program.read_text() else ""


def _split(
    words: Sequence[str], environ: Mapping[str, str]
) -> tuple[dict[str, str], list[str], list[str]]:
    """Split a command into its environment, the code and the arguments that come before a program, and the program."""
    environ, words = dict(environ), [*words]
    if Path(words[0]).name == "env":
        del words[0]
        while words and "=" in words[0]:
            name, _, environ[name] = words.pop(0).partition("=")
    if words[:2] != [sys.executable, "-c"]:
        return environ, [], words
    at = next((n for n in range(3, len(words)) if words[n] in {*_SCRIPTS, sys.executable}), 0)
    return environ, words[2:at], words[at:] if at else []


def start(words: list[str], environ: Mapping[str, str], *, stdin: bool) -> Program:
    reading, writing = os.pipe()
    given, giving = os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), -1)
    try:
        program = _fork(words, environ, [given, writing, writing])
    finally:
        os.close(given)
        os.close(writing)
    program.stdout = os.fdopen(reading, "rb")
    program.stdin = os.fdopen(giving, "wb") if stdin else None
    return program


def run(
    words: list[str], environ: Mapping[str, str], stdin: bytes, timeout: float
) -> subprocess.CompletedProcess[bytes]:
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin)
        given.seek(0)
        program = _fork(words, environ, [one.fileno() for one in (given, out, err)])
        try:
            status = program.wait(timeout)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(words, status, out.read(), err.read())


def starter() -> Child:
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        return Child(_ask({}, [other.fileno()]), own)


def forked() -> list[str]:
    return Path(f"/proc/{_server_pid}/task/{_server_pid}/children").read_text().split()


def _fork(words: list[str], environ: Mapping[str, str], streams: Sequence[int]) -> Program:
    environ, before, program = _split(words, environ)
    how = {"words": program, "before": before, "environ": environ, "umask": _umask()}
    how |= {"cwd": str(Path.cwd()), "files": resource.getrlimit(resource.RLIMIT_NOFILE)}
    ended, ending = socket.socketpair()
    with ending:
        return Program(words, _ask(how, [*streams, ending.fileno()]), ended)


def _at_start(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: its for name, its in environ.items() if its and name.startswith(_AT_START)}


def _network() -> str:
    """Return the network namespace of this thread, which some tests change."""
    try:
        return str(Path("/proc/thread-self/ns/net").readlink())
    except FileNotFoundError:  # not Linux
        return ""


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def _is_ready(waited: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(waited, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _ask(how: Mapping[str, Any], descriptors: Sequence[int]) -> int:
    with _asking:
        socket.send_fds(_server, [json.dumps(how).encode()], descriptors)
        return int(_server.recv(64))


def _start() -> tuple[socket.socket, int]:
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        number, none = other.fileno(), subprocess.DEVNULL
        command = [sys.executable, "-m", __name__, str(number)]
        server = subprocess.Popen(
            command, stdin=none, stdout=none, env=environment(), pass_fds=[number]
        )
    return own, server.pid


def _serve(connection: socket.socket) -> Callable[[], object] | None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    woken, wake = socket.socketpair()
    wake.setblocking(False)  # noqa: FBT003 - the socket module's signature
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    running: dict[int, int] = {}  # where the status is wanted, by the process ID
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if woken.fileno() in ready:
            woken.recv(_PACKET)
            _report_ended(running)
        if connection.fileno() in ready:
            packet, descriptors, _, _ = socket.recv_fds(connection, _PACKET, 4)
            if not packet:
                return None
            _import()
            pid = os.fork()  # noqa: TID251
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for one in (connection, woken, wake):
                    one.close()
                for number in running.values():
                    os.close(number)
                return lambda: _run(descriptors, **json.loads(packet))
            if len(descriptors) > 1:
                running[pid] = descriptors.pop()
            for number in descriptors:
                os.close(number)
            connection.send(b"%d" % pid)


def _import() -> None:
    """Import what programs and their processes need; the reactor not, since it would keep them from forking."""
    from txmux.net.tls.deferred import import_reactor_without_tls, import_web_without_email  # noqa: PLC0415 - not in the tests

    import_reactor_without_tls()
    import_web_without_email()
    from twisted.application.twist import _twist  # noqa: F401, PLC0415

    from txmux.admin import endpoint, site  # noqa: F401, PLC0415
    from txmux.cli import twist  # noqa: F401, PLC0415
    from txmux.processes import opening_server, service, starter  # noqa: F401, PLC0415
    from txmux.processes.supervisor import worker  # noqa: F401, PLC0415

    see_no_services()
    # Where it may write the name of a process, it finds out with the first one, by the variables that the process began with.
    name_process("tests")
    gc.freeze()  # each program would look through all of this when it ends, and get its own copy, which takes a quarter of a second


def _report_ended(running: dict[int, int]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if (wanted := running.pop(ended[0], None)) is not None:
                with suppress(OSError), socket.socket(fileno=wanted) as ending:
                    ending.send(b"%d" % os.waitstatus_to_exitcode(ended[1]))


def _run(
    descriptors: list[int],
    words: Sequence[str] = (),
    before: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    cwd: str = "",
    umask: int = 0,
    files: tuple[int, int] = (0, 0),
) -> None:
    if not words:
        from txmux.processes.starter import main  # noqa: PLC0415 - as above

        main(socket.socket(fileno=descriptors[0]))
        return
    for number, one in enumerate(descriptors):
        if number < 3:
            os.dup2(one, number)
        os.close(one)
    os.environ.clear()
    os.environ.update(environ or {})
    os.chdir(cwd)
    os.umask(umask)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)
    if before:
        _run_before(*before, *words)
    is_module = words[0] == sys.executable
    sys.orig_argv = [*words] if is_module else [sys.executable, *words]
    if folder := _customization(os.environ):
        sys.path.insert(0, folder)
        _customize(Path(folder, "sitecustomize.py").read_text())
    if is_module:
        sys.argv[:] = ["txmux", *words[3:]]
        runpy.run_module("txmux", run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = words  # `twist` has kept the list
        runpy.run_path(words[0], run_name="__main__")


def _customize(code: str) -> None:
    """Run this as if it had run first: other modules that have imported what it changes get that, too."""
    modules = [its for name, its in sys.modules.items() if name.startswith("txmux.")]
    before = [dict(vars(module)) for module in modules]
    exec(code, {"__name__": "sitecustomize"})
    for module, known in zip(modules, before, strict=True):
        for name, old in known.items():
            new = vars(module)[name]
            if new is not old and not name.startswith("_"):
                for other in modules:
                    if vars(other).get(name) is old:
                        setattr(other, name, new)


class _ExecutedError(BaseException):
    """In place of a call that does not return."""


def _run_before(code: str, *arguments: str) -> None:
    """Run code up to its `os.execv`, with all that an exec does to descriptors; the program is that of `_run`."""

    def execute(*_: object) -> None:
        raise _ExecutedError

    sys.argv[:] = ["-c", *arguments]
    variables = {"__name__": "__main__"}
    execv, os.execv = os.execv, execute  # type: ignore[assignment]
    with suppress(_ExecutedError):
        exec(code, variables)
    os.execv = execv
    _kept.append(variables)  # objects that own descriptors, whose numbers others may have soon
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - not of the folder's own descriptor
        with suppress(OSError):
            if int(name) > 2 and not os.get_inheritable(int(name)):
                os.close(int(name))


_kept: list[object] = []

if __name__ == "__main__":
    run_it = _serve(socket.socket(fileno=int(sys.argv[1])))
    if run_it is not None:
        run_it()
else:
    _asking = threading.Lock()
    _FORKED_WITH, _FORKED_IN = _at_start(os.environ), _network()
    _server, _server_pid = _start()  # before tests are watched for what they leave behind
