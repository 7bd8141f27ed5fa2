"""Cleanup for code that runs in tests and outside of them."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol, Self


class Cleans(Protocol):
    def addCleanup(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> object:
        """Register a function to be called at the end, the last one first."""


class Undone:
    def __init__(self) -> None:
        self._stack = ExitStack()

    def addCleanup(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        self._stack.callback(function, *args, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
