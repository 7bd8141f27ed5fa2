"""What an operator changes of a running service beside its rules: servers, listeners, connections."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from typing_extensions import override

from txmux.access.banning import ServiceBans
from txmux.access.bans import Bans
from txmux.control.backends import addresses_told, backends_told
from txmux.control.broadcast import Listing, broadcast
from txmux.control.counting import CountingControl
from txmux.control.interface import Report
from txmux.control.live import LiveControl
from txmux.control.overrides import Overrides
from txmux.control.problems import UnknownError
from txmux.control.routes import routes_told
from txmux.control.sections import rules_as_read
from txmux.detection.explain import explain_flow_in_steps, explain_in_steps
from txmux.interfaces import Transport
from txmux.net.turns import Turns
from txmux.rules.model import backends_of
from txmux.rules.problems import suggestion
from txmux.rules.tracing import Sample, Trace, as_json
from txmux.telemetry.counting.present import Present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from txmux.access.banned import Row
    from txmux.access.bans import Change
    from txmux.backends.upstreams import Upstreams
    from txmux.control.events import Hub
    from txmux.control.overrides import ServerState
    from txmux.rules.model import Rules, Server
    from txmux.rules.model.networks import IPAddress
    from txmux.telemetry.counting.snapshot import Counts

__all__ = ["Steering"]

_MOST_WEIGHT = 65535
_ENDING = 20.0
"""Seconds that a process has to end connections."""


class Running(Protocol):
    """What serves.

    Attributes:
        overrides: What an operator wants beside the rules.
        bans: Who may not come in.
    """

    overrides: Mapping[str, Any]
    bans: Bans

    @property
    def upstreams(self) -> Upstreams:
        """The backends, whose servers this process checks."""

    def apply_overrides(self, overrides: Mapping[str, Any], /) -> None:
        """Apply them here, and in processes that are started later."""

    def feed(self, told: Mapping[str, Any], /) -> None:
        """Exchange what is in networks, here, and in processes that are started later."""

    def change_bans(self, changes: Iterable[Change], /) -> Sequence[Row]:
        """Change bans, here, and in processes that are started later; give what others are to be told."""


class Steering(CountingControl, LiveControl):
    """The part of `txmux.control.interface.Control` that changes what is not in the rules.

    Attributes:
        rules: Those that hold.
        events: What happens.
        bans: Clients that may not connect, beside the rules.
    """

    rules: Rules
    events: Hub

    def __init__(self) -> None:
        self.bans = ServiceBans(self._kept_bans, self._change_bans)

    def subscribe(self, follower: Callable[[dict[str, Any] | None], object]) -> Callable[[], None]:
        """Follow what happens in all processes; see `Hub.subscribe`."""
        return self.events.subscribe(follower)

    def checking(self) -> Upstreams | None:
        """Return the backends whose servers this process checks, if it runs."""
        return None if self.running_now is None else self.running_now.upstreams

    @override
    async def _present(self) -> Present:
        return attrs.evolve(await super()._present(), stale=self._stale())

    def _stale(self) -> Mapping[tuple[str, str], tuple[float | None, str]]:
        upstreams = self.checking()
        return {} if upstreams is None else upstreams.stale()

    def stale(self) -> list[str]:
        """Report which servers the names cannot be looked up now; no process is asked for it."""
        return Present(stale=self._stale()).stale_sentences()

    @property
    def running_now(self) -> Running | None:
        """What serves; ``None`` before the start and after the end."""
        raise NotImplementedError

    def overrides(self) -> Overrides:
        """What the operator has set until now."""
        running = self.running_now
        return Overrides() if running is None else Overrides.read(running.overrides)

    async def set_server(
        self,
        backend: str,
        server: str,
        *,
        state: ServerState | None = None,
        weight: int | None = None,
        close_connections: bool = False,
    ) -> Report:
        """Let a server have new connections, or not; until this is called again, over reloads and upgrades.

        Args:
            backend: The backend's name.
            server: As the rules write it.
            state: ``drain`` leads no new connections to it, but checks it; ``maintenance`` does not check it either.
            weight: In place of that in the rules, which 0 has again.
            close_connections: Whether the connections that it has are ended, too.

        Raises:
            UnknownError: There is none like that.
        """
        found = _server(self.rules, backend, server)
        if found.down and state is not None:
            return Report.refused(
                f"backend {backend}: {server} is out of use by the rules; take 'down' away there and reload"
            )
        if weight is not None and not 0 <= weight <= _MOST_WEIGHT:
            return Report.refused(f"weight: must be from 1 to {_MOST_WEIGHT}, not {weight}")
        late = await self._override(
            self.overrides().with_server(backend, server, time.time(), state, weight)
        )
        told: list[str] = [] if state is None else [state]
        if weight is not None:
            told.append(f"weight {weight or found.weight}")
        if close_connections:
            answers = await broadcast(
                self.processes(), "close_server", seconds=_ENDING, backend=backend, server=server
            )
            count = sum(count for _, count in answers.answers)
            told.append(f"{count} connection{'' if count == 1 else 's'} ended")
            late += answers.missing
        return _report(f"backend {backend}: {server}: {', '.join(told) or 'nothing changed'}", late)

    async def set_listener(self, name: str, *, accepting: bool) -> Report:
        """Accept the clients of a listener, or leave them in the queue of its socket, which stays open.

        Args:
            name: The listener's.
            accepting: Which of both; until this is called again, over reloads and upgrades.

        Raises:
            UnknownError: There is none of that name.
        """
        transports = {listener.name: listener.transport for listener in self.rules.listeners}
        if name not in transports:
            raise UnknownError(f"there is no [listen {name}]{suggestion(name, transports)}")
        late = await self._override(self.overrides().with_listener(name, accepting=accepting))
        # Over UDP one queue has the datagrams of all, so those of newcomers cannot be left there.
        is_udp = transports[name] is Transport.UDP
        left = "begins no flows" if is_udp else "leaves clients in the queue"
        how = "accepts clients" if accepting else left
        return _report(f"listener {name}: {how}", late)

    def shut(self) -> list[str]:
        """Return the listeners whose clients are left in the queue."""
        known = {listener.name for listener in self.rules.listeners}
        return sorted(self.overrides().shut & known)

    async def routes(self, counts: Counts | None = None) -> list[dict[str, Any]]:
        """Report each route, in their order, with what it has taken.

        Args:
            counts: The numbers of just now; without them the processes are asked.
        """
        return routes_told(self.rules, counts or await self.counters())

    async def backends(self, counts: Counts | None = None) -> Listing:
        """Report each backend and its servers, in the order of the rules.

        Args:
            counts: As for `routes`.
        """
        asking = Deferred.fromCoroutine(broadcast(self.processes(), "addresses"))
        counts, answers = counts or await self.counters(), await asking
        running = self.running_now
        checked = [] if running is None else addresses_told(running.upstreams)
        told = backends_told(self.rules, counts, self.overrides(), answers.answers, checked)
        return Listing(told, answers.missing)

    def rules_as_read(self) -> list[dict[str, Any]]:
        """Return the files of the rules, with where each section is."""
        return rules_as_read(self.rules)

    async def explain(
        self, data: bytes, listener: str | None = None, client: IPAddress | None = None
    ) -> dict[str, Any]:
        """Return what listeners make of bytes, as ``txmux explain --json`` does.

        Args:
            data: What a client would say first.
            listener: The only one that is meant, by its name.
            client: The client's address.

        Raises:
            UnknownError: There is no listener of that name.
        """
        rules, names = self.rules, [one.name for one in self.rules.listeners]
        if listener is not None and listener not in names:
            raise UnknownError(f"there is no [listen {listener}]{suggestion(listener, names)}")
        now, turns = time.time(), Turns()
        whole = {Transport.TCP: None, Transport.UDP: (data,)}
        # The same bytes are one thing as the beginning of a stream, and another one as a datagram.
        samples = {
            over: Sample(data, client, now=now, datagrams=datagrams)
            for over, datagrams in whole.items()
        }
        traces: dict[Transport, list[Trace]] = {over: [] for over in samples}
        for one in rules.listeners:
            if listener in {None, one.name}:
                routes = rules.asked_of(one, one.transport)
                if one.transport is Transport.UDP:
                    steps = explain_flow_in_steps(routes, (data,), client, one.peek_limit, now)
                else:
                    steps = explain_in_steps(routes, data, client, one.peek_limit, now)
                traces[one.transport].append(Trace(one, await turns.run(steps)))
        told = [(samples[over], found) for over, found in traces.items() if found]
        return as_json(str(rules.path), told)

    def feed(self, told: dict[str, Any]) -> None:
        """Exchange what is in networks of the rules, in all processes; see `txmux.access.lists.current.Lists.feed`."""
        running = self.running_now
        if running is not None:
            running.feed(told)
            # Who does not answer is replaced, and the next one is told at its start.
            Deferred.fromCoroutine(broadcast(self.processes(), "feed", told=told))

    def _kept_bans(self) -> Bans:
        running = self.running_now
        return Bans() if running is None else running.bans

    async def _change_bans(self, changes: Sequence[Change]) -> list[str]:
        """Notify all processes, and name those that have not answered."""
        running = self.running_now
        if running is None:
            return ["the service does not run"]
        rows = running.change_bans(changes)
        return [*(await broadcast(self.processes(), "ban", rows=rows)).missing] if rows else []

    async def _override(self, overrides: Overrides) -> list[str]:
        """Apply overrides in all processes, and name those that have not answered."""
        running, values = self.running_now, overrides.as_json()
        if running is None:
            return ["the service does not run"]
        running.apply_overrides(values)
        return [*(await broadcast(self.processes(), "apply_overrides", overrides=values)).missing]


def _report(changes: str, late: Sequence[str]) -> Report:
    """Report a change, which who is late does when it can."""
    return Report(ok=True, changes="; ".join([changes, *(f"not yet: {one}" for one in late)]))


def _server(rules: Rules, backend: str, server: str) -> Server:
    known = {one.name: one for one in backends_of([*rules.backends.values(), *rules.outcomes()])}
    if backend not in known:
        raise UnknownError(f"there is no backend {backend!r}{suggestion(backend, known)}")
    servers = {one.text: one for one in known[backend].servers}
    if server not in servers:
        named = suggestion(server, servers)
        raise UnknownError(f"backend {backend} has no server {server!r}{named}")
    return servers[server]
