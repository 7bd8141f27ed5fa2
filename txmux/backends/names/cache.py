"""Addresses of the names that clients ask for, as long as their TTL says (RFC 1035)."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.errors import MuxError
from txmux.rules.model import IPAddress, Server

if TYPE_CHECKING:
    from txmux.backends.names.lookup import Lookup
    from txmux.backends.names.question import ServerAddress

    _Key = tuple[tuple[ServerAddress, ...], str]

_SHORTEST, _LONGEST = 1.0, 300.0  # seconds
_MOST_NAMES = 10_000
_MOST_ADDRESSES = 16  # of a name; who has the name says how many there are
_MOST_AT_ONCE = 100
_QUIET = 10.0  # seconds between two warnings: clients cause them


class KnownName:
    """What a name has been found to be.

    Attributes:
        expires: In the reactor's seconds.
        candidates: What backends have made of the addresses.
        turn: Counts the uses, so that each address has its turn.
    """

    __slots__ = ("addresses", "candidates", "expires", "turn")

    def __init__(self, addresses: tuple[IPAddress, ...], expires: float) -> None:
        self.addresses, self.expires = addresses, expires
        self.candidates: dict[object, list[Any]] = {}
        self.turn = 0


class NameCache:
    """Looks names up once for all who ask, and keeps the answers for 1 s to 5 min; a failure for 1 s.

    Never with a search list: a name from outside is a whole one.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        # Only processes with such rules need these.
        from txmux.backends.names.addresses import AddressFinder  # noqa: PLC0415
        from txmux.backends.names.lookup import Lookup  # noqa: PLC0415

        self._finder, self._lookup = AddressFinder, Lookup
        self._reactor = reactor
        # Not those of the rules' own names, which a flood of others would delay.
        self._lookups: dict[tuple[ServerAddress, ...], Lookup] = {}
        self._known: dict[_Key, KnownName] = {}
        self._waiting: dict[_Key, set[Deferred[None]]] = {}
        self._queued: dict[_Key, Deferred[DeferredSemaphore]] = {}
        self._running: dict[_Key, Deferred[None]] = {}
        self._turns = DeferredSemaphore(_MOST_AT_ONCE)
        self._quiet_until = 0.0

    def known(self, resolvers: tuple[ServerAddress, ...], name: str) -> KnownName | None:
        found = self._known.get((resolvers, name))
        return found if found is not None and found.expires > self._reactor.seconds() else None

    def look_up(self, resolvers: tuple[ServerAddress, ...], name: str) -> Deferred[None]:
        """Look a name up; what is returned fires when that has ended, whether it is `known` then or not.

        Cancelling it ends the wait, and the look-up itself if nobody waits for it and it has not begun.
        """
        key = resolvers, name
        waiting = self._waiting.setdefault(key, set())
        answer: Deferred[None] = Deferred(partial(self._leave, key))
        waiting.add(answer)
        if len(waiting) == 1 and key not in self._running and key not in self._queued:
            queued = self._queued[key] = self._turns.acquire()
            queued.addCallbacks(partial(self._start, key), self._cancelled)
        return answer

    def _leave(self, key: _Key, answer: Deferred[None]) -> None:
        waiting = self._waiting.get(key, set())
        waiting.discard(answer)
        if not waiting and key in self._queued:
            self._queued.pop(key).cancel()
            self._waiting.pop(key, None)

    @staticmethod
    def _cancelled(failure: Failure) -> None:
        failure.trap(CancelledError)

    def _start(self, key: _Key, turns: DeferredSemaphore) -> None:
        self._queued.pop(key, None)
        running = self._running[key] = Deferred.fromCoroutine(self._find(*key))
        running.addErrback(self._cancelled).addBoth(partial(self._ended, key, turns))

    def _ended(self, key: _Key, turns: DeferredSemaphore, _: object) -> None:
        self._running.pop(key, None)
        turns.release()
        for answer in self._waiting.pop(key, ()):
            answer.callback(None)

    async def _find(self, resolvers: tuple[ServerAddress, ...], name: str) -> None:
        if resolvers not in self._lookups:
            self._lookups[resolvers] = self._lookup(self._reactor, resolvers)
        finder = self._finder(self._lookups[resolvers], Server("", "tcp", host=f"{name}.", port=1))
        addresses: tuple[IPAddress, ...] = ()
        ttl = _SHORTEST
        try:
            found = await finder.find()
        except MuxError as problem:
            self._report(name, problem)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, clients wait for an end
            self._log.failure("looking up {name} failed", name=name)
        else:
            addresses = tuple(ip_address(one.host) for one in found.addresses[:_MOST_ADDRESSES])
            ttl = max(_SHORTEST, min(found.ttl, _LONGEST))
        key = resolvers, name
        self._known.pop(key, None)
        while len(self._known) >= _MOST_NAMES:
            del self._known[next(iter(self._known))]
        self._known[key] = KnownName(addresses, self._reactor.seconds() + ttl)

    def _report(self, name: str, problem: MuxError) -> None:
        now = self._reactor.seconds()
        is_quiet = now < self._quiet_until
        if not is_quiet:
            self._quiet_until = now + _QUIET
        (self._log.debug if is_quiet else self._log.warn)(
            "cannot find the addresses of {name}, for which a client asks; {problem}",
            name=name,
            problem=problem,
        )

    async def stop(self) -> None:
        for queued in [*self._queued.values()]:
            queued.cancel()
        self._queued.clear()
        running = [*self._running.values()]
        for one in running:
            one.cancel()
        await DeferredList(running)
