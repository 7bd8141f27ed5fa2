"""``twist txmux`` as a child process."""

import json
import os
import re
import signal
import socket
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.interop.children import PATIENCE, Child, eventually

Change = tuple[str, str]
"""A regular expression for text of the rules, and what takes its place."""

Record = dict[str, Any]
"""A line of the access log."""


def twist_command() -> list[str]:
    """Return the command that runs the ``twist`` of this environment."""
    twist = str(Path(sys.executable).with_name("twist"))
    if "COVERAGE_PROCESS_CONFIG" in os.environ:
        return [sys.executable, str(Path(__file__).with_name("measured_twist.py")), twist]
    return [twist]


class Twist:
    """``twist txmux`` with any options, run by the command `before`."""

    def __init__(self, *options: str | Path, before: Sequence[str] = ()) -> None:
        self.child = Child(*before, *twist_command(), "--log-format=text", "txmux", *options)

    def terminate(self) -> None:
        self.child.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop it, unless it has stopped, and check its exit status and log."""
        self.terminate()
        self.assert_stopped()

    end = stop

    def assert_stopped(self) -> None:
        # twist ends itself with the signal that it was sent.
        status = self.child.wait()
        output = self.child.output
        if status != -signal.SIGTERM or "Traceback" in output or "Unhandled" in output:
            raise AssertionError(f"exit status {status}, having said:\n{output}")


class LoggingTwist(Twist, ABC):
    """A service with an access log."""

    def __init__(self, *options: str | Path, before: Sequence[str] = ()) -> None:
        super().__init__(*options, before=before)
        self._taken: dict[str, int] = {}

    @abstractmethod
    def lines(self, listener: str = "") -> list[Record]:
        """Return the lines of the access log, of all listeners or one."""

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


class Mux(LoggingTwist):
    """A running service, with an access log in JSON; without a listener in its rules, it has one on any port."""

    def __init__(
        self,
        folder: Path,
        rules: str,
        settings: str = "",
        *,
        before: Sequence[str] = (),
        options: Sequence[str | Path] = (),
    ) -> None:
        own = Path(tempfile.mkdtemp(prefix="txmux-", dir=folder))
        self.log = own / "access.log"
        file = self.file = own / "rules.ini"
        if "[listen " not in rules:
            rules = f"[listen public]\nendpoint = 127.0.0.1:0\n{rules}"
        file.write_text(
            f"[txmux]\naccess_log = {self.log}\naccess_log_format = json\n{settings}\n{rules}"
        )
        super().__init__("--rules", file, *options, before=before)
        self.ports: dict[str, int] = {}
        for name in _names_of_listeners(rules):
            place = r"(?:unix:\S+|\S+:(\d+)(?:-\d+)?)"
            match = self.child.wait_for(rf"listening on {place} for \[listen {name}\]")
            if match[1]:
                self.ports[name] = int(match[1])
        self.child.wait_for("serving with ")
        self.pid = self.child.pid

    @property
    def port(self) -> int:
        (port,) = self.ports.values()
        return port

    def connect(self, source: str = "") -> socket.socket:
        # Bound to no port beforehand, which would have to be one that no connection at all uses.
        bound = (source, 0) if source else None
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE, bound)

    def reload(self, *changes: Change) -> str:
        """Reload with these changes, and return what the log says."""
        return self.reloaded(self.ask_to_reload(*changes))

    def ask_to_reload(self, *changes: Change) -> int:
        """Request a reload with these changes, and return the number of earlier ones."""
        text = self.file.read_text() if changes else ""
        for old, new in changes:
            assert re.search(old, text)
            text = re.sub(old, new, text)
        if changes:
            self.file.write_text(text)
        count = len(self._reloads())
        os.kill(self.pid, signal.SIGHUP)
        return count

    def reloaded(self, before: int) -> str:
        """Wait for the next reload, and return what the log says."""
        eventually(lambda: len(self._reloads()) > before, "the rules are reloaded")
        return self._reloads()[-1]

    def _reloads(self) -> list[str]:
        return re.findall(r"(?:rules reloaded|reload failed)[:,] .*", self.child.output)

    def lines(self, listener: str = "") -> list[Record]:
        whole, _, _ = self.log.read_text().rpartition("\n")
        lines = map(json.loads, whole.splitlines())
        return [line for line in lines if listener in ("", line["listener"])]


def _names_of_listeners(rules: str) -> list[str]:
    headers = (line for line in rules.splitlines() if line.startswith("[listen "))
    return [header.removeprefix("[listen ").removesuffix("]") for header in headers]


def pool_rules(*servers: str, more: str = "") -> str:
    """Return rules with one pool of these servers for all clients."""
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
