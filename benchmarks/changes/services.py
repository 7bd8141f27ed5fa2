"""The proxies, in equal configurations: each leads one port to one server, and looks at no bytes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import attrs

from benchmarks.children import BenchmarkError, eventually
from benchmarks.proxies import chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.proxies import Proxy

_TRIES = 4
_PATIENCE = 5.0  # seconds from one to the next

_TXMUX = """
[txmux]
access_log    = $DIR/access.log
workers       = $WORKERS
drain_timeout = $LIMIT

[listen public]
endpoint = 127.0.0.1:$PORT
default  = 127.0.0.1:$SERVER

[route spare$NUMBER]
match   = minecraft
backend = close
"""
# As its package runs it; `expose-fd listeners` passes the sockets to the next worker.
_HAPROXY = """
global
    maxconn 4000
    nbthread $WORKERS
    stats socket $DIR/haproxy.sock mode 600 level admin expose-fd listeners
    $LIMIT

defaults
    mode tcp
    backlog 4096
    timeout connect 5s
    timeout client 1h
    timeout server 1h

frontend public
    bind 127.0.0.1:$PORT
    default_backend server

backend server
    server only 127.0.0.1:$SERVER

backend spare$NUMBER
    server only 127.0.0.1:$SERVER
"""
_NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
worker_processes $WORKERS;
pid $DIR/pid;
error_log $DIR/nginx.log notice;
$LIMIT
events { worker_connections 8000; }
stream {
    upstream spare$NUMBER { server 127.0.0.1:$SERVER; }
    server { listen 127.0.0.1:$PORT backlog=4096; proxy_pass 127.0.0.1:$SERVER; proxy_timeout 1h; }
}
"""


@attrs.frozen
class Service:
    """A proxy in one configuration.

    Attributes:
        key: How it is called on the command line and in results.
        title: How it is called in reports.
        family: Which of `benchmarks.proxies` it is.
        template: Its configuration.
        arguments: Its command line, with the same values.
        workers: The processes, or threads for HAProxy, that serve.
        limit: What limits the time of connections in old processes to ``$SECONDS``.
        unlimited: The same, for connections that may go on for ever.
        log: The file in ``$DIR`` that tells of reloads.
        started: What it says when it serves.
        reloaded: What it says of each reload.
        reload_signal: What asks for one.
        upgrade: Replaces the program, which goes on with the listening sockets; gives whether that was possible.
    """

    key: str
    title: str
    family: str
    template: str
    arguments: Sequence[str]
    workers: int
    limit: str
    unlimited: str
    log: str
    started: str
    reloaded: str
    reload_signal: signal.Signals
    upgrade: Callable[[Instance], bool]

    def proxy(self) -> Proxy:
        """Give the program."""
        return chosen([self.family])[0]


@attrs.define
class Instance:
    """A service that runs.

    Attributes:
        service: Which one.
        folder: For its files.
        values: What stands for ``$NAME`` in its configuration.
        repeated: How often it had to be asked again for a reload, after several seconds.
    """

    service: Service
    folder: Path
    values: dict[str, object]
    repeated: int = 0

    def write(self, number: int) -> None:
        """Write its configuration, which differs from that of any other number."""
        text = Template(self.service.template).substitute(self.values, NUMBER=number)
        (self.folder / "config").write_text(text)

    def pid(self) -> int:
        """Give its main process; 0 while there is none to name."""
        try:
            return int((self.folder / "pid").read_text() or "0")
        except FileNotFoundError:  # also between the old name and the new one
            return 0

    def said(self) -> int:
        """Count the reloads that the log tells of."""
        return self._count(self.service.reloaded)

    def has_said(self, pattern: str) -> bool:
        """Tell whether something is in the log."""
        return self._count(pattern) > 0

    def _count(self, pattern: str) -> int:
        path = self.folder / self.service.log
        return len(re.findall(pattern, path.read_text(errors="replace") if path.exists() else ""))

    def reload(self) -> bool:
        """Have it read its configuration again, wait until it serves by it, and give True."""
        told = self.said()
        for _ in range(_TRIES - 1):
            os.kill(self.pid(), self.service.reload_signal)
            with contextlib.suppress(BenchmarkError):
                eventually(lambda: self.said() > told, "it has reloaded", _PATIENCE)
                return True
            self.repeated += 1
        os.kill(self.pid(), self.service.reload_signal)
        eventually(lambda: self.said() > told, f"{self.service.title} has reloaded")
        return True

    def has_parent(self) -> bool:
        """Tell whether the process still lives, of the same service, that has started the main process (proc(5))."""
        pid = self.pid()
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return os.getpgid(parent) == os.getpgid(pid)

    def upgrade(self) -> bool:
        """Ask for an upgrade, wait until another main process serves, and give True."""
        old, told = self.pid(), self.said()
        os.kill(old, signal.SIGUSR2)
        eventually(lambda: self.pid() not in {0, old}, f"{self.service.title} is upgraded", 70)
        if self.service.family == "nginx":
            eventually(lambda: self.said() > told, "its workers serve")
        return True


def _nginx_upgrade(instance: Instance) -> bool:
    # nginx.org/en/docs/control.html: the old master and its workers serve, too, until they are told to end. The new master takes
    # no upgrade as long as the old one lives.
    if instance.has_parent():
        return False
    old = instance.pid()
    instance.upgrade()
    os.kill(old, signal.SIGQUIT)
    return True


def _txmux(workers: int) -> Service:
    several = f", {workers} workers" if workers > 1 else ""
    return Service(
        f"txmux-{workers}",
        f"txmux{several}",
        "txmux",
        _TXMUX,
        ("run", "$DIR/config", "--pidfile", "$DIR/pid"),
        workers,
        limit="${SECONDS}s",
        unlimited="7d",
        log="output",
        started=f"serving with {workers} worker",
        reloaded=r"rules reloaded: ",
        reload_signal=signal.SIGHUP,
        upgrade=Instance.upgrade,
    )


def _haproxy(workers: int) -> Service:
    several = f", {workers} threads" if workers > 1 else ""
    return Service(
        f"haproxy-{workers}",
        f"HAProxy{several}",
        "haproxy",
        _HAPROXY,
        ("-W", "-f", "$DIR/config", "-p", "$DIR/pid"),
        workers,
        limit="hard-stop-after ${SECONDS}s",
        unlimited="",
        log="output",
        started=r"Loading success\.",
        reloaded=r"Loading success\.",
        # SIGUSR2 has the master execute the program anew, so both are one and the same
        reload_signal=signal.SIGUSR2,
        upgrade=Instance.reload,
    )


def _nginx(workers: int) -> Service:
    several = f", {workers} workers" if workers > 1 else ""
    return Service(
        f"nginx-{workers}",
        f"nginx `stream`{several}",
        "nginx",
        _NGINX,
        ("-e", "stderr", "-c", "$DIR/config"),
        workers,
        limit="worker_shutdown_timeout ${SECONDS}s;",
        unlimited="",
        log="nginx.log",
        started=r"start worker process \d+",
        reloaded=r"start worker processes\n",
        reload_signal=signal.SIGHUP,
        upgrade=_nginx_upgrade,
    )


SERVICES = tuple(make(workers) for workers in (1, 3) for make in (_txmux, _haproxy, _nginx))
