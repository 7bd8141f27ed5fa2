"""Long work in small pieces, so that the process's connections do not wait for it."""

import errno
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread, current_thread, get_ident
from time import perf_counter
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from txmux.files import forget_thread, late_disk
from txmux.net.collecting import UNCOLLECTED

T = TypeVar("T")
_Outcome = tuple[T | None, Exception | None]
_PIECE = 0.005  # seconds that one piece takes
_AT_ONCE = 32  # things between two reads of the clock


class Turns:
    """Lets the process's own reactor serve its connections from time to time, once it runs."""

    def __init__(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

        self._reactor: Any = reactor
        self._until = perf_counter() + _PIECE

    async def run(self, steps: Generator[None, None, T]) -> T:
        with UNCOLLECTED:
            try:
                while True:
                    next(steps)
                    await self.pause()
            except StopIteration as end:
                result: T = end.value
                return result

    async def each(self, things: Iterable[T], has_ended: Callable[[T], bool]) -> AsyncIterator[T]:
        """Yield the things that are there now, each only if it has not ended when its turn comes.

        In every pause some may end and others come. The caller must be done with a thing before it awaits anything.
        """
        for number, thing in enumerate([*things]):
            if not number % _AT_ONCE:
                await self.pause()
            if not has_ended(thing):
                yield thing

    async def collect(self, rows: Iterable[T]) -> list[T]:
        """Make a list of rows that are made one by one, of what no pause changes; for what may end, see `each`."""
        made = []
        with UNCOLLECTED:
            for row in rows:
                made.append(row)
                await self.pause()
        return made

    async def pause(self) -> None:
        if perf_counter() >= self._until and self._reactor.running:
            await deferLater(self._reactor, 0)
            self._until = perf_counter() + _PIECE


_OFTEN = 0.0005  # seconds
_usual = sys.getswitchinterval()
_running = 0


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run in a thread what cannot be done in pieces; meanwhile, threads take turns more often than usual.

    Each system call of the reactor ends its turn, so it would wait for 5 ms after each.
    """
    global _running  # noqa: PLW0603 - the interval is the process's, too
    _running += 1
    sys.setswitchinterval(_OFTEN)
    try:
        with UNCOLLECTED:
            return _result_of(await outcome_in_thread(function, *arguments))
    finally:
        _running -= 1
        if not _running:
            sys.setswitchinterval(_usual)


async def look_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    return _result_of(await outcome_of_look(function, *arguments))


async def first_late(check: Callable[..., object], *arguments: Any) -> TimeoutError | None:
    """Have a check open files; return the error of the first whose disk does not answer.

    It is repeated until no further disk keeps it waiting, so that from then on no thread waits for any of them; see `on_disk`.
    """
    first: TimeoutError | None = None
    late: set[str] = set()
    while True:
        _, error = await outcome_of_look(check, *arguments)
        if not isinstance(error, TimeoutError) or error.filename in late:
            return first
        first = first or error
        late.add(error.filename)


def _result_of(outcome: _Outcome[T]) -> T:
    result, error = outcome
    if error is None:
        return cast("T", result)
    try:
        raise error
    finally:
        del error, outcome


def outcome_in_thread(function: Callable[..., T], *arguments: Any) -> Deferred[_Outcome[T]]:
    """Run a function that seldom holds the interpreter; its result or its error comes.

    If it waits too long for a disk, that is its error; see `txmux.files.on_disk`.
    """
    ended: Deferred[_Outcome[T]] = Deferred()
    _thread(os.getpid()).run(partial(_attempt, function, *arguments), ended)
    return ended


def outcome_of_look(
    function: Callable[..., T], *arguments: Any, wait: float = 0.0
) -> Deferred[_Outcome[T]]:
    """Have a function look at files, in a thread that does nothing else: every look reads its files by this.

    It is run at once as long as the reactor does not, when no client could wait for it.

    Args:
        function: What looks at them; an `OSError` (``ETIMEDOUT``) takes the place of its result if a disk does not answer.
        arguments: For the function.
        wait: Seconds for which the caller waits if no other look is running; then what a healthy disk says comes at once.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    if not cast("Any", reactor).running:
        return succeed(_attempt(function, *arguments))
    ended: Deferred[_Outcome[T]] = Deferred()
    try:
        _thread(os.getpid(), "looks").run(partial(_attempt, function, *arguments), ended, wait)
    except RuntimeError as error:
        ended.callback((None, OSError(errno.EAGAIN, f"there is no thread to read it: {error}")))
    return ended


_LOOK = 1.0  # seconds
MOST_LEFT = 4
"""Threads that may wait for dead disks before others wait for them, too."""


class JobThread:
    """Does one job after the other in a thread: one, since each takes 72 MiB of addresses.

    No exit waits for it, since it may wait for a disk that never answers. Then another one takes its place.
    """

    def __init__(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

        self._reactor: Any = reactor
        self.jobs: SimpleQueue[tuple[Callable[[], Any], Deferred[Any], SimpleQueue[Any]]]
        self.jobs = SimpleQueue()
        self.waiting: deque[Deferred[Any]] = deque()
        self._left: list[Thread] = []
        self._look: Any = None
        self.thread: Any = None
        self._start()

    def _start(self) -> None:
        before = self.thread
        # Before it runs, or else it would take itself for one that was left behind.
        self.thread = thread = Thread(target=self._work, daemon=True, name="txmux")
        try:
            thread.start()
        except RuntimeError:  # there are too many
            self.thread = before
            raise

    def run(self, job: Callable[[], Any], ended: Deferred[Any], wait: float = 0.0) -> None:
        done: SimpleQueue[Any] = SimpleQueue()
        is_idle = not self.waiting
        self.waiting.append(ended)
        self.jobs.put((job, ended, done))
        self._look = self._look or self._reactor.callLater(_LOOK, self._look_at_disk)
        if wait and is_idle:
            with suppress(Empty):
                self._end(ended, done.get(timeout=wait))

    def _work(self) -> None:
        thread = current_thread()
        while True:
            job, ended, done = self.jobs.get()
            forget_thread(get_ident())
            outcome = None if ended.called else job()  # it may be waited for no longer
            done.put(outcome)
            self._reactor.callFromThread(self._end, ended, outcome)
            if thread is not self.thread:
                return
            del job, ended, done, outcome

    def _end(self, ended: Deferred[Any], outcome: Any) -> None:
        if ended in self.waiting:
            self.waiting.remove(ended)
        if not self.waiting and self._look is not None:
            self._look.cancel()
            self._look = None
        if not ended.called:
            ended.callback(outcome)

    def _look_at_disk(self) -> None:
        self._look = self._reactor.callLater(_LOOK, self._look_at_disk)
        late = late_disk(self.thread.ident or 0)
        if late is None:
            return
        self._left = [thread for thread in self._left if thread.is_alive()]
        late_thread = self.thread
        if len(self._left) < MOST_LEFT:
            with suppress(RuntimeError):  # the others wait for this one
                self._start()
                self._left.append(late_thread)
        self._end(self.waiting[0], (None, late))


def start_thread() -> None:
    """Start the thread of `in_thread` now, since there may be no room for one when it is needed."""
    with suppress(RuntimeError):  # then it is tried again
        _thread(os.getpid())


threads: dict[tuple[int, str], JobThread] = {}
"""By process, since only the thread that forks continues in the other, and by what they are for."""


def _thread(pid: int, use: str = "") -> JobThread:
    if (pid, use) not in threads:
        threads[pid, use] = JobThread()
    return threads[pid, use]


def _attempt(function: Callable[..., T], *arguments: Any) -> _Outcome[T]:
    """Return an error, since a `Failure` of it would be garbage that refers to itself."""
    try:
        return function(*arguments), None
    except Exception as error:  # noqa: BLE001 - it is raised where the result is waited for
        return None, error
