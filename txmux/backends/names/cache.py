"""A cache of the addresses of names that clients ask for (TTL: RFC 1035)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from functools import partial
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmux.errors import MuxError
from txmux.rules.model import Server
from txmux.transport import IPAddress

if TYPE_CHECKING:
    from txmux.backends.names.lookup import Lookup
    from txmux.backends.names.question import ServerAddress
    from txmux.telemetry.sources import Source

    _Key = tuple[tuple[ServerAddress, ...], str]
    _Asker = tuple[int | None, int | None]
    """The author of a backend, and a source of its clients."""

_SHORTEST, _LONGEST = 1.0, 300.0  # seconds
_SLOW = 5.0  # seconds for which a failure is kept that took longer than the shortest time
_MOST_NAMES = 10_000
_MOST_ADDRESSES = 16  # of a name, whose owner decides how many there are
_MOST_AT_ONCE = 100  # look-ups
# Of those, for backends of other users; one has as many as it leaves to others.
_MOST_OF_OTHERS = 50
_MOST_OF_SOURCE = 25  # for one source of clients
_MOST_QUEUED = 100  # clients of one source
_QUIET = 10.0  # seconds between two warnings: clients cause them
_EFFECT = "the next name server is asked, or clients get no server for names that are not known yet"


class KnownName:
    """The addresses of a name.

    Attributes:
        expires: In the reactor's seconds.
        candidates: The members that backends have made of the addresses.
        turn: Counts the uses, so that each address has its turn.
    """

    __slots__ = ("addresses", "candidates", "expires", "turn")

    def __init__(self, addresses: tuple[IPAddress, ...], expires: float) -> None:
        self.addresses, self.expires = addresses, expires
        self.candidates: dict[object, list[Any]] = {}
        self.turn = 0


class NameCache:
    """Looks names up once for all who ask, and keeps the answers for 1 s to 5 min; a failure for 1 s, or 5 s if a name server did not answer.

    Never with a search list: a name from outside is a whole one. A source, see `txmux.access.per_source.source_of`, gets
    at most a quarter of the look-ups, and of the sources that wait, the one with the fewest running is next. So names of
    silent name servers delay only the source that asks for them; and those of another user's backends no clients of the operator.
    """

    _log = Logger()

    def __init__(self, reactor: Any, *, logs: bool = False) -> None:
        # Only processes with such rules need these.
        from txmux.backends.names.addresses import AddressFinder  # noqa: PLC0415
        from txmux.backends.names.lookup import Lookup  # noqa: PLC0415
        from txmux.backends.names.question import TrackedServers  # noqa: PLC0415

        self._finder, self._lookup = AddressFinder, Lookup
        self._reactor = reactor
        self._tracked = TrackedServers(reactor, _EFFECT, logs=logs)
        # Separate from the look-ups of the rules' own names, which a flood must not delay.
        self._lookups: dict[tuple[ServerAddress, ...], Lookup] = {}
        self._known: dict[_Key, KnownName] = {}
        self._waiting: dict[_Key, dict[Deferred[None], _Asker]] = {}
        # By authors of backends, and sources.
        self._queues: dict[int | None, dict[int | None, dict[Deferred[None], _Key]]] = {}
        self._running: dict[_Key, Deferred[None]] = {}
        self._turns: Counter[_Asker] = Counter()  # look-ups that run
        self._of_authors: Counter[int | None] = Counter()
        self._is_starting = False
        self._quiet_until = 0.0

    def known(self, resolvers: tuple[ServerAddress, ...], name: str) -> KnownName | None:
        cached = self._known.get((resolvers, name))
        return cached if cached is not None and cached.expires > self._reactor.seconds() else None

    def look_up(
        self,
        resolvers: tuple[ServerAddress, ...],
        name: str,
        source: int | None,
        author: int | None = None,
    ) -> Deferred[None]:
        """Look a name up for a source of clients of a backend of this author; what is returned fires when that has ended, whether it is `known` then or not.

        It fires at once if too many clients of the source wait for their turn. Cancelling it ends the wait, and the
        look-up itself if no other client waits for it and it has not begun.
        """
        key = resolvers, name
        answer: Deferred[None] = Deferred(partial(self._leave, key))
        if key not in self._running:
            queue = self._queues.setdefault(author, {}).setdefault(source, {})
            if len(queue) >= _MOST_QUEUED:
                answer.callback(None)
                return answer
            queue[answer] = key
        self._waiting.setdefault(key, {})[answer] = author, source
        self._start_next()
        return answer

    def _leave(self, key: _Key, answer: Deferred[None]) -> None:
        waiting = self._waiting.get(key, {})
        if answer in waiting:
            self._leave_queue(waiting.pop(answer), answer)
            if not waiting:
                del self._waiting[key]

    def _leave_queue(self, asker: _Asker, answer: Deferred[None]) -> None:
        author, source = asker
        queues = self._queues.get(author, {})
        queue = queues.get(source, {})
        queue.pop(answer, None)
        if not queue:
            queues.pop(source, None)
        if not queues:
            self._queues.pop(author, None)

    def _start_next(self) -> None:
        # A look-up that ends at once calls this again.
        if not self._is_starting:
            self._is_starting = True
            try:
                self._start_all()
            finally:
                self._is_starting = False

    def _start_all(self) -> None:
        while asker := min(self._next_askers(), default=None, key=self._of_authors_of):
            author, source = asker
            queues = self._queues[author]
            key = next(iter(queues[source].values()))
            # Next time, other sources with as few look-ups come first.
            queues[source] = queues.pop(source)
            for answer, its_asker in self._waiting[key].items():
                self._leave_queue(its_asker, answer)
            self._turns[asker] += 1
            self._of_authors[author] += 1
            self._running[key] = running = Deferred.fromCoroutine(self._find(*key))
            running.addErrback(self._cancelled).addBoth(partial(self._ended, key, asker))

    def _next_askers(self) -> Iterator[_Asker]:
        """Yield the source that is next of each author who may have another look-up."""
        left = _MOST_AT_ONCE - len(self._running)
        left_to_others = _MOST_OF_OTHERS - self._of_authors.total() + self._of_authors[None]
        for author, queues in self._queues.items():
            if author is not None and self._of_authors[author] >= min(left, left_to_others):
                continue
            # With that many queues, one must be of a source without a look-up.
            some = ((author, source) for source in islice(queues, _MOST_AT_ONCE + 1))
            asker = min(some, key=self._turns.__getitem__)
            if left > 0 and self._turns[asker] < _MOST_OF_SOURCE:
                yield asker

    def _of_authors_of(self, asker: _Asker) -> int:
        return self._of_authors[asker[0]]

    @staticmethod
    def _cancelled(failure: Failure) -> None:
        failure.trap(CancelledError)

    def _ended(self, key: _Key, asker: _Asker, _: object) -> None:
        self._running.pop(key, None)
        self._turns -= Counter([asker])
        self._of_authors -= Counter([asker[0]])
        for answer in self._waiting.pop(key, ()):
            answer.callback(None)
        self._start_next()

    async def _find(self, resolvers: tuple[ServerAddress, ...], name: str) -> None:
        if resolvers not in self._lookups:
            self._lookups[resolvers] = self._lookup(self._reactor, resolvers, tracked=self._tracked)
        finder = self._finder(self._lookups[resolvers], Server("", "tcp", host=f"{name}.", port=1))
        addresses: tuple[IPAddress, ...] = ()
        ttl, began = _SHORTEST, self._reactor.seconds()
        try:
            answer = await finder.find()
        except MuxError as problem:
            if self._reactor.seconds() - began >= _SHORTEST:
                ttl = _SLOW
            self._report(name, problem)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, clients wait for an end
            self._log.failure("looking up {name} failed", name=name)
        else:
            addresses = tuple(
                ip_address(address.host) for address in answer.addresses[:_MOST_ADDRESSES]
            )
            ttl = max(_SHORTEST, min(answer.ttl, _LONGEST))
        key = resolvers, name
        self._known.pop(key, None)
        while len(self._known) >= _MOST_NAMES:
            del self._known[next(iter(self._known))]
        self._known[key] = KnownName(addresses, self._reactor.seconds() + ttl)

    def _report(self, name: str, problem: MuxError) -> None:
        now = self._reactor.seconds()
        # The name server's own source reports that it does not answer.
        is_quiet = now < self._quiet_until or not self._tracked.are_up
        if not is_quiet:
            self._quiet_until = now + _QUIET
        (self._log.debug if is_quiet else self._log.warn)(
            "cannot find the addresses of {name}, for which a client asks; {problem}",
            name=name,
            problem=problem,
        )

    def sources(self, used: Collection[tuple[ServerAddress, ...]]) -> Iterator[Source]:
        """Return the name servers that are asked, for the backends in use."""
        self._lookups = {key: look_up for key, look_up in self._lookups.items() if key in used}
        return self._tracked.sources(*(look_up.addresses for look_up in self._lookups.values()))

    async def stop(self) -> None:
        self._tracked.stop()
        self._queues.clear()
        running = [*self._running.values()]
        for look_up in running:
            look_up.cancel()
        await DeferredList(running)
