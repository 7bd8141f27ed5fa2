"""One service, and the real servers behind it."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

from campaign.soak.state import INSIDE, make_told
from tests.interop.children import eventually, output_of
from tests.interop.quic.case import Server
from tests.interop.servers import (
    make_certificate,
    start_nginx,
    start_postgres,
    start_redis,
    start_sshd,
)
from tests.processes.running import is_gone
from tests.processes.upgrading import Upgrading
from tests.support.ports import free_port

SITE = "www.example.com"
"""Whose TLS goes through to the server."""
ENDED = "ended.example.com"
"""Whose TLS ends in txmux."""
_SIZE = 2**22
"""Of the file that is downloaded, in bytes."""

_SERVE = "serving with 2 worker"
_REFUSED = "upgrade failed, the old process keeps serving: "
_PATIENCE = 180.0
"""Seconds that a change may take on a machine that is busy with much else."""
_DAY = 86_400.0
"""Seconds after which programs are ended, whatever has become of the soak."""

_NGINX = """
server {{
    listen 127.0.0.1:{plain};
    listen 127.0.0.1:{tls} ssl http2;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    root {files};
    location /slow/ {{ alias {files}/; limit_rate {pace}; }}
}}
"""

_RULES = """
[listen public]
endpoint = 127.0.0.1:0
detect_timeout = 10m

[listen quic]
endpoint = udp:127.0.0.1:{quic}

[route ssh]
under   = public
match   = ssh
backend = 127.0.0.1:{ssh}

[route ended]
under   = public
match   = tls sni=ended.example.com
terminate_tls = {certificate.both}

[route inside]
under   = ended
match   = http
backend = 127.0.0.1:{plain}

[route https]
under   = public
match   = tls sni=www.example.com
backend = 127.0.0.1:{tls}

[route redis]
under   = public
match   = redis
backend = 127.0.0.1:{redis}

[route postgres]
under   = public
match   = postgres user=*
backend = 127.0.0.1:{postgres}

[route h3]
under   = quic
match   = quic sni=www.example.com
backend = h3

[backend h3]
server  = udp:127.0.0.1:{h3}
idle_timeout = 10s
"""

_SETTINGS = """
workers = 2
relay   = kernel
admin   = unix:{folder}/admin.sock
drain_timeout = 2m
"""


class Soaked:
    """All of it.

    Args:
        folder: For all files.
        ends: Ends it.
        seconds: How long a slow download takes.

    Attributes:
        folder: As above.
        mux: The service.
        ssh: The server for SSH.
        redis: The server for Redis.
        certificate: That of both names.
        file: What can be downloaded.
        checksum: Its SHA-256.
        reloads: How many there have been.
        upgrades: How many there have been.
        changing: Is held during a reload and an upgrade.
    """

    def __init__(self, folder: Path, ends: ExitStack, seconds: float) -> None:
        self._ends = ends
        self.folder = folder
        folder.chmod(0o755)
        self.reloads = self.upgrades = 0
        self.changing = threading.Lock()
        self.certificate = make_certificate(folder, "example.com", SITE, ENDED)
        self.certificate.both.chmod(0o600)  # else each reload warns
        files = self._folder("files")
        self.file = files / "file"
        self.file.write_bytes(os.urandom(_SIZE))
        self.checksum = sha256(self.file.read_bytes()).hexdigest()
        self.ssh = self._own(start_sshd(folder))
        self.redis = self._own(start_redis(folder))
        ports = {name: free_port() for name in ("plain", "tls", "postgres", "quic")}
        site = _NGINX.format(
            certificate=self.certificate, files=files, pace=int(_SIZE / seconds), **ports
        )
        self._own(start_nginx(folder, site))
        self._own(start_postgres(self._folder("postgres"), ports["postgres"]))
        h3 = self._own(Server(SITE, self.certificate))
        self.quic = ports["quic"]
        rules = _RULES.format(
            certificate=self.certificate,
            ssh=self.ssh.port,
            redis=self.redis.port,
            h3=h3.port,
            **ports,
        )
        checkout = Path(__file__).parents[2]
        told = make_told(folder)
        before = ("env", f"PYTHONPATH={INSIDE}:{checkout}", f"SOAK_TOLD={told}")
        self.mux = Upgrading(folder, rules, _SETTINGS.format(folder=folder), before=before)
        ends.callback(self.mux.kill)
        self.mux.child.allow(_DAY)
        self._rules = self.mux.file.read_text()
        self._await(lambda: bool(self._said(_SERVE)), "the workers serve")

    def _folder(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir()
        return made

    def _own(self, started: Any) -> Any:
        self._ends.callback(started.end)
        getattr(started, "child", started).allow(_DAY)
        return started

    def _said(self, what: str) -> int:
        return self.mux.child.output.count(what)

    def reload(self) -> None:
        """Have rules reloaded that have changed."""
        with self.changing:
            self._reload()

    def _reload(self) -> None:
        self.reloads += 1
        lines = ("under = public", "match = payload text=NEW", "backend = close", "dry_run = yes")
        route = "\n".join((f"[route new{self.reloads}]", *lines))
        self.mux.file.write_text(f"{self._rules}\n{route}\n")
        done = self._said("rules reloaded: ")
        os.kill(self.mux.pid, signal.SIGHUP)
        self._await(lambda: self._said("rules reloaded: ") > done, "the rules are reloaded")

    def upgrade(self) -> int:
        """Have a new process serve, and give the old one, which may have connections that cannot move.

        On a machine that is too busy the old process goes on; then there is none that ends, and this gives 0.
        """
        with self.changing:
            return self._upgrade()

    def _upgrade(self) -> int:
        self.upgrades += 1
        before, served, refused = self.mux.pid, self._said(_SERVE), self._said(_REFUSED)
        self.mux.ask()
        self._await(
            lambda: self._named() not in {0, before} or self._said(_REFUSED) > refused,
            "it is upgraded",
        )
        if self._named() == before:
            return 0
        self.mux.switched()
        self._await(lambda: self._said(_SERVE) > served, "the workers serve")
        return before

    def _named(self) -> int:
        try:
            return int(self.mux.pidfile.read_text())
        except FileNotFoundError:  # while a service stops that nobody takes the place of
            return 0

    def await_end(self, pid: int) -> None:
        """Wait until an old process has ended, if there is one."""
        if pid:
            self._await(lambda: is_gone(pid), f"the old process {pid} has ended")

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        try:
            eventually(condition, what, _PATIENCE)
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{self.mux.child.output[-10_000:]}") from None

    def active(self) -> int:
        """Count connections and flows, as the service knows them."""
        url = ("--unix-socket", self.folder / "admin.sock", "http://localhost/api/status")
        told = json.loads(output_of("curl", "-q", "-sS", "--fail", *url))
        return int(told["connections"]["active"])
