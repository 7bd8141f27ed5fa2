"""Runs what a service does again and again, so that a step that fails is tried again, and keeps no other from being done."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


class RecurringSteps:
    """The steps of one part.

    Memory or descriptors may run out in any of them.

    Attributes:
        failing: Of the steps that failed the last time: since when, in seconds since 1970, and why.
    """

    def __init__(self) -> None:
        self.failing: dict[str, tuple[float, str]] = {}

    def run(self, name: str, step: Callable[..., object], *arguments: Any) -> Deferred[None] | None:
        """Do a step; return what to wait for, if it is not done at once. It never fails.

        Args:
            name: What the step does, for the log, such as ``look at the workers``.
            step: Does it; it may return a Deferred.
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

    def _failed(self, name: str, failure: Failure) -> None:
        if name in self.failing:
            return  # it would be logged each time
        with suppress(MemoryError):
            self.failing[name] = time.time(), failure.getErrorMessage() or repr(failure.value)
            _log.failure("cannot {step}; it is tried again", failure, step=name)

    def _done(self, name: str) -> None:
        if self.failing.pop(name, ()):
            _log.info("can {step} again", step=name)
