"""Real servers of all kinds, and txmux before them on one port of TCP and one of UDP."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TypeVar

from campaign.networks.path import MUX, SERVER
from campaign.networks.path import Path as NetworkPath
from tests.interop.children import Child, Started
from tests.interop.datagrams.tunnels import EchoServer, OpenVpn, WireGuard
from tests.interop.mux import Mux, Record
from tests.interop.quic.case import Server
from tests.interop.servers import (
    make_certificate,
    start_dnsmasq,
    start_nginx,
    start_postgres,
    start_redis,
    start_sshd,
)
from tests.support.ports import free_port
from tests.support.undone import Undone

T = TypeVar("T", bound=Started)

PORT = 443
_LONG = 3600.0
PASSED, ENDED = "passed.example.com", "ended.example.com"
"""Names of the web server: one whose TLS goes all the way, and one whose TLS ends at txmux."""

_NGINX = """
server {{
    listen 127.0.0.1:{web};
    root {folder}/web;
    location / {{ dav_methods PUT; }}
}}
server {{
    listen 127.0.0.1:{secure} ssl http2;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};
    root {folder}/web;
    location / {{ dav_methods PUT; }}
}}
"""

_RULES = """
[listen tcp]
endpoint       = {mux}:{port}
detect_timeout = 10m
[listen udp]
endpoint       = udp:{mux}:{port}

[route ssh]
under   = *
match   = ssh
backend = {at}:{ssh}
[route passed]
under   = *
match   = tls sni={passed}
backend = {at}:{secure}
[route ended]
under   = *
match   = tls sni={ended}
terminate_tls = {certificate.both}
[route inside]
under   = ended
match   = http
backend = {at}:{web}
[route web]
under   = *
match   = http
backend = {at}:{web}
[route redis]
under   = *
match   = redis
backend = {at}:{redis}
[route postgres]
under   = *
match   = postgres
backend = {at}:{postgres}
[route names]
under   = *
match   = dns
backend = {at}:53
[route vpn]
under   = *
match   = openvpn
backend = {at}:1195

[route asked]
under   = *
match   = dns
backend = udp:{at}:53
[route site]
under   = *
match   = quic sni=site.example.com
backend = udp:{at}:{site}
"""


class FileServers:
    """An SSH server and a web server, from which clients get files, and to which they give some; where the tests are.

    Args:
        undone: Ends them.
        path: Between them and the clients.
        seed: From what follows what the files have in them.
        size: Bytes of what clients get and give.

    Attributes:
        path: The path.
        folder: For the files of the programs.
        data: What clients give, and what they get.
        original: The file with that.
        certificate: Of the web server, by all names.
        web: Its port for HTTP.
        secure: Its port for HTTPS.
        ssh: The SSH server.
    """

    def __init__(self, undone: Undone, path: NetworkPath, *, seed: int, size: int) -> None:
        self.path = path
        self._undone = undone
        self.folder = make_folder(undone)
        self.data = hashlib.shake_128(b"%d" % seed).digest(size)
        self.original = self.folder / "original"
        self.original.write_bytes(self.data)
        self.certificate = make_certificate(self.folder, PASSED, ENDED, "site.example.com")
        (self.folder / "web").mkdir()
        (self.folder / "web/original").write_bytes(self.data)
        self.web, self.secure = free_port(), free_port()
        lines = _NGINX.format(
            web=self.web, secure=self.secure, folder=self.folder, certificate=self.certificate
        )
        self.share(start_nginx(self.folder, lines))
        self.ssh = self.share(start_sshd(self.folder))

    def share(self, started: T) -> T:
        """Have a server last as long as these."""
        self._undone.addCleanup(started.end)
        child = getattr(started, "child", started)
        if isinstance(child, Child):
            child.allow(_LONG)
        return started


class Site(FileServers):
    """Servers of all kinds, and txmux in its own network.

    Args:
        undone: Ends them.
        path: Between them and the clients.
        relay: As in ``[txmux]``.
        seed: From what follows what the files have in them.
        size: Bytes of what clients get and give.

    Attributes:
        mux: The service.
    """

    def __init__(
        self, undone: Undone, path: NetworkPath, *, relay: str, seed: int, size: int
    ) -> None:
        super().__init__(undone, path, seed=seed, size=size)
        redis = self.share(start_redis(self.folder))
        postgres = free_port()
        self.share(start_postgres(make_folder(undone), postgres))
        hosts = self.folder / "hosts"
        hosts.write_text("".join(f"192.0.2.{number} n{number}.test\n" for number in range(1, 101)))
        self.share(start_dnsmasq(hosts))
        self.share(EchoServer())
        site = self.share(Server("site", self.certificate))
        self.wireguard = WireGuard(self.folder / "wireguard", path.clients, SERVER)
        self.openvpn = OpenVpn(self.folder / "openvpn", path.clients, SERVER)
        for server in self.wireguard.start():
            self.share(server)
        rules = _RULES.format(
            mux=MUX,
            at=SERVER,
            port=PORT,
            passed=PASSED,
            ended=ENDED,
            certificate=self.certificate,
            ssh=self.ssh.port,
            redis=redis.port,
            site=site.port,
            web=self.web,
            secure=self.secure,
            postgres=postgres,
        )
        rules += "".join(
            program.routes.replace("127.0.0.1", SERVER)
            for program in (self.wireguard, self.openvpn)
        )
        self.mux = Mux(
            self.folder, rules, f"relay = {relay}\ndrain_timeout = 0s", before=path.mux.command
        )
        self.mux.child.allow(_LONG)
        undone.addCleanup(self.mux.child.end)
        self.wireguard.ready()

    def logged(self) -> list[Record]:
        """Stop the service, which must be in order, and give the lines of its access log."""
        self.mux.stop()
        return self.mux.lines()


def make_folder(undone: Undone) -> Path:
    """Make a folder that others may look into."""
    folder = Path(tempfile.mkdtemp(prefix="txmux-networks-"))
    undone.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    os.chmod(folder, 0o755)  # noqa: PTH101 - the server of a database is another user
    return folder
