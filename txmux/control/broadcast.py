"""Sends a request to all workers and collects their answers."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, gatherResults

from txmux.net.channel.channel import ChannelError, GoneError
from txmux.net.channel.message import Message

PATIENCE = 2.0  # seconds that a process has to answer


class Askable(Protocol):
    """A worker."""

    @property
    def number(self) -> int:
        """Counted from 0."""

    def listen(self, sink: Callable[[dict[str, Any]], object] | None) -> None: ...

    def ask(self, message: Message, *, seconds: float | None, **values: Any) -> Awaitable[Any]:
        """Send it a request; `ChannelError` if it does not answer."""


@attrs.frozen
class Answers:
    """The answers of all processes, with the number of the worker, counted from 1; and which are missing and why, one line each."""

    answers: Sequence[tuple[int, Any]]
    missing: Sequence[str] = ()


class Listing(list[dict[str, Any]]):
    """A list that lacks the rows of workers that have not answered; `missing` says why, one line each."""

    def __init__(self, rows: Iterable[dict[str, Any]] = (), missing: Sequence[str] = ()) -> None:
        super().__init__(rows)
        self.missing = missing


async def at_once(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Await several coroutines at the same time, so that a worker that hangs delays the caller once."""
    return await gatherResults(map(Deferred.fromCoroutine, coroutines), consumeErrors=True)


async def broadcast(
    processes: Iterable[Askable], message: Message, *, seconds: float = PATIENCE, **values: Any
) -> Answers:
    """Ask all workers at the same time. One that has ended is left out, and not reported as missing."""
    missing: list[str] = []

    async def ask(worker: Askable) -> tuple[int, Any] | None:
        number = worker.number + 1
        try:
            return number, await worker.ask(message, seconds=seconds, **values)
        except GoneError:
            return None
        except ChannelError as problem:
            missing.append(f"worker {number}: {problem}")
            return None

    results = await at_once(*map(ask, processes))
    return Answers([result for result in results if result is not None], missing)
