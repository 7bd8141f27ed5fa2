"""The order in which logins are checked, which takes long on purpose: sources take turns, those with the fewest wrong logins first."""

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import attrs

from txmux.classes import define

T = TypeVar("T", bound=Hashable)

_MOST = 1000  # logins that wait, each with a connection of its own
_MOST_PER_SOURCE = 2
_REMEMBERED = 10_000  # sources with a wrong login
_FORGIVEN = 600.0  # seconds after the last one


@define
class _Waiting(Generic[T]):
    turn: int  # when it came or had its last turn
    logins: deque[T] = attrs.field(factory=deque)


class LoginQueue(Generic[T]):
    """Logins of sources that wait for their turn.

    A source that has sent no wrong login lately goes before all that have; so however many wrong ones others send, its first login
    waits for no more than the one that is being checked.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._sources: dict[int, _Waiting[T]] = {}
        self._turns = itertools.count()
        self._wrong: OrderedDict[int, tuple[int, float]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, source: int, login: T) -> T | None:
        """Add a login. Returns one for which there is no room: this one, or another whose source has sent more wrong ones."""
        mine = self._sources.get(source)
        if mine is not None and len(mine.logins) >= _MOST_PER_SOURCE:
            return login
        pushed_out = None
        if self._count >= _MOST:
            worst = self.worst()
            wrong, waits = self._rank(source)
            # Of new sources the latest go first, so the one that has waited longest gives way to another.
            if self._rank(worst) <= (wrong, waits + bool(wrong)):
                return login
            pushed_out = self._pop(worst, last=True)
        if mine is None:
            mine = self._sources[source] = _Waiting(next(self._turns))
        mine.logins.append(login)
        self._count += 1
        return pushed_out

    def take(self) -> T | None:
        """Take the next login; ``None`` if none waits."""
        if not self._sources:
            return None
        source = min(self._sources, key=self._turn)
        self._sources[source].turn = next(self._turns)
        return self._pop(source)

    def remove(self, source: int, login: T) -> bool:
        """Remove a login whose client has left, and count it as a wrong one; return whether it still waited."""
        waiting = self._sources.get(source)
        if waiting is None or login not in waiting.logins:
            return False
        waiting.logins.remove(login)
        self._count -= 1
        if not waiting.logins:
            del self._sources[source]
        # Else, under attack, sources of which nothing has been checked yet would be new again and again.
        self.judged(source, is_right=False)
        return True

    def judged(self, source: int, *, is_right: bool) -> None:
        """Remember whether a login of a source was right."""
        count = 0 if is_right else self._wrong_of(source) + 1
        self._wrong.pop(source, None)
        if count:
            self._wrong[source] = count, self._seconds()
            if len(self._wrong) > _REMEMBERED:
                self._wrong.popitem(last=False)

    def _turn(self, source: int) -> tuple[int, int]:
        wrong, turn = self._wrong_of(source), self._sources[source].turn
        # Of those without a wrong one the newest goes first: while many come at once, as each would wait for all before it.
        return wrong, turn if wrong else -turn

    def worst(self) -> int:
        """Return the source that waits with the most wrong logins, then the most that wait, then the longest."""
        return max(
            self._sources, key=lambda source: (*self._rank(source), -self._sources[source].turn)
        )

    def _rank(self, source: int) -> tuple[int, int]:
        waiting = self._sources.get(source)
        return self._wrong_of(source), 0 if waiting is None else len(waiting.logins)

    def _wrong_of(self, source: int) -> int:
        count, at = self._wrong.get(source, (0, 0.0))
        return count if self._seconds() - at < _FORGIVEN else 0

    def _pop(self, source: int, *, last: bool = False) -> T:
        logins = self._sources[source].logins
        login = logins.pop() if last else logins.popleft()
        self._count -= 1
        if not logins:
            del self._sources[source]
        return login
