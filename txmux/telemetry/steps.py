"""Steps that fail without keeping the others from being done: those of a timer, and those that follow a commit."""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.errors import cause_of

_T = TypeVar("_T")
_log = Logger()


class RecurringSteps:
    """Runs what a service does again and again: a step that fails is tried again the next time.

    Memory or descriptors may run out in any of them.

    Attributes:
        failing: Of the steps that failed the last time: since when, in seconds since 1970, and why.
    """

    def __init__(self) -> None:
        self.failing: dict[str, tuple[float, str]] = {}

    def run(self, name: str, step: Callable[..., object], *arguments: Any) -> Deferred[None] | None:
        """Run a step; return what to wait for, if it is not done at once. It never fails.

        Args:
            name: What the step does, for the log, such as ``look at the workers``.
            step: May return a Deferred.
            arguments: For `step`.
        """
        try:
            result = step(*arguments)
        except Exception:  # noqa: BLE001 - the others have to be done
            self._failed(name, Failure())
            return None
        if isinstance(result, Deferred):
            return result.addCallbacks(
                lambda _: self._done(name), lambda why: self._failed(name, why)
            )
        self._done(name)
        return None

    def forget(self, name: str) -> None:
        self.failing.pop(name, None)

    def _failed(self, name: str, failure: Failure) -> None:
        if name in self.failing:
            return  # it would be logged each time
        with suppress(MemoryError):
            self.failing[name] = time.time(), failure.getErrorMessage() or repr(failure.value)
            _log.failure("cannot {step}; it is tried again", failure, step=name)

    def _done(self, name: str) -> None:
        if self.failing.pop(name, ()):
            _log.info("can {step} again", step=name)


class CommittedSteps:
    """Runs what follows a commit: none of it can be undone, and no failure may be taken for one of the change itself.

    Until the commit, an exception abandons a change; from then on, all that is left to do is run by this.

    Args:
        fact: What holds since the commit, for messages.

    Attributes:
        troubles: A line for each step that has failed.
    """

    def __init__(self, fact: str) -> None:
        self._fact = fact
        self.troubles: list[str] = []

    def run(self, name: str, step: Callable[..., _T], *arguments: Any) -> _T | None:
        """Return what a step returns; ``None`` if it fails. `name` says what it does."""
        try:
            return step(*arguments)
        except Exception as problem:  # noqa: BLE001 - the next step follows
            self._failed(name, problem)
            return None

    async def wait(self, name: str, step: Callable[[], Awaitable[_T]]) -> _T | None:
        """Run a step that takes some time."""
        try:
            return await step()
        except Exception as problem:  # noqa: BLE001 - as above
            self._failed(name, problem)
            return None

    def _failed(self, name: str, problem: Exception) -> None:
        trouble = f"{self._fact}, but this failed: {name}: {cause_of(problem)}"
        _log.failure("{trouble}", trouble=trouble)
        self.troubles.append(trouble)
