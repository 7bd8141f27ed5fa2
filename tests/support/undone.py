"""What is undone at the end."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from typing_extensions import Self


class Cleans(Protocol):
    """A test, or what else undoes at its end what was done for it."""

    def addCleanup(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> object:
        """Have this called at the end, in the reverse order."""


class Undone:
    """What is undone at the end of a ``with``, for what wants a test to be cleaned up with."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def addCleanup(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self._stack.callback(function, *args, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
