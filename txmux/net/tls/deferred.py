"""Twisted without modules that txmux never uses or seldom uses; they are imported when something uses them.

Twisted's reactors import pyOpenSSL, cryptography and service-identity if they are installed. That takes 50 ms of CPU and
13 MiB, for nothing in a service that neither terminates TLS nor uses it towards servers. For one function of asyncio, and for a
name that only its own HTTP client uses, Twisted imports 60 modules of Python: a tenth of the CPU time of a start, and 4 MiB.
"""

import sys
from collections.abc import Coroutine
from importlib import import_module
from types import CoroutineType, ModuleType
from typing import Any

_NAMES = ("http.cookiejar", "twisted.protocols.tls", "twisted.internet.ssl")


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for these in every module
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # a Twisted that needs it at once
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)

    def TLSMemoryBIOFactory(self, *args: Any, **options: Any) -> Any:
        # Importing the reactor imports this name.
        return self.__getattr__("TLSMemoryBIOFactory")(*args, **options)


class _AsyncIO(_Later):
    # `twisted.internet.defer` imports these names: two for annotations, and this function.
    AbstractEventLoop = Future = Any

    @staticmethod
    def iscoroutine(value: object) -> bool:
        return isinstance(value, (CoroutineType, Coroutine))


def import_reactor_without_tls() -> None:
    """Import the base of all reactors for POSIX, unless it is imported; what is left out is imported when it is used.

    Only for processes that are txmux alone, as early as they can, before any module of `twisted.internet` with sockets is imported.
    """
    if "twisted.internet.tcp" in sys.modules:
        return
    every = (_AsyncIO("asyncio"), *map(_Later, _NAMES))
    left_out = {later.__name__: later for later in every if later.__name__ not in sys.modules}
    sys.modules.update(left_out)
    try:
        import_module("twisted.internet.posixbase")
    finally:
        for name, module in left_out.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
