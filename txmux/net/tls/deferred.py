"""A reactor of Twisted's without OpenSSL, until somebody wants TLS of it.

Twisted's reactors import pyOpenSSL, cryptography and service-identity if they are installed. That takes 50 ms of CPU and
13 MiB, of which a service that neither ends TLS nor speaks it to servers has no use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["import_reactor_without_tls"]

_NAMES = ("twisted.protocols.tls", "twisted.internet.ssl")


class _Later(ModuleType):
    """Stands for a module in those that have imported it; imports it when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system asks of every module
            raise AttributeError(name)
        return getattr(import_module(self.__name__), name)

    def TLSMemoryBIOFactory(self, *args: Any, **options: Any) -> Any:
        """Make one of Twisted's; its name is imported together with the reactor."""
        return self.__getattr__("TLSMemoryBIOFactory")(*args, **options)


def import_reactor_without_tls() -> None:
    """Import what all reactors for POSIX are made of, if nobody has; the parts for TLS are imported when they are used.

    ``listenSSL``, ``connectSSL`` and ``startTLS`` work as ever. Only for processes that are txmux alone. Call it before
    anything of `twisted.internet` that has sockets is imported; later it has no effect.
    """
    if "twisted.internet.tcp" in sys.modules or any(name in sys.modules for name in _NAMES):
        return
    sys.modules.update((name, _Later(name)) for name in _NAMES)
    try:
        import_module("twisted.internet.posixbase")
    finally:
        for name in _NAMES:
            del sys.modules[name]
