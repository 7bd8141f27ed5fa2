"""Sends a request to all workers, and collects their answers."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, gatherResults

from txmux.net.channel.channel import ChannelError, PeerGoneError
from txmux.net.channel.message import Message

ANSWER_TIMEOUT = 2.0  # seconds that a process has to answer


class WorkerLink(Protocol):
    """The connection to a worker."""

    @property
    def number(self) -> int:
        """The worker's number, from 0."""

    def listen(self, sink: Callable[[dict[str, Any]], object] | None) -> None: ...

    def ask(self, message: Message, *, seconds: float | None, **values: Any) -> Awaitable[Any]:
        """Send a request, and return the answer.

        Raises:
            ChannelError: The worker does not answer in time, or reports an error.
        """


@attrs.frozen
class Answers:
    """The answers of the workers.

    Attributes:
        answers: The number of each worker, from 1, and its answer.
        missing: A line for each worker without an answer, with the reason.
    """

    answers: Sequence[tuple[int, Any]]
    missing: Sequence[str] = ()


class Listing(list[dict[str, Any]]):
    """Rows of the workers that have answered; `missing` has a line for each of the others, with the reason."""

    def __init__(self, rows: Iterable[dict[str, Any]] = (), missing: Sequence[str] = ()) -> None:
        super().__init__(rows)
        self.missing = missing


async def concurrently(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Await several coroutines concurrently, so that the caller waits only once for a worker that hangs."""
    return await gatherResults(map(Deferred.fromCoroutine, coroutines), consumeErrors=True)


async def broadcast(
    processes: Iterable[WorkerLink],
    message: Message,
    *,
    seconds: float = ANSWER_TIMEOUT,
    **values: Any,
) -> Answers:
    """Send a request to all workers concurrently. A worker that has ended is not reported as missing."""
    missing: list[str] = []

    async def ask(worker: WorkerLink) -> tuple[int, Any] | None:
        number = worker.number + 1
        try:
            return number, await worker.ask(message, seconds=seconds, **values)
        except PeerGoneError:
            return None
        except ChannelError as problem:
            missing.append(f"worker {number}: {problem}")
            return None

    results = await concurrently(*map(ask, processes))
    return Answers([result for result in results if result is not None], missing)
