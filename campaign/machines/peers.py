"""txmux and its peers in the same trouble: each leads clients that begin with E to a server that answers, and with B to a bad one."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs

from benchmarks.children import is_listening
from campaign.machines.trouble import BAD, ECHO
from tests.interop.children import Child, eventually
from tests.interop.mux import Mux
from tests.processes.running import family_of, is_gone
from tests.support.ports import free_port


@attrs.frozen
class Setting:
    """What a proxy is told.

    Attributes:
        folder: For its files.
        good: The port of the server that answers.
        bad: That of the other one, which has a second to take a connection.
        idle: Seconds after which a connection to that one ends on which nothing comes.
    """

    folder: Path
    good: int
    bad: int
    idle: int = 3600


@attrs.frozen
class Proxy:
    """One that runs.

    Attributes:
        child: The process that was started.
        ports: Where clients come that begin with each of both bytes.
    """

    child: Child
    ports: Mapping[bytes, int]

    def pids(self) -> list[int]:
        """Give all its processes."""
        while not is_gone(self.child.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one has just ended
                return [pid for pid in family_of(self.child.pid) if not is_gone(pid)]
        return []

    def told(self, name: str) -> list[str]:
        """Read what the kernel tells of each of its processes (proc(5))."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/{name}").read_text())
        return found

    @contextlib.contextmanager
    def limited(self, kind: int, limit: Callable[[int], int]) -> Iterator[None]:
        """Have less of something in each process for a while.

        Args:
            kind: Of what, as `resource` has it.
            limit: Tells how much a process may have, by its number.
        """
        before = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                _, hard = resource.prlimit(pid, kind)
                before[pid] = resource.prlimit(pid, kind, (limit(pid), hard))
        yield
        # Those that it has started meanwhile have inherited what there was.
        (own,) = {*before.values()}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                resource.prlimit(pid, kind, own)

    def end(self) -> None:
        """End all its processes, whatever they wait for."""
        if not is_gone(self.child.pid):
            os.kill(self.child.pid, signal.SIGSTOP)  # it starts no other one
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.child.wait()


_TXMUX = """
[listen public]
endpoint = 127.0.0.1:0
detect_timeout = 10m

[route good]
match   = payload text=E
backend = 127.0.0.1:{good}

[route bad]
match   = payload text=B
backend = bad

[backend bad]
server          = 127.0.0.1:{bad}
connect_timeout = 1s
retries         = 0
eject           = off
idle_timeout    = {idle}s
"""

_HAPROXY = """
defaults
    mode tcp
    backlog 1024
    timeout client 1h
    timeout connect 1s
    timeout server 1h
frontend public
    bind 127.0.0.1:{port}
    tcp-request inspect-delay 10m
    tcp-request content accept if {{ req.len ge 1 }}
    use_backend good if {{ req.payload(0,1) -m str E }}
    default_backend bad
backend good
    server only 127.0.0.1:{good}
backend bad
    retries 0
    timeout server {idle}s
    server only 127.0.0.1:{bad}
"""

_NGINX = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user root;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/nginx.err crit;
events {{ worker_connections 4096; }}
stream {{
    proxy_connect_timeout 1s;
    server {{ listen 127.0.0.1:{port} backlog=1024; proxy_pass 127.0.0.1:{good}; }}
    server {{ listen 127.0.0.1:{second} backlog=1024; proxy_pass 127.0.0.1:{bad}; proxy_timeout {idle}s; }}
}}
"""

_SSLH = """
numeric: true;
foreground: true;
timeout: 600;
listen: ( {{ host: "127.0.0.1"; port: "{port}"; }} );
protocols: (
    {{ name: "regex"; host: "127.0.0.1"; port: "{good}"; regex_patterns: [ "^E" ]; }},
    {{ name: "regex"; host: "127.0.0.1"; port: "{bad}"; regex_patterns: [ "^B" ]; }}
);
"""


def _txmux(setting: Setting) -> Proxy:
    values = attrs.asdict(setting)
    mux = Mux(setting.folder, _TXMUX.format(**values), "workers = 2\nadmin = off")
    mux.child.wait_for("serving with 2 worker")
    return Proxy(mux.child, {ECHO: mux.port, BAD: mux.port})


def _started(text: str, program: str, *arguments: str) -> Callable[[Setting], Proxy]:
    """Tell how to start a program with a file of this text; ``{}`` stands for its path."""

    def start(setting: Setting) -> Proxy:
        port, second = free_port(), free_port()
        file = setting.folder / f"{program}.conf"
        file.write_text(text.format(port=port, second=second, **attrs.asdict(setting)))
        child = Child(program, *(word.format(file) for word in arguments))
        asked = {port, second if "{second}" in text else port}
        eventually(lambda: all(map(is_listening, asked)), f"{program} listens")
        return Proxy(child, {ECHO: port, BAD: max(asked - {port}, default=port)})

    return start


PEERS: Mapping[str, Callable[[Setting], Proxy]] = {
    "txmux": _txmux,
    "HAProxy": _started(_HAPROXY, "haproxy", "-W", "-db", "-f", "{}"),
    "nginx": _started(_NGINX, "nginx", "-e", "stderr", "-c", "{}"),
    "sslh": _started(_SSLH, "sslh", "-F{}"),
    "sslh-select": _started(_SSLH, "sslh-select", "-F{}"),
}
"""How each is started, with two worker processes where it has such."""
