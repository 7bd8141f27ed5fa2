"""What a worker remembers of the last clients: their first bytes, and what else decides. It tries other rules on them itself, so that these stay there."""

from __future__ import annotations

from base64 import b64decode
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from typing_extensions import override

from txmux.client.parts import ServingContext, ServingPart
from txmux.features.trial import remembered_clients
from txmux.features.trial.comparing import CannotTellError, RememberedClient, compared, use_contents
from txmux.net.turns import Turns, in_thread
from txmux.rules.model import Rules
from txmux.rules.packing import unpack_in_steps
from txmux.rules.tracing import Tracer
from txmux.telemetry.access_log import REMEMBERED
from txmux.wire.preamble import NOTHING

if TYPE_CHECKING:
    from txmux.client.session import ClientSession

_PLACES = 4
"""The most clients of one source that a listener remembers: a source that connects often must not push out all others."""
_MOST_MOVES = 1000
"""Rows of an answer: destinations may have names that clients make up."""


class _LastClients:
    """Those of a listener, by their sources, of which the last seen is the last."""

    def __init__(self, size: int) -> None:
        self._size, self._count = size, 0
        self._sources: OrderedDict[str, deque[RememberedClient]] = OrderedDict()

    def add(self, client: RememberedClient) -> None:
        places = self._sources.setdefault(client.source, deque(maxlen=_PLACES))
        self._count += len(places) < _PLACES
        places.append(client)
        self._sources.move_to_end(client.source)
        if self._count > self._size:
            source, places = next(iter(self._sources.items()))
            places.popleft()
            self._count -= 1
            if not places:
                del self._sources[source]

    def __iter__(self) -> Iterator[RememberedClient]:
        return (client for places in self._sources.values() for client in places)


class ClientMemory(ServingPart):
    """Remembers the last clients of each listener, from their decision on. A reload keeps what still has room."""

    _rules: Rules

    def __init__(self, context: ServingContext) -> None:
        self._events = context.serving.runtime.events
        self._clients: dict[str, _LastClients] = {}

    @override
    def commit(self, rules: Rules) -> None:
        self._rules = rules
        sizes, before = remembered_clients(rules), self._clients
        self._clients = {name: _LastClients(size) for name, size in sizes.items()}
        for name, clients in self._clients.items():
            for client in before.get(name, ()):
                clients.add(client)
        self._events.follow_decisions(self._add if sizes else None)

    def _add(self, session: ClientSession) -> None:
        clients = self._clients.get(session.record.listener)
        if clients is not None:
            clients.add(_remembered(session))
        outer: Any = session  # streams have what routes saw
        if getattr(outer, "outer", ()):  # else it would stay as long as the connection
            outer.outer = ()

    def remembered(self) -> Iterator[tuple[str, int, int]]:
        """Yield for each listener how many clients it has, and how many of their bytes."""
        for name, clients in self._clients.items():
            sizes = [sum(map(len, client.layers)) for client in clients]
            yield name, len(sizes), sum(sizes)

    @override
    def receive(self, values: Any) -> Deferred[Any] | None:
        """Return where the clients would go by other rules."""
        if values is None:  # at the start
            return None
        return Deferred.fromCoroutine(self._compare(b64decode(values["rules"])))

    async def _compare(self, packed: bytes) -> list[Any]:
        """Return when the first client came, those that would go elsewhere, those of which it is not known, and the numbers of each source."""
        present, turns = self._rules, Turns()
        rules: Any = await turns.run(unpack_in_steps(packed))
        use_contents(present, rules)
        old, new = (Tracer(of_rules, has_answers=False) for of_rules in (present, rules))
        begun = set[object]()
        sources = defaultdict[str, list[int]](lambda: [0] * 4)  # all; moved, unknown, excluded
        moves: dict[tuple[str | None, ...], list[Any]] = {}
        counts, unknown, times = (
            Counter[tuple[str | None, ...]](),
            Counter[tuple[str, str]](),
            list[float](),
        )
        for listener in present.listeners:
            for client in [*self._clients.get(listener.name, ())]:
                await turns.pause()
                times.append(client.time)
                votes = sources[client.source]
                votes[0] += 1
                both = partial(compared, old, new, listener, client)
                begins = listener.name, *(data[:1] for data in client.layers)
                is_first = begins not in begun
                begun.add(begins)
                try:  # for the first ones, that makes of thousands of routes what the others use, which takes seconds
                    now, then = await in_thread(both) if is_first else both()
                except CannotTellError as why:
                    unknown[listener.name, str(why)] += 1
                    votes[2] += 1
                    continue
                if not now.is_like(then):
                    key = listener.name, now.text, then.text, then.excluded_by
                    counts[key] += 1
                    votes[3 if then.excluded_by else 1] += 1
                    moves[key] = [client.client, now.name, client.time]
        return [
            min(times, default=None),
            [[*key, count, *moves[key]] for key, count in counts.most_common(_MOST_MOVES)],
            [[*key, count] for key, count in unknown.items()],
            [[source, *votes] for source, votes in sources.items()],
        ]


def _remembered(session: Any) -> RememberedClient:
    record, tls = session.record, session.agreed_tls
    held = getattr(session, "held", None)  # a flow's first datagrams
    layers = (*session.outer, session.seen) if held is None else held
    return RememberedClient(
        record.time,
        record.client,
        record.local,
        held is not None,
        tuple(data[:REMEMBERED] for data in layers) or (b"",),
        None if tls is None else tls.found,
        session.granted if held is None else NOTHING,
    )
