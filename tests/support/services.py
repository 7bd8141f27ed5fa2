import json
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from tests.admin.processes import get, post
from tests.interop.children import PATIENCE, Child, eventually
from tests.support.proc import is_gone, workers_of

Change = tuple[str, str]
"""A regular expression for text of the rules, and what takes its place."""

RELAYS = "auto", "portable"

Record = dict[str, Any]
"""A line of the access log."""


def twist_command() -> list[str]:
    twist = str(Path(sys.executable).with_name("twist"))
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        return [sys.executable, str(Path(__file__).with_name("measured_twist.py")), twist]
    return [twist]


def command_for(rules: Path, *, by_run: bool) -> tuple[str | Path, ...]:
    """Return the command that serves rules as they are, by ``txmux run`` or by ``twist``, with its own log as text."""
    if by_run:
        return (sys.executable, "-m", "txmux", "run", rules)
    return (*twist_command(), "--log-format=text", "txmux", "--rules", rules)


class Twist:
    """``twist txmux`` with any options, run by the command `before`; or another `program` that serves, which exits with 0."""

    def __init__(
        self, *options: str | Path, before: Sequence[str] = (), program: Any = (), reactor: str = ""
    ) -> None:
        # With which it ends when it is stopped: twist ends itself with the signal that it was sent.
        self.status = 0 if program else -signal.SIGTERM
        named = [f"--reactor={reactor}"] if reactor else []
        command = program or [*twist_command(), *named, "--log-format=text", "txmux"]
        self.child = Child(*before, *command, *options)
        self._taken: dict[str, int] = {}

    @property
    def output(self) -> str:
        return self.child.output

    def terminate(self) -> None:
        self.child.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        self.terminate()
        self.assert_stopped()

    def end(self) -> None:
        self.stop()

    def assert_stopped(self) -> None:
        self._assert_well(self.status)

    def _assert_well(self, *statuses: int) -> None:
        """Wait for its end, and check its log, and its exit status if only these are right."""
        status = self.child.wait()
        if (statuses and status not in statuses) or re.search("Traceback|Unhandled", self.output):
            raise AssertionError(f"exit status {status}, having said:\n{self.output}")

    # Its access log, if it has one.

    def lines(self, listener: str = "") -> list[Record]:
        raise NotImplementedError

    def take(self, count: int = 1, listener: str = "") -> list[Record]:
        """Wait for the lines of exactly this many further connections in the access log, of one listener or all."""
        taken = self._taken.get(listener, 0)
        eventually(
            lambda: _connections(self.lines(listener)[taken:]) >= count,
            f"the access log has {count} new connections",
        )
        lines = self.lines(listener)[taken:]
        self._taken[listener] = taken + len(lines)
        if _connections(lines) != count:
            found = [(line["route"], line["reason"]) for line in lines]
            raise AssertionError(f"{count} connections were expected, and logged were {found}")
        return lines

    def take_one(self, listener: str = "") -> Record:
        return self.take(1, listener)[0]

    def take_fields(self, *names: str, listener: str = "") -> tuple[Any, ...]:
        """Wait for one new line of the access log, and return some of its fields."""
        line = self.take_one(listener)
        return tuple(line[name] for name in names)


def _connections(lines: Iterable[Record]) -> int:
    return sum(line.get("count", 1) for line in lines)


