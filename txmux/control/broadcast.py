"""Sends a request to all workers, and collects their answers."""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.python.failure import Failure

from txmux.net.channel import messages
from txmux.net.channel.channel import AnswerTimeoutError, ChannelError, PeerGoneError
from txmux.net.channel.message import Message

_Row = TypeVar("_Row")
_Answer = TypeVar("_Answer")

ANSWER_TIMEOUT = 2.0  # seconds that a process has to answer
ENDING = 20.0  # and to end connections


class WorkerLink(Protocol):
    """The connection to a worker."""

    @property
    def number(self) -> int: ...

    @property
    def ready(self) -> bool: ...

    @property
    def is_late(self) -> bool:
        """Whether it has not answered a request in time, nor sent anything since."""

    @property
    def is_retiring(self) -> bool: ...

    def listen(self, sink: Callable[[dict[str, Any]], object] | None) -> None: ...

    def send(self, message: Message, **values: Any) -> None: ...

    def ask(self, message: Message, *, seconds: float | None, **values: Any) -> Deferred[Any]:
        """Send a request, and return the answer.

        Raises:
            ChannelError: The worker does not answer in time, or reports an error.
        """


class Listing(list[_Row]):
    """Rows of the workers that have answered; `missing` has a line for each of the others, with the reason.

    `unusable` has those of workers that are not late.
    """

    def __init__(
        self, rows: Iterable[_Row] = (), missing: Sequence[str] = (), unusable: Sequence[str] = ()
    ) -> None:
        super().__init__(rows)
        self.missing, self.unusable = missing, unusable


Answers = Listing[tuple[int, Any]]
"""The number of each worker that has answered, from 1, and its answer."""


async def concurrently(*coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    # So the caller waits only once for a worker that hangs.
    return await gatherResults(map(Deferred.fromCoroutine, coroutines), consumeErrors=True)


async def one_after_the_other(
    workers: Iterable[WorkerLink], ask: Callable[[WorkerLink], Coroutine[Any, Any, _Answer]]
) -> list[_Answer]:
    """Ask those first whose connections move to the others, so that none is passed by on its way; see `messages.OF_MOVING`."""
    left, answers = [*workers], list[_Answer]()
    while left:
        first = [worker for worker in left if worker.is_retiring] or left
        left = [worker for worker in left if worker not in first]
        answers += await concurrently(*map(ask, first))
    return answers


class SilentError(ChannelError):
    """The worker has not answered a request in time, nor sent anything since."""

    def __init__(self) -> None:
        super().__init__("does not answer")


async def broadcast(
    processes: Iterable[WorkerLink],
    message: Message,
    *,
    seconds: float = ANSWER_TIMEOUT,
    prompt: float = ANSWER_TIMEOUT,
    if_late: Literal["wait", "send", "skip"] = "wait",
    **values: Any,
) -> Answers:
    """Send a request to all workers, concurrently where their connections do not move. A worker that has ended is not reported as missing.

    One that starts is not asked about connections, since it has none.

    Args:
        processes: The workers.
        message: The request.
        seconds: How long the answer may take.
        prompt: How long a worker may be silent, unless late ones are waited for.
        if_late: Whether a worker that is late already is waited for, only sent the request, or left out; it has its pings to answer.
        values: The fields of the request.
    """
    missing: list[str] = []
    unusable: list[str] = []

    is_of_moving = message in messages.OF_MOVING

    async def ask(worker: WorkerLink) -> tuple[int, Any] | None:
        if is_of_moving and not worker.ready:
            return None
        try:
            if if_late == "wait":
                return worker.number, await worker.ask(message, seconds=seconds, **values)
            if not worker.is_late:
                return worker.number, await _ask_unless_silent(
                    worker, message, seconds, prompt, values
                )
            if if_late == "send":
                worker.send(message, **values)
            raise SilentError
        except PeerGoneError:
            return None
        except ChannelError as problem:
            missing.append(line := f"worker {worker.number}: {problem}")
            if not isinstance(problem, AnswerTimeoutError | SilentError):
                unusable.append(line)
            return None

    if is_of_moving:
        results = await one_after_the_other(processes, ask)
    else:
        results = await concurrently(*map(ask, processes))
    return Answers([result for result in results if result is not None], missing, unusable)


async def _ask_unless_silent(
    worker: WorkerLink, message: Message, seconds: float, prompt: float, values: Mapping[str, Any]
) -> Any:
    answer = worker.ask(message, seconds=seconds, **values)
    is_silent = False

    def pong_is_late(_: Failure) -> None:
        nonlocal is_silent
        if worker.is_late:
            is_silent = True
            answer.cancel()

    if seconds > prompt:  # one that works for so long responds meanwhile
        worker.ask(messages.PING, seconds=prompt).addErrback(pong_is_late)
    try:
        return await answer
    except CancelledError:
        if is_silent:
            raise SilentError from None
        raise
