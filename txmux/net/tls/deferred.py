"""Twisted without modules that txmux never uses or seldom uses; they are imported when something uses them.

Twisted's reactors import pyOpenSSL, cryptography and service-identity if they are installed. That takes 50 ms of CPU and
13 MiB, for nothing in a service that neither terminates TLS nor uses it towards servers. For one function of asyncio, and for a
name that only its own HTTP client uses, Twisted imports 60 modules of Python: a tenth of the CPU time of a start, and 4 MiB.
"""

import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import CoroutineType, ModuleType
from typing import Any


class _Later(ModuleType):
    """A module that is imported when something of it is used.

    Args:
        called: Functions and classes that others import by name, and use no sooner than they call them.
    """

    def __init__(self, name: str, *called: str) -> None:
        super().__init__(name)
        for function in called:
            setattr(self, function, partial(self._call, function))

    def _call(self, function: str, *args: Any, **options: Any) -> Any:
        return self.__getattr__(function)(*args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks for these in every module
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # a Twisted that needs it at once
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


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
    with _left_out(
        _AsyncIO("asyncio"),
        _Later("html", "escape"),
        _Later("http.cookiejar"),
        _Later("twisted.internet.ssl"),
        _Later("twisted.protocols.tls", "TLSMemoryBIOFactory"),
        _Later("zipfile", "ZipFile"),
    ):
        import_module("twisted.internet.posixbase")
        import_module("twisted.python.modules")


def import_web_without_email() -> None:
    """Import Twisted's HTTP server, for a process as above; it reads dates and the types of what is sent by what is left out."""
    email = _Later("email", "message_from_bytes")
    message = _Later("email.message", "EmailMessage")
    message.Message = Any  # type: ignore[attr-defined]  # it is for an annotation
    with _left_out(_Later("calendar"), email, message):
        import_module("twisted.web.http")


@contextmanager
def _left_out(*every: _Later) -> Iterator[None]:
    left_out = {later.__name__: later for later in every if later.__name__ not in sys.modules}
    sys.modules.update(left_out)
    try:
        yield
    finally:
        for name, module in left_out.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