class Service(Twist):
    """A running service with an access log in JSON, and what a test does to it: reload, upgrade, kill, connect, log, api.

    It is ``twist txmux``, or ``txmux run`` if `program` is ``run``. An upgrade replaces the process; `pid` is the one that serves.

    Args:
        folder: Where a folder for its files is made.
        rules: All sections but ``[txmux]``; without a listener, there is one on any port.
        settings: Lines of ``[txmux]`` besides those of the access log.
        program: ``twist`` or ``run``.
        admin: Whether it has an admin endpoint, for `api`.
        before: A command that runs the rest of its arguments as a command.
        options: Of the program.

    Attributes:
        file: The rules.
        log: The access log.
        pidfile: Names the process that serves.
        admin: The socket of its admin endpoint.
        ports: The first port of each listener.
        pid: The process that serves.
        before: The one that it has replaced.
    """

    def __init__(
        self,
        folder: Path,
        rules: str,
        settings: str = "",
        *,
        program: Literal["twist", "run"] = "twist",
        admin: bool = False,
        before: Sequence[str] = (),
        options: Sequence[str | Path] = (),
        reactor: str = "",
    ) -> None:
        own = Path(tempfile.mkdtemp(prefix="txmux-", dir=folder))
        own.chmod(0o755)  # it may become another user
        self.file, self.log, self.pidfile, self.admin = (
            own / name for name in ("rules.ini", "access.log", "pid", "admin.sock")
        )
        if "[listen " not in rules:
            rules = f"[listen public]\nendpoint = 127.0.0.1:0\n{rules}"
        if admin:
            settings += f"\nadmin = unix:{self.admin}"
        self.file.write_text(
            f"[txmux]\naccess_log = {self.log}\naccess_log_format = json\n{settings}\n{rules}"
        )
        is_run = program == "run"
        super().__init__(
            *("--pidfile", self.pidfile, *options, *((self.file,) if is_run else ("--rules", self.file))),
            before=before,
            program=(sys.executable, "-m", "txmux", "run") if is_run else (),
            reactor=reactor,
        )  # fmt: skip
        self.ports: dict[str, int] = {}
        for name in re.findall(r"^\[listen (.*)\]$", rules, re.MULTILINE):
            place = r"(?:unix:\S+|\S+:(\d+)(?:-\d+)?)"
            match = self.child.wait_for(rf"listening on {place} for \[listen {name}\]")
            if match[1]:
                self.ports[name] = int(match[1])
        self.child.wait_for("serving with ")
        eventually(self.pidfile.exists, "it is named")
        # A process in a namespace of its own has another number in its pidfile.
        self.before = self.pid = self.child.pid
        self._pids = [self.pid]
        self._is_signalled = False

    @property
    def port(self) -> int:
        (port,) = self.ports.values()
        return port

    @property
    def workers(self) -> list[int]:
        return workers_of(self.pid)

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def inodes(self) -> set[str]:
        """Return what tells the TCP sockets apart that listen at its ports."""
        return {row[9] for row in self._sockets("0A")}

    def established(self) -> list[list[str]]:
        return self._sockets("01")

    def _sockets(self, state: str) -> list[list[str]]:
        ports = {f"{port:04X}" for port in self.ports.values()}
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return [row for row in rows if row[3] == state and row[1].partition(":")[2] in ports]

    # Clients.

    def connect(self, source: str = "") -> socket.socket:
        # Bound to no port beforehand, which would have to be one that no connection at all uses.
        bound = (source, 0) if source else None
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE, bound)

    @override
    def lines(self, listener: str = "") -> list[Record]:
        whole, _, _ = self.log.read_text().rpartition("\n")
        lines = map(json.loads, whole.splitlines())
        return [line for line in lines if listener in ("", line["listener"])]

    # The API.

    def api(self, path: str, body: object = None) -> Any:
        """Return the document at a path below ``/api``, or what the service answers to an order with `body`."""
        path = f"/api/{path}"
        return get(self.admin, path) if body is None else post(self.admin, path, body)

    def attention(self, what: str = "") -> list[Record]:
        """Return what needs attention, of one topic or all."""
        return [one for one in self.api("status")["attention"] if what in ("", one["what"])]

    # Other rules.

    def edit(self, *changes: Change) -> None:
        text = self.file.read_text()
        for old, new in changes:
            assert re.search(old, text)
            text = re.sub(old, new, text)
        self.file.write_text(text)

    def reload(self, *changes: Change) -> str:
        """Reload with these changes, and return what the log says."""
        return self.reloaded(self.ask_to_reload(*changes))

    def ask_to_reload(self, *changes: Change) -> int:
        """Request a reload with these changes, and return the number of earlier ones."""
        if changes:
            self.edit(*changes)
        count = len(self._reloads())
        os.kill(self.pid, signal.SIGHUP)
        return count

    def reloaded(self, before: int) -> str:
        """Wait for the next reload, and return what the log says."""
        eventually(lambda: len(self._reloads()) > before, "the rules are reloaded")
        return self._reloads()[-1]

    def _reloads(self) -> list[str]:
        return re.findall(r"(?:rules reloaded|reload failed)[:,] .*", self.output)

    # Another process.

    def ask(self) -> None:
        os.kill(self.pid, signal.SIGUSR2)

    def upgrade(self) -> None:
        old = [*self.replace(), self.before]
        eventually(lambda: all(map(is_gone, old)), "the old processes have ended")

    def replace(self) -> list[int]:
        """Have a new process serve, and return the old workers, which may still have connections."""
        self.ask()
        return self.switched()

    def switched(self) -> list[int]:
        """Wait until another process serves, and return the old workers."""
        workers, self.before = list[int](), self.pid
        with suppress(FileNotFoundError):  # it has been killed
            workers = self.workers
        eventually(lambda: self.named() != self.before, "another process serves")
        self.follow()
        return workers

    def named(self) -> int:
        return int(self.pidfile.read_text())

    def follow(self) -> None:
        self.pid = self.named()
        if self.pid not in self._pids:
            self._pids.append(self.pid)

    def refuse(self, why: str) -> None:
        """Request an upgrade that fails for this reason."""
        count = len(self._refusals(why))
        self.ask()
        eventually(lambda: len(self._refusals(why)) > count, f"the upgrade fails: {why}")
        if self.named() != self.pid:
            raise AssertionError("another process serves")

    def _refusals(self, why: str) -> list[str]:
        # What the new process has said itself may come before the log's entry, whose further lines are indented.
        entries = re.findall(
            r"upgrade failed, the old process keeps serving: .*(?:\n\t.*)*", self.output
        )
        return [entry for entry in entries if re.search(why, entry)]

    # Its end, and that of its processes.

    def signal(self, number: int) -> int:
        """Send a signal to the process that the pidfile names now, and return its number."""
        self.follow()
        os.kill(self.pid, number)
        return self.pid

    def kill(self, worker: int) -> None:
        old, before = self.workers, self.output.count("serving with")
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: self.output.count("serving with") > before, "other workers serve")
        new = self.workers
        if len(new) != len(old) or {*old} - {*new} != {worker}:
            raise AssertionError(f"of the workers {old}, {worker} was killed: now they are {new}")

    @override
    def end(self) -> None:
        """Stop it and check that it ends well; leave none of its processes."""
        try:
            self.stop()
        finally:
            self.kill_all()

    def kill_all(self) -> None:
        with suppress(OSError, ValueError):
            self.follow()  # a test that fails may not have followed an upgrade
        for pid in self._pids:
            with suppress(ProcessLookupError):  # it ends just now
                if not is_gone(pid):
                    os.kill(pid, signal.SIGKILL)
        self.child.wait()  # its workers end by themselves

    @override
    def terminate(self) -> None:
        if not is_gone(self.pid):
            os.kill(self.pid, signal.SIGTERM)
            self._is_signalled = True

    @override
    def assert_stopped(self) -> None:
        eventually(lambda: all(map(is_gone, self._pids)), "all processes have ended")
        replaced = len(self._pids) > 1
        # Who is stopped by the API exits with 0.
        statuses = (self.status,) if self._is_signalled else (self.status, 0)
        self._assert_well(*(() if replaced else statuses))


def pool_rules(*servers: str, more: str = "") -> str:
    lines = "\n    ".join(servers)
    return f"""
[listen public]
endpoint = 127.0.0.1:0
[route all]
match   = any
backend = pool

[backend pool]
server = {lines}
{more}
"""
