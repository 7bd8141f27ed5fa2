"""Timers that cost next to nothing to set and to cancel, and the monotonic time that they go by."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from txmux.net.sockets.memory import MEMORY

_MOST_QUEUES = 64  # with more lengths a queue is not worth its while
_SHORT_OF_MEMORY = 0.1  # seconds until due timers are tried again that lacked memory

_log = Logger()


@implementer(IReactorTime)  # `seconds` is an attribute, since it is asked so often
class Timers:
    """A clock for many timers of few different lengths: each length has a queue, whose first is known to the reactor."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.seconds: Callable[[], float] = clock.seconds
        self._queues: dict[float, _TimerQueue] = {}
        self._in_vain = 0

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],  # noqa: A002 - the interface's name
        *args: Any,
        **kw: Any,
    ) -> IDelayedCall:
        if kw:
            callable = partial(callable, **kw)  # noqa: A001
        timer = QueuedTimer(self, callable, args)
        queue = self._queues.get(delay) or self._add_queue(delay)
        queue.add(timer)
        return timer

    def _add_queue(self, delay: float) -> _TimerQueue | _SingleTimer:
        if len(self._queues) >= _MOST_QUEUES:
            self._in_vain += 1  # looking each time would cost more than it saves
            if self._in_vain % _MOST_QUEUES == 1:
                self.drop_idle()
        if len(self._queues) >= _MOST_QUEUES:
            return _SingleTimer(self._clock, delay)
        queue = self._queues[delay] = _TimerQueue(self._clock, delay)
        return queue

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return [timer for queue in self._queues.values() for timer in queue.waiting]

    def drop_idle(self) -> None:
        """Cancel the reactor's calls for lengths without a timer. To be called when the process is quiet, and not at each `cancel`: another timer of the length is likely soon."""
        for delay, queue in list(self._queues.items()):
            if queue.is_idle():
                del self._queues[delay]


@implementer(IDelayedCall)
class QueuedTimer:
    """Made by `Timers.callLater`."""

    __slots__ = ("_args", "_timers", "at", "func", "queue")

    def __init__(self, timers: Timers, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._timers = timers
        self.func = call
        self._args = args
        self.queue: _TimerQueue | _SingleTimer | None = None
        self.at = 0.0

    def active(self) -> bool:
        return self.queue is not None

    def cancel(self) -> None:
        if self.queue is not None:
            self.queue.remove(self)
        self.func = _nothing
        self._args = ()

    def reset(self, delay: float) -> None:
        if self.queue is not None:
            self.queue.remove(self)
        timers = self._timers
        queue = timers._queues.get(delay) or timers._add_queue(delay)
        queue.add(self)

    def delay(self, secondsLater: float) -> None:
        self.reset(self.at + secondsLater - self._timers.seconds())

    def getTime(self) -> float:
        return self.at

    def run_out(self) -> None:
        self.queue = None
        call, args = self.func, self._args
        self.func, self._args = _nothing, ()
        call(*args)


def _nothing() -> None:
    """Replaces the function of a finished timer, so that it keeps no object alive."""


class _SingleTimer:
    __slots__ = ("_alarm", "_clock", "_delay")

    def __init__(self, clock: IReactorTime, delay: float) -> None:
        self._clock = clock
        self._delay = delay

    def add(self, timer: QueuedTimer) -> None:
        timer.at = self._clock.seconds() + self._delay
        self._alarm = self._clock.callLater(self._delay, timer.run_out)
        timer.queue = self

    def remove(self, timer: QueuedTimer) -> None:
        timer.queue = None
        self._alarm.cancel()


class _TimerQueue:
    __slots__ = ("_alarm", "_clock", "_seconds", "delay", "waiting")

    def __init__(self, clock: IReactorTime, delay: float) -> None:
        self._clock = clock
        self._seconds = clock.seconds
        self.waiting: dict[QueuedTimer, None] = {}
        self._alarm: IDelayedCall | None = None
        self.delay = delay

    def add(self, timer: QueuedTimer) -> None:
        timer.at = self._seconds() + self.delay
        self.waiting[timer] = None
        timer.queue = self
        if self._alarm is None:
            try:
                self._alarm = self._clock.callLater(self.delay, self._ring)
            except MemoryError:
                self.remove(timer)
                raise

    def remove(self, timer: QueuedTimer) -> None:
        timer.queue = None
        del self.waiting[timer]

    def is_idle(self) -> bool:
        if self.waiting:
            return False
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = None
        return True

    def _ring(self) -> None:
        try:
            self._run_out()
        except MemoryError:
            MEMORY.report_shortage()
            # Due timers must not wait for the next one of their length, which may never come.
            self._alarm = None
            self._alarm = self._clock.callLater(_SHORT_OF_MEMORY, self._ring)

    def _run_out(self) -> None:
        waiting = self.waiting
        now = self._clock.seconds()
        while waiting:
            timer = next(iter(waiting))
            if timer.at > now:
                self._alarm = self._clock.callLater(timer.at - now, self._ring)
                return
            del waiting[timer]
            try:
                timer.run_out()
            except BaseException:  # noqa: BLE001 - the other timers must run all the same, as those of Twisted do
                _log.failure("a timer's function raised")
        self._alarm = None


def use_monotonic_time(reactor: Any) -> None:
    """Make a reactor use a clock that is never set, unless it has scheduled something; Twisted uses the time of day."""
    if not reactor.getDelayedCalls():
        reactor.seconds = time.monotonic
