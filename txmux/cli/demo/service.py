"""The demo: one listener whose backends are all in this process."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from txmux.cli.demo.hints import hints
from txmux.cli.demo.page import PageSite
from txmux.cli.demo.servers import ECHO, REDIS, SSH
from txmux.rules.embedding import route
from txmux.rules.model import InProcess, Listener, Rules, Settings
from txmux.serving.embedded import EmbeddedService


class _DemoService(EmbeddedService):
    """Says what to try when it has started."""

    def startService(self) -> None:
        super().startService()
        port: Any = self.ports[0].getHost()
        print(hints(port.port), flush=True)


def demo_service(port: int) -> EmbeddedService:
    """Make the demo.

    Args:
        port: The TCP port, on the loopback addresses only; 0 for any that is free, on 127.0.0.1.
    """
    endpoints = [f"127.0.0.1:{port}"]
    if port and _has_ipv6_loopback():
        endpoints.append(f"[::1]:{port}")
    ssh = InProcess("demo-ssh", SSH)
    listener = Listener(
        "demo",
        tuple(endpoints),
        silent=ssh,
        default=InProcess("demo-echo", ECHO),
    )
    routes = (
        route("ssh", ssh),
        route("http", InProcess("demo-page", PageSite())),
        route("redis", InProcess("demo-redis", REDIS)),
    )
    return _DemoService(Rules(Path("demo"), Settings(drain_timeout=2.0), (listener,), routes))


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
