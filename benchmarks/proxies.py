"""The proxies that are compared: what they are called, how they are started, and what they cannot do."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from benchmarks.children import (
    BenchmarkError,
    Child,
    eventually,
    free_ports,
    is_bound,
    is_listening,
)
from benchmarks.servers import SERVICES, find_program
from benchmarks.templates import fill

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.servers import Servers


ACCEPTS_PROXY = {
    "ACCEPT_PROXY": "accept-proxy",
    "ACCEPT_PROXY_LINE": "accept_proxy_from = 127.0.0.0/8",
}
"""Values of templates with which clients have to send PROXY headers."""


@attrs.frozen
class Proxy:
    """A proxy in one configuration.

    Attributes:
        key: How it is called on the command line and in results.
        family: Configurations of one family are of one program; the best of each counts.
        title: How it is called in reports.
        program: Its executable.
        template: The file in ``benchmarks/peers``.
        arguments: Its command line; ``{}`` stands for the configuration's path.
        version: The arguments that make it print its version.
        values: What else the template needs, for each number of workers.
        most: The most connections that it can hold, if that is few.
        detects: Whether it looks at the first bytes; else each service has a port of its own.
        has_workers: Whether it can use more than one core.
        tls: The file in ``benchmarks/peers`` by which it ends TLS, if that is to be measured.
        udp: The file there by which it relays datagrams, if it does.
        check: The command line with which it checks a configuration, and no more.
        patience: Seconds that it may take to start.
    """

    key: str
    family: str
    title: str
    program: str
    template: str
    arguments: Sequence[str]
    version: Sequence[str]
    values: Mapping[str, str] = attrs.field(factory=dict)
    most: int | None = None
    detects: bool = True
    has_workers: bool = True
    tls: str | None = None
    udp: str | None = None
    check: Sequence[str] = ()
    patience: float = 60.0

    def path(self) -> str | None:
        """Find its program: first beside this Python, where packages from PyPI put theirs."""
        beside = Path(sys.executable).with_name(self.program)
        return str(beside) if beside.exists() else find_program(self.program)


@attrs.frozen
class Running:
    """A proxy that runs.

    Attributes:
        proxy: Which one.
        config: Its configuration.
        child: Its processes.
        ports: Where each of `SERVICES` is reached through it.
    """

    proxy: Proxy
    config: Path
    child: Child
    ports: Mapping[str, int]


def _haproxy(key: str, title: str, splice: str) -> Proxy:
    arguments = ("-db", "-f", "{}")
    values = {"SPLICE": splice}
    return Proxy(
        key,
        "haproxy",
        title,
        "haproxy",
        "haproxy.cfg",
        arguments,
        ("-v",),
        values,
        # What is encrypted cannot be spliced, so one of both is enough.
        tls="haproxy-tls.cfg" if key == "haproxy-auto" else None,
        check=("-c", *arguments),
    )


def _txmux(key: str, title: str, relay: str) -> Proxy:
    arguments = ("run", "{}")  # as its systemd unit does
    values = {"RELAY": relay, "SANDBOX": "auto"}
    return Proxy(
        key,
        "txmux",
        title,
        "txmux",
        "txmux.ini",
        arguments,
        ("--version",),
        values,
        check=("check", "{}"),
        tls="txmux-tls.ini" if relay == "auto" else None,
        udp="txmux-udp.ini" if relay == "auto" else None,
    )


_NGINX = ("-e", "stderr", "-g", "user root;", "-c", "{}")

PROXIES = (
    _haproxy("haproxy-auto", "HAProxy, `splice-auto`", "option splice-auto"),
    _haproxy(
        "haproxy-splice",
        "HAProxy, `splice-request` and `-response`",
        "option splice-request\n    option splice-response",
    ),
    Proxy(
        "nginx",
        "nginx",
        "nginx `stream`",
        "nginx",
        "nginx-stream.conf",
        _NGINX,
        ("-v",),
        detects=False,
        tls="nginx-tls.conf",
        udp="nginx-udp.conf",
        check=("-t", *_NGINX),
    ),
    Proxy(
        "envoy",
        "envoy",
        "Envoy",
        "envoy",
        "envoy.yaml",
        ("-c", "{}", "--log-level", "error", "--disable-hot-restart", "--concurrency", "{workers}"),
        ("--version",),
        tls="envoy-tls.yaml",
    ),
    Proxy(
        "sslh",
        "sslh",
        "`sslh-select`",
        "sslh-select",
        "sslh.cfg",
        ("-F{}",),
        ("-V",),
        most=400,
        has_workers=False,
    ),
    _txmux("txmux", "txmux", "auto"),
    _txmux("txmux-portable", "txmux, `relay = portable`", "portable"),
)


def chosen(names: Sequence[str]) -> list[Proxy]:
    """Give the proxies with these keys or of these families; all, if there are no names.

    Raises:
        BenchmarkError: A name is unknown.
    """
    known = {name for proxy in PROXIES for name in (proxy.key, proxy.family)}
    for name in names:
        if name not in known:
            raise BenchmarkError(
                f"no peer is called {name!r}; there are {', '.join(sorted(known))}"
            )
    return [p for p in PROXIES if not names or p.key in names or p.family in names]


@contextlib.contextmanager
def running(
    proxy: Proxy,
    servers: Servers,
    folder: Path,
    cores: Sequence[int],
    *,
    workers: int = 1,
    other: str = "redis",
    tls: bool = False,
    asks: bool = True,
) -> Iterator[Running]:
    """Run a fresh proxy until the block ends.

    Args:
        proxy: Which one.
        servers: What it leads to.
        folder: For its files.
        cores: The CPU cores that it may use.
        workers: How many processes or threads it may use.
        other: Where what is not HTTP goes, for the one that cannot tell Redis from iperf3.
        tls: Whether it ends TLS, and leads all to the web server.
        asks: Whether a client is led to the web server before it counts as started; else it has only to listen.

    Raises:
        BenchmarkError: It is not installed, or does not start.
    """
    program = proxy.path()
    if program is None:
        raise BenchmarkError(f"{proxy.program} is not installed")
    with free_ports(len(SERVICES)) as found:
        shared = found[0]
        own = dict(zip(SERVICES, found, strict=True))
        ports = dict.fromkeys(SERVICES, shared) if proxy.detects else own
        values = {
            **dict.fromkeys(ACCEPTS_PROXY, ""),
            **proxy.values,
            **servers.ports,
            **{f"PORT_{service}": port for service, port in own.items()},
            "PORT": shared,
            "OTHER": other,
            "WORKERS": workers,
            "WORKERS_LINE": f"workers = {workers}" if workers > 1 else "",
        }
        config = fill((tls and proxy.tls) or proxy.template, folder, values)
        arguments = [word.format(config, workers=workers) for word in proxy.arguments]
        log = folder / f"{proxy.key}.log"
        log.unlink(missing_ok=True)
        with Child([program, *arguments], log, cores, 5 * proxy.patience) as child:
            is_ready = _answers if asks and not tls else is_listening
            eventually(
                lambda: child.has_ended() or is_ready(ports["HTTP"]),
                "it leads a client to nginx",
                proxy.patience,
            )
            if child.has_ended():
                raise BenchmarkError(f"it does not start: {child.last_words()}")
            yield Running(proxy, config, child, ports)


@contextlib.contextmanager
def running_udp(
    proxy: Proxy, servers: Mapping[str, int], folder: Path, cores: Sequence[int]
) -> Iterator[Running]:
    """Run a fresh proxy of datagrams until the block ends.

    Args:
        proxy: Which one.
        servers: The ports on 127.0.0.1 that it leads to, as the template calls them.
        folder: For its files.
        cores: The CPU cores that it may use.

    Raises:
        BenchmarkError: It is not installed, does not do it, or does not start.
    """
    program = proxy.path()
    if program is None or proxy.udp is None:
        raise BenchmarkError(f"{proxy.program} is not installed, or relays no datagrams")
    names = ("BULK", "LASTING", "ONCE")
    with free_ports(len(names), socket.SOCK_DGRAM) as found:
        ports = dict(zip(names, found, strict=True))
        own = {f"PORT_{name}": port for name, port in ports.items()}
        config = fill(proxy.udp, folder, {**proxy.values, **servers, **own})
        log = folder / f"{proxy.key}-udp.log"
        log.unlink(missing_ok=True)
        arguments = [word.format(config, workers=1) for word in proxy.arguments]
        with Child([program, *arguments], log, cores, 5 * proxy.patience) as child:
            eventually(
                lambda: child.has_ended() or all(map(is_bound, ports.values())),
                "its ports are bound",
                proxy.patience,
            )
            if child.has_ended():
                raise BenchmarkError(f"it does not start: {child.last_words()}")
            child.settled()
            yield Running(proxy, config, child, ports)


def _answers(port: int) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=5) as client,
    ):
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return client.recv(8) == b"HTTP/1.1"
    return False
