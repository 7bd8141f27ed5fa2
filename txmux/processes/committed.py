"""What follows a commit: nothing of it can be undone, so no failure may end it, or be taken for one of the change itself."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.logger import Logger

from txmux.errors import cause_of

_T = TypeVar("_T")


class CommittedSteps:
    """Runs steps of which each is done whatever becomes of the others.

    Until the commit, an exception abandons a change; from then on, all that is left to do is run by this.

    Args:
        fact: What holds since the commit, for messages.

    Attributes:
        troubles: A line for each step that has failed.
    """

    _log = Logger()

    def __init__(self, fact: str) -> None:
        self._fact = fact
        self.troubles: list[str] = []

    def run(self, name: str, step: Callable[..., _T], *arguments: Any, **options: Any) -> _T | None:
        """Return what a step returns; ``None`` if it fails. `name` says what it does."""
        try:
            return step(*arguments, **options)
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
        self._log.failure("{trouble}", trouble=trouble)
        self.troubles.append(trouble)
