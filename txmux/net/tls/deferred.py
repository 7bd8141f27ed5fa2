"""Twisted's reactor without OpenSSL, which is imported when TLS is first used.

Twisted's reactors import pyOpenSSL, cryptography and service-identity if they are installed. That takes 50 ms of CPU and
13 MiB, for nothing in a service that neither terminates TLS nor uses it towards servers.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_NAMES = ("twisted.protocols.tls", "twisted.internet.ssl")


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for these in every module
            raise AttributeError(name)
        return getattr(import_module(self.__name__), name)

    def TLSMemoryBIOFactory(self, *args: Any, **options: Any) -> Any:
        # Importing the reactor imports this name.
        return self.__getattr__("TLSMemoryBIOFactory")(*args, **options)


def import_reactor_without_tls() -> None:
    """Import the base of all reactors for POSIX, unless it is imported; its parts for TLS are imported when they are used.

    Only for processes that are txmux alone, before any module of `twisted.internet` with sockets is imported.
    """
    if "twisted.internet.tcp" in sys.modules or any(name in sys.modules for name in _NAMES):
        return
    sys.modules.update((name, _Later(name)) for name in _NAMES)
    try:
        import_module("twisted.internet.posixbase")
    finally:
        for name in _NAMES:
            del sys.modules[name]
