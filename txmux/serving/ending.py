"""Closes connections: gradually at a stop, those of removed routes, and those of denied or banned clients."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from txmux.backends.pool.member import Member
from txmux.backends.pool.server_health import MemberState
from txmux.backends.upstreams import Upstreams
from txmux.client.active_listener import ActiveListener
from txmux.client.session import ClientSession
from txmux.net.addresses import address_in
from txmux.rules.model import Backend, Rules
from txmux.telemetry.documents import STATES

_STEPS = 100
"""The most steps of a gradual end."""

RECHECK = 1.0
"""Seconds between two checks of connections that are not decided, or wait for a server."""


class GradualEnd:
    """Timers that end the connections of a process; `connections` returns them."""

    def __init__(self, reactor: Any, connections: Callable[[], Sequence[ClientSession]]) -> None:
        self._reactor = reactor
        self._connections = connections
        self._calls: set[IDelayedCall] = set()
        self.may_move: Callable[[ClientSession], bool] = lambda _: False

    def _is_spared(self, connection: ClientSession) -> bool:
        return connection.state == "connecting" or self.may_move(connection)

    def call_later(self, seconds: float, end: Callable[[], object]) -> None:
        def run() -> None:
            self._calls.discard(call)
            end()

        call = self._reactor.callLater(seconds, run)
        self._calls.add(call)

    def end_all_within(
        self, seconds: float, end_all: Callable[[], object], longest_wait: int = 0
    ) -> None:
        """End all connections: gradually in the second half of the seconds, so that not all clients reconnect at once.

        Those that wait for a server may wait for `longest_wait` seconds more, and have `seconds` once they are served. So may those that
        may yet move to another process.
        """
        self.call_later(seconds / 2, partial(self._one_by_one, seconds / 2))
        if longest_wait:
            self.call_later(seconds, partial(self._end_served, seconds))
        self.call_later(seconds + longest_wait, end_all)

    def _one_by_one(self, seconds: float) -> None:
        left = [*self._connections()]
        steps = min(len(left), _STEPS)

        def end(step: int) -> None:
            for connection in left[step::steps]:
                if connection.record.reason is None and not self._is_spared(connection):
                    connection.end("drained")

        for step in range(steps):
            self.call_later(seconds * (step + 1) / steps, partial(end, step))

    def _end_served(self, seconds: float, before: Collection[str] | None = None) -> None:
        """End all that are not spared; the others `seconds` after that, for which they are checked each second."""
        spared = {one.record.id: self._is_spared(one) for one in self._connections()}
        waiting = {identity for identity, is_spared in spared.items() if is_spared}
        served = {*(spared if before is None else before)} - waiting
        self.call_later(0.0 if before is None else seconds, partial(self._end, served))
        if waiting:
            self.call_later(RECHECK, partial(self._end_served, seconds, waiting))

    def _end(self, identities: Collection[str]) -> None:
        for connection in self._connections():
            if connection.record.id in identities:
                connection.end("drained")

    def end_each(self, connections: Iterator[ClientSession]) -> None:
        some = [*islice(connections, _AT_ONCE)]
        for connection in some:
            if connection.record.reason is None:
                connection.end("server-down")
        if len(some) == _AT_ONCE:
            self.call_later(0, partial(self.end_each, connections))

    def cancel_calls(self) -> None:
        for call in self._calls:
            call.cancel()
        self._calls.clear()


class EndOnDown:
    """Ends connections to servers that checks have found down, or to backup servers once others are up, where ``end_on_down`` says so.

    Thousands of servers may go down together, so it looks once through all connections for all that are found within `_PAUSE`.
    """

    def __init__(
        self,
        gradual_end: GradualEnd,
        seconds: Callable[[], float],
        connections: Callable[[], Sequence[ClientSession]],
        upstreams: Upstreams,
    ) -> None:
        self._gradual_end, self._seconds = gradual_end, seconds
        self._connections, self._upstreams = connections, upstreams
        self._found: dict[Backend, set[Member]] = {}
        self._may_look_at = 0.0

    def look_for(self, backend: Backend, member: Member) -> None:
        """End connections because of a server, if it is still down, or up, when they are looked at."""
        if not self._found:
            wait = max(0.0, self._may_look_at - self._seconds())
            self._gradual_end.call_later(wait, self._look)
        self._found.setdefault(backend, set()).add(member)

    def _look(self) -> None:
        found, self._found = self._found, {}
        self._may_look_at = self._seconds() + _PAUSE
        ends: dict[str, list[Member]] = {}
        for backend, members in found.items():
            its = ends.setdefault(backend.name, [])
            its += [member for member in members if member.health.state is MemberState.DOWN]
            if backend.end_on_down == "backup" and any(
                member.state is MemberState.UP and not member.server.backup for member in members
            ):
                its += self._backups(backend)
        # Few depend on the client, which a text alone does not show.
        by_client = {
            name: [member for member in its if member.server.depends_on_client]
            for name, its in ends.items()
        }
        texts = {
            name: {member.target.text for member in its if not member.server.depends_on_client}
            for name, its in ends.items()
        }

        def ends_now(connection: ClientSession) -> bool:
            record, server = connection.record, connection.record.server or ""
            if record.backend not in ends or connection.state != "relaying":
                return False
            name = record.backend
            return server in texts[name] or any(its.is_at(server) for its in by_client[name])

        self._gradual_end.end_each(filter(ends_now, self._connections()))

    def _backups(self, backend: Backend) -> list[Member]:
        return [
            member
            for upstream in self._upstreams.all([backend.name])
            if upstream.backend == backend
            for member in upstream.pool.members
            if member.server.backup
        ]


def connections_of_removed(
    connections: Iterable[ClientSession],
    rules: Rules,
    version: int,
    routes: Collection[str],
    backends: Collection[str],
) -> list[ClientSession]:
    """Return the connections of removed routes and backends, unless the rules in force have these again.

    Connections of `version` and later ones belong to other routes of these names.
    """
    gone = {*routes} - {route.name for route in rules.routes}
    gone_backends = {*backends} - {*rules.backends}
    return [
        connection
        for connection in connections
        if connection.configuration.version < version
        and (connection.record.route in gone or connection.record.backend in gone_backends)
    ]


def forget_restored(removed: Iterable[dict[str, Any]], rules: Rules) -> None:
    """Leave out of what was removed the routes and backends that are back: if one is removed again, its connections have the whole time."""
    here = {"routes": {route.name for route in rules.routes}, "backends": {*rules.backends}}
    for gone in removed:
        gone |= {kind: sorted({*gone[kind]} - names) for kind, names in here.items()}


_AT_ONCE = 200
"""Connections checked in one turn of the reactor, which takes about a millisecond."""

_PAUSE = 0.2
"""Seconds between two checks of all connections, or twice what the last one took if that is more: under attack, bans arrive all the time."""


_WITHOUT_SERVER = frozenset(STATES[: STATES.index("awaiting-retry")])
"""Stages at which no server has anything of the client, or all of it."""


class DeniedClients:
    """Ends connections of clients that are denied by now; checks a few at a time.

    At listeners with ``end_denied`` these are all; elsewhere those of banned clients that have no server yet.
    """

    def __init__(self, reactor: Any, listeners: Callable[[], Iterable[ActiveListener]]) -> None:
        self._reactor = reactor
        self._listeners = listeners
        self._call: IDelayedCall | None = None
        self._is_due = False
        self._began = 0.0

    def check_all(self) -> None:
        """Check all connections: at once, or again after the current check. Called when the admitted networks may have changed."""
        self._is_due = True
        if self._call is None:
            self._start_check()

    def _start_check(self) -> None:
        self._call = None
        if self._is_due and any(map(_may_deny, self._listeners())):
            self._began = self._reactor.seconds()
            self._call = self._reactor.callLater(0, self._check_next, self._each())
        self._is_due = False

    def _each(self) -> Iterator[None]:
        for listener in self._listeners():
            if not _may_deny(listener):
                continue
            for connection in list(listener.connections):
                record = connection.record
                if (
                    connection.admitted
                    and record.reason is None
                    and _is_denied(listener, connection)
                ):
                    connection.end("denied")
                yield

    def _check_next(self, each: Iterator[None]) -> None:
        done = sum(1 for _ in islice(each, _AT_ONCE))
        if self._call is None:  # stopped meanwhile, since the last connection has ended
            return
        if done == _AT_ONCE:
            self._call = self._reactor.callLater(0, self._check_next, each)
        else:
            pause = max(_PAUSE, 2 * (self._reactor.seconds() - self._began))
            self._call = self._reactor.callLater(pause, self._start_check)

    def stop_checks(self) -> None:
        self._is_due = False
        call, self._call = self._call, None
        if call is not None and call.active():  # a check that runs may end the last connection
            call.cancel()


def _may_deny(listener: ActiveListener) -> bool:
    return listener.configuration.settings.end_denied or listener.configuration.admission.banned.any


def _is_denied(listener: ActiveListener, connection: ClientSession) -> bool:
    admission, record = listener.configuration.admission, connection.record
    ends_all = listener.configuration.settings.end_denied
    if not ends_all and connection.state not in _WITHOUT_SERVER:
        return False
    # The address of a client that has moved between networks is a fact of its connection.
    address = address_in(record.facts.get("moved_to") or record.client)
    if address is None:
        return False
    return not admission.serves(address) if ends_all else address.host in admission.banned
