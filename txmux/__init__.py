"""txmux: many protocols on one port, told apart by what the client says first."""

from importlib import import_module
from typing import TYPE_CHECKING

from txmux.version import __version__ as __version__

if TYPE_CHECKING:
    from txmux.backends.connect.client import ProxyClientFactory
    from txmux.errors import MuxError
    from txmux.net.header_first import HeaderFirst
    from txmux.processes.service import MuxService
    from txmux.rules.embedding import outcome, route
    from txmux.rules.model import Backend, Listener, Refusal, Server
    from txmux.rules.reading.parser import load
    from txmux.serving.embedded import EmbeddedService
    from txmux.tcp.connection import MuxProtocol
    from txmux.tcp.listener import MuxFactory

__all__ = [
    "Backend", "EmbeddedService", "HeaderFirst", "Listener", "MuxError", "MuxFactory",
    "MuxProtocol", "MuxService", "ProxyClientFactory", "Refusal", "Server", "load", "outcome",
    "route",
]  # fmt: skip

_HOMES = {
    "Backend": "txmux.rules.model",
    "EmbeddedService": "txmux.serving.embedded",
    "HeaderFirst": "txmux.net.header_first",
    "Listener": "txmux.rules.model",
    "MuxError": "txmux.errors",
    "MuxFactory": "txmux.tcp.listener",
    "MuxProtocol": "txmux.tcp.connection",
    "MuxService": "txmux.processes.service",
    "ProxyClientFactory": "txmux.backends.connect.client",
    "Refusal": "txmux.rules.model",
    "Server": "txmux.rules.model",
    "load": "txmux.rules.reading.parser",
    "outcome": "txmux.rules.embedding",
    "route": "txmux.rules.embedding",
}


def __getattr__(name: str) -> object:
    # Every `twist` command imports this package to find its plugins, so nothing heavy is imported until it is used.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
