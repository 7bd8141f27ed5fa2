"""Waits for conditions that only callbacks change."""

from collections.abc import Callable

from twisted.internet.defer import Deferred


class Conditions:
    """Checks what is waited for whenever `check` is called; a condition may be false again before its turn."""

    def __init__(self) -> None:
        self._waiting: list[Deferred[None]] = []

    def until(self, condition: Callable[[], bool]) -> Deferred[None]:
        async def wait() -> None:
            while not condition():
                changed: Deferred[None] = Deferred()
                self._waiting.append(changed)
                await changed

        return Deferred.fromCoroutine(wait())

    def check(self) -> None:
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            changed.callback(None)
