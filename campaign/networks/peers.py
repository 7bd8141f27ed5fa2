"""txmux and its peers, each set up for the same: TLS that asks for one name goes to one server, and all else to another, as SSH does."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path as FilePath

import attrs

from campaign.networks.path import MUX, SERVER, Path
from campaign.networks.site import PASSED
from tests.interop.children import Started, output_of
from tests.interop.mux import Mux
from tests.interop.servers import start_haproxy, start_nginx_stream, start_sslh

WAIT = 5
"""Seconds that a client may take for its first bytes."""
IDLE, INTERVAL, COUNT = 1, 1, 2
"""When a quiet peer is asked whether it is there, each how many seconds, and how often."""

_TXMUX = f"""
[listen public]
endpoint       = {MUX}:{{port}}
detect_timeout = {WAIT}s
default        = {SERVER}:{{rest}}
{{keepalive}}
[route named]
match   = tls sni={PASSED}
backend = {SERVER}:{{named}}
[route ssh]
match   = ssh
backend = {SERVER}:{{rest}}
"""
_HAPROXY = f"""
defaults tcp
    mode tcp
    timeout client 5m
    timeout connect 1m
    timeout server 5m
    {{keepalive}}

frontend public
    bind {MUX}:{{port}} {{user_timeout}}
    tcp-request inspect-delay {WAIT}s
    tcp-request content accept if {{{{ req.ssl_hello_type 1 }}}}
    tcp-request content accept if {{{{ req.payload(0,4) -m str SSH- }}}}
    tcp-request content accept if {{{{ req.len gt 0 }}}} !{{{{ req.payload(0,1) -m bin 16 }}}}
    use_backend named if {{{{ req.ssl_sni -i {PASSED} }}}}
    default_backend rest

backend named
    server only {SERVER}:{{named}} {{user_timeout}}

backend rest
    server only {SERVER}:{{rest}} {{user_timeout}}
"""
_NGINX = f"""
map $ssl_preread_server_name $server {{{{
    {PASSED} {SERVER}:{{named}};
    default {SERVER}:{{rest}};
}}}}
server {{{{
    listen {MUX}:{{port}} {{keepalive}};
    ssl_preread on;
    preread_timeout {WAIT}s;
    proxy_pass $server;
}}}}
"""
_SSLH = f"""
timeout: {WAIT};
on-timeout: "ssh";
listen: ( {{{{ host: "{MUX}"; port: "{{port}}"; {{keepalive}} }}}} );
protocols: (
    {{{{ name: "tls"; host: "{SERVER}"; port: "{{named}}"; sni_hostnames: [ "{PASSED}" ]; {{keepalive}} }}}},
    {{{{ name: "ssh"; host: "{SERVER}"; port: "{{rest}}"; {{keepalive}} }}}}
);
"""


@attrs.frozen
class Job:
    """What a proxy is to do.

    Attributes:
        folder: For its files.
        port: Where it listens.
        named: The port of the server of the name.
        rest: That of the other one.
        asks: Whether it is to ask quiet peers whether they are there.
    """

    folder: FilePath
    port: int
    named: int
    rest: int
    asks: bool = False

    def lines(self, template: str, keepalive: str, **more: str) -> str:
        """Give the text of a configuration, with what it needs to ask quiet peers if it is to."""
        ports = {"port": str(self.port), "named": str(self.named), "rest": str(self.rest)}
        return template.format(**ports, keepalive=keepalive if self.asks else "", **more)


def _start_txmux(relay: str, path: Path, job: Job) -> Started:
    keepalive = f"keepalive = idle={IDLE}s interval={INTERVAL}s count={COUNT}"
    lines = job.lines(_TXMUX, keepalive)
    settings = f"relay = {relay}\nadmin = off\ndrain_timeout = 0s"
    return Mux(job.folder, lines, settings, before=path.mux.command)


def _start_haproxy(more: str, path: Path, job: Job) -> Started:
    keepalive = "\n    ".join(
        line
        for side in ("cli", "srv")
        for line in (
            f"option {side}tcpka",
            f"{side}tcpka-idle {IDLE}s",
            f"{side}tcpka-intvl {INTERVAL}s",
            f"{side}tcpka-cnt {COUNT}",
        )
    )
    return start_haproxy(
        job.folder, job.lines(_HAPROXY, keepalive, user_timeout=more), path.mux.command
    )


def _start_nginx(path: Path, job: Job) -> Started:
    lines = job.lines(_NGINX, f"so_keepalive={IDLE}s:{INTERVAL}s:{COUNT}")
    if job.asks:
        lines = f"proxy_socket_keepalive on;\n{lines}"
    return start_nginx_stream(job.folder, lines, path.mux.command)


def _start_sslh(program: str, path: Path, job: Job) -> Started:
    lines = job.lines(_SSLH, "keepalive: true;")
    return start_sslh(job.folder, lines, program, path.mux.command)


PEERS: Mapping[str, Callable[[Path, Job], Started]] = {
    "txmux, kernel": partial(_start_txmux, "kernel"),
    "txmux, portable": partial(_start_txmux, "portable"),
    "HAProxy": partial(_start_haproxy, ""),
    "nginx": _start_nginx,
    "sslh (fork)": partial(_start_sslh, "sslh"),
    "sslh-select": partial(_start_sslh, "sslh-select"),
}
"""How each is started in the network of txmux."""
GIVES_UP = "HAProxy, tcp-ut 3s"
"""HAProxy once more, which has a setting for bytes that are not acknowledged."""
ALL: Mapping[str, Callable[[Path, Job], Started]] = {
    **PEERS,
    GIVES_UP: partial(_start_haproxy, f"tcp-ut {IDLE + INTERVAL * COUNT}s"),
}


@contextlib.contextmanager
def started(peers: Sequence[str], path: Path, jobs: Sequence[Job]) -> Iterator[None]:
    """Have proxies run until the block ends, each with its own job."""
    with contextlib.ExitStack() as last, contextlib.ExitStack() as first:
        for peer, job in zip(peers, jobs, strict=True):
            one = ALL[peer](path, job)
            (first if isinstance(one, Mux) else last).callback(one.end)
        # A process of sslh outlives the one that has started it.
        last.callback(_kill_all, path)
        yield


def _kill_all(path: Path) -> None:
    for pid in output_of("ip", "netns", "pids", path.mux.name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
