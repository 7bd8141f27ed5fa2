"""Both roles in an upgrade: successor of an old process, and predecessor of a new one.

Theory of operation. The old supervisor starts the new one and owns everything until that answers `serve`: the commit. Before, the
new process has duplicates of the sockets and accepts no client; after, the old one has them and accepts none. So at any moment either
process can continue without the other:

- The new one dies before the commit: the old one continues as if there had been no upgrade, but for connections that the new workers
  have taken while they began to accept; these are as after the commit.
- The old one dies before the commit: the new one, once it is ready, serves with the state that it has.
- The new one dies after the commit: the old one, if it still lives, serves again. Connections that have moved stay in the workers
  of the dead one until they end, and are counted here by the memory of its counters.
- The old one dies after the commit: its workers have their channels to the new workers, and hand over without it.

The old process lives until its last connection, `drain_timeout` at most, or longer for clients that wait for a server. Several may live;
each knows the one before and the one after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred, TimeoutError  # noqa: A004 - this is what it raises
from twisted.logger import Logger

from txmux.access.across_processes import SharedLimits
from txmux.classes import define
from txmux.control.control import Control
from txmux.control.report import Report
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError
from txmux.net.channel.message import Message
from txmux.net.sockets.descriptors import DESCRIPTORS
from txmux.processes import oom
from txmux.processes.conditions import Conditions
from txmux.processes.memory import free_memory, megabytes, own_memory
from txmux.processes.supervisor.notify import sockets_from_systemd
from txmux.processes.supervisor.pidfile import PidFileError
from txmux.processes.supervisor.resources import Resources
from txmux.processes.supervisor.supervisor import Supervisor
from txmux.processes.upgrade.predecessor import Predecessor
from txmux.processes.upgrade.upgrade import Successor, Upgrade, UpgradeError
from txmux.processes.upgrade.worker_transfers import WorkerTransfers
from txmux.processes.workers.received_rules import sockets_of
from txmux.rules.model import Listener, Rules
from txmux.serving.listen_addresses import listen_addresses
from txmux.serving.state import TransferState
from txmux.telemetry.formatting import plural

_log = Logger()

_LONGEST = 70.0
"""Seconds for which reloads and upgrades wait for connections; longer than the old process takes at most."""
_RENEWS = 300.0
"""Seconds that it may take to renew a certificate."""
_RELOADS = 180.0
"""Seconds that the new process may take to reload, when all connections have come."""


@define(eq=False, slots=False)
class Upgrades:
    """Coordinates both roles for `MuxService`.

    Args:
        on_failed: Called if this process cannot write the PID file.
        on_successor_ended: Called if the successor ends before this process; `has_successor` is true then if it did on purpose.

    Attributes:
        is_waiting: Whether the predecessor still serves.
        state: The state of the predecessor so far; see `txmux.serving.state`.
        renewing: Requests to renew a certificate that were passed on to the successor.
    """

    _reactor: Any
    _resources: Resources
    _on_failed: Callable[[MuxError], object]
    _on_successor_ended: Callable[[], object]
    _reload: Callable[[], Awaitable[Report]]
    _renew: Callable[[str], Awaitable[Report]]

    is_waiting = False
    _has_reported = _has_served = _is_accepting = _predecessor_ended = _is_stopping = False

    def __attrs_post_init__(self) -> None:
        self._changes = Conditions()
        self.renewing: set[Deferred[Report]] = set()
        self._successor: Successor | None = None
        self._predecessor: Predecessor | None = None
        self._upgrade: Upgrade | None = None
        self._limits: SharedLimits | None = None
        self.state: TransferState = {}
        self._arrives_until: float | None = None

    # As successor.

    def find_predecessor(self) -> None:
        """Adopt the sockets of the predecessor, if there is one, or those that systemd passes."""
        predecessor = self._predecessor = Predecessor.find()
        if predecessor is not None:
            self.is_waiting = True
            self.state = predecessor.state
            stored, useless = predecessor.sockets, list[str]()
        else:
            stored, own, useless = sockets_from_systemd(self._reactor, os.environ)
            self._resources.adopt(own, {})
            self._resources.sockets.passed = own.keys()
        if predecessor is not None:
            # An older version does not report which of them systemd has, too.
            all_are = stored if "LISTEN_FDS" in os.environ else ()
            self._resources.sockets.passed = self.state.get("passed", all_are)
        self._resources.notifier.taken(stored, useless)
        self._resources.adopt(stored, self.state.get("files", {}))

    def take_limits(self) -> tuple[int, Mapping[str, Any]] | None:
        return None if self._predecessor is None else self._predecessor.take_limits()

    def open(self, rules: Rules) -> None:
        """Open all sockets; unused ones of the predecessor are closed once this process serves."""
        self._resources.open(rules)
        if not self.is_waiting:
            self._resources.sockets.close_unused()

    def cannot_serve(self, why: object) -> None:
        if self._predecessor is not None and not self._has_reported:
            self._predecessor.fail(why)

    def can_serve(self, supervisor: Supervisor) -> None:
        """Report readiness to the predecessor, or serve from now on if there is none. Further calls do nothing."""
        if self._has_reported:
            return
        self._has_reported = True
        predecessor, resources, transfers = self._predecessor, self._resources, supervisor.transfers
        self._limits = supervisor.limits
        if predecessor is None:
            try:
                resources.name_process()
            except PidFileError as problem:
                self._on_failed(problem)
            else:
                self._serves(supervisor.pool.lives)
            return

        async def accept(state: TransferState | None = None) -> list[str]:
            if self._is_stopping:  # the other process continues
                raise UpgradeError("it is shutting down")
            # An error here leaves the other process serving; if that has ended, this one has to serve anyway.
            resources.name_process(must=not self._predecessor_ended)
            supervisor.restore(state or {})
            transfers.await_flows(on=True)
            if state:
                self.expect_connections()
            # Before workers accept, since they take connections from then on, before the commit.
            predecessor.count_back(resources.counters, supervisor.limits, is_layout_known=True)
            supervisor.servers_elsewhere.share()
            await self._accept(transfers)
            left_out = self._leave_out()
            self._serves(supervisor.pool.lives)
            return left_out

        def all_here() -> None:
            transfers.await_flows(on=False)
            self.expect_no_more()

        predecessor.attach(
            self._reactor,
            {
                messages.SERVE: accept,
                messages.ADOPT_CONNECTIONS: lambda descriptors, offered=0: transfers.adopt(
                    sockets_of(descriptors), offered
                ),
                messages.COUNT_ON: partial(self._count_on, predecessor, supervisor),
                messages.HANDED_OVER: all_here,
                messages.RELOAD: partial(_reported, self._reload),
                messages.RENEW: partial(_reported, self._renew),
            },
            lambda: self._on_predecessor_ended(accept, all_here),
            transfers.processes,
        )

    def _count_on(self, predecessor: Predecessor, supervisor: Supervisor, **lent: Any) -> None:
        """Take counters over, and lend those of this process while the other one still serves, since it takes a while."""
        self._resources.counters.adopt(**lent)
        predecessor.count_back(self._resources.counters, supervisor.limits)

    def _leave_out(self) -> list[str]:
        """Close the sockets that the rules lack, and return their keys for the predecessor, which has them, too."""
        sockets, endpoints = self._resources.sockets, self._resources.endpoints
        left_out = [*sockets.unused, *endpoints.unused()]
        if not self._predecessor_ended:
            sockets.predecessor, sockets.left_out = os.getppid(), {*left_out}
        for store in (sockets, endpoints.store):
            # The predecessor removes the files of UNIX sockets, after it has accepted the clients that wait there.
            store.close_unused(keep_files=not self._predecessor_ended)
        return left_out

    async def _accept(self, transfers: WorkerTransfers) -> None:
        """Accept clients; if the predecessor ends meanwhile, errors no longer matter, since no other process accepts any."""
        self._is_accepting = True
        try:
            await transfers.accept()
        except ChannelError as problem:
            if not self._predecessor_ended:
                raise
            _log.warn("a worker does not accept clients yet: {why}", why=problem)
        finally:
            self._is_accepting = False
        self.is_waiting = False

    def _serves(self, is_healthy: Callable[[], bool]) -> None:
        oom.go_last()
        self.store()
        self._resources.serve(is_healthy, is_new_main=self._predecessor is not None)
        self._has_served = True
        self._changes.check()

    def store(self) -> None:
        """Leave what is needed if this process dies: sockets with systemd, counters with the predecessor."""
        self._resources.store()
        if self._predecessor is not None and self._limits is not None:
            self._predecessor.count_back(self._resources.counters, self._limits)

    def _on_predecessor_ended(
        self, accept: Callable[[], Coroutine[Any, Any, object]], all_here: Callable[[], object]
    ) -> None:
        self._predecessor_ended = True
        self._resources.sockets.left_out = ()
        if self.is_waiting and not self._is_accepting and not self._is_stopping:
            _log.warn("the old process has ended; this one serves from now on")
            failed = partial(_log.failure, "this process cannot take its place")
            Deferred.fromCoroutine(accept()).addErrback(failed)
        self._changes.check()
        self._resources.counters.others_ended()
        all_here()

    # As predecessor.

    @property
    def has_successor(self) -> bool:
        return self._successor is not None

    @property
    def is_under_way(self) -> bool:
        return self._upgrade is not None or self.is_waiting or self.has_successor

    def serves(self) -> Deferred[None]:
        return self._changes.until(lambda: self._has_served or self._is_stopping)

    def settled(self) -> Deferred[None]:
        """Wait until it is decided which process serves."""
        return self._changes.until(
            lambda: self._upgrade is None and (self._predecessor_ended or not self.is_waiting)
        )

    def predecessor_ended(self) -> Deferred[None]:
        return self._changes.until(lambda: self._predecessor is None or self._predecessor_ended)

    def are_arriving(self) -> bool:
        return self._arrives_until is not None

    async def connections_arrived(self) -> None:
        if self._arrives_until is None:
            return
        arrived = self._changes.until(lambda: self._arrives_until is None)
        left = max(0.0, self._arrives_until - self._reactor.seconds())
        try:
            await arrived.addTimeout(left, self._reactor)
        except TimeoutError:
            if self._arrives_until is not None:
                _log.warn(
                    "the old process has not handed over all connections in {seconds:g} s; no longer waiting for them",
                    seconds=_LONGEST,
                )
                self.expect_no_more()

    def expect_connections(self) -> None:
        self._arrives_until = self._reactor.seconds() + _LONGEST

    def expect_no_more(self) -> None:
        self._arrives_until = None
        self._changes.check()

    def pass_signal_on(self, number: int) -> bool:
        return self._successor is not None and self._successor.send_signal(number)

    async def reload_successor(self) -> Report:
        return await self._pass_on("reload", messages.RELOAD, seconds=_RELOADS)

    def renew_in_successor(self, name: str) -> Awaitable[Report] | None:
        """Have the successor, if there is one, renew a certificate; this process does not end before it has answered."""
        if self._successor is None:
            return None
        asking = self._pass_on("renew it", messages.RENEW, seconds=_RENEWS, name=name)
        renewing = Deferred.fromCoroutine(asking)
        self.renewing.add(renewing)
        return renewing.addBoth(self._renewed, renewing)

    def _renewed(self, result: Any, renewing: Deferred[Report]) -> Any:
        self.renewing.discard(renewing)
        return result

    async def _pass_on(
        self, what: str, message: Message, *, seconds: float, **values: Any
    ) -> Report:
        assert self._successor is not None  # noqa: S101 - not called before
        try:
            answer = await self._successor.channel.ask(message, seconds=seconds, **values)
        except ChannelError as problem:
            return Report.refused(f"the new process could not {what}: {problem}")
        return Report(answer["ok"], answer["changes"], tuple(answer["errors"]))

    def refusals(self, listeners: Iterable[Listener], transfers: WorkerTransfers) -> Iterator[str]:
        """Yield why no upgrade is possible now."""
        if self._upgrade is not None:
            yield "an upgrade is under way already"
        if self.is_waiting or self.has_successor:
            yield "this process is not the one that serves"
        if holds_container():
            yield (
                "the container would end with this process, and close all connections; "
                "start a container of the new image instead"
            )
        for lacking in (lacking_room, lacking_descriptors):
            if why := lacking(transfers.processes):
                yield why
        yield from _not_transferable(listeners)

    async def try_start(
        self, transfers: WorkerTransfers, state: Callable[..., Awaitable[TransferState]]
    ) -> None:
        """Start this program again, as `upgrade` does, and end it when it is ready to serve; an `UpgradeError` says why it is not."""
        _log.info("an upgrade is tried: a new process starts, and stops when it is ready to serve")
        self._upgrade = upgrade = Upgrade(transfers, self._resources.endpoints, self._reactor)
        try:
            with self._resources.handed_over() as sockets:
                memory = None if self._limits is None else self._limits.descriptor
                await upgrade.start(sockets, state, memory)
            await upgrade.successor.stop()
        finally:
            self._upgrade = None
            self._changes.check()

    async def upgrade(
        self,
        listeners: Iterable[Listener],
        transfers: WorkerTransfers,
        state: Callable[..., Awaitable[TransferState]],
        control: Control,
    ) -> Upgrade:
        """Start this program again, and hand over to it; after an error, this process keeps serving.

        `control` gets what is changed in the new process later, for the clients that stay here.
        """
        for why in self.refusals(listeners, transfers):
            raise UpgradeError(why)
        resources = self._resources
        self._upgrade = upgrade = Upgrade(
            transfers, resources.endpoints, self._reactor, on_committed=control.be_replaced
        )

        async def leave_out(keys: Sequence[str]) -> None:
            resources.endpoints.leave_out(keys)
            await transfers.leave_out(keys, is_over=True)
            await self.leave_out(keys)

        upgrade.successor.channel.handlers |= {
            messages.LEAVE_OUT: leave_out,
            messages.OVERRIDE: control.follow_overrides,
            messages.FOLLOW: control.follow,
        }

        try:
            with resources.handed_over() as sockets:
                memory = None if self._limits is None else self._limits.descriptor
                await upgrade.run(sockets, state, resources.counters, memory)
            self._successor = upgrade.successor
        finally:
            self._upgrade = None
            if self._successor is None:
                resources.name_process(must=False)
                self._count_for(upgrade.successor)
            self._changes.check()
        successor = upgrade.successor
        if not successor.channel.is_open:
            # Otherwise workers would be asked to leave, and have to serve again.
            await successor.ended()
        upgrade.steps.run("leave systemd to the new process", resources.notifier.stop)
        successor.ended().addCallback(self._has_ended)
        report_exit = partial(self.report_exit, on=self.has_successor)
        await upgrade.steps.wait("announce the end of this process", report_exit)
        return upgrade

    def _has_ended(self, how: str) -> str:
        if self._successor is not None and not self._successor.leaves:
            if not self._is_stopping:
                self._count_for(self._successor)
            self._successor = None
        if not self._is_stopping:
            if not self.has_successor:
                _log.error("the new process {how}; this one serves again", how=how)
            self._on_successor_ended()
        return how

    def _count_for(self, successor: Successor) -> None:
        """Read the counters of a successor that has died, since the connections that have moved continue in its workers.

        The memory of the limits has them, too; what the successor has placed there keeps its place.
        """
        if successor.limits and self._limits is not None:
            self._limits.follow(successor.limits)
        if successor.counting is not None:
            descriptors, fields = successor.counting
            try:
                self._resources.counters.adopt(descriptors, **fields)
            except (MuxError, OSError) as problem:  # descriptors may have run out
                _log.error("the numbers of the new process are lost: {why}", why=problem)

    def serve_again(self, is_healthy: Callable[[], bool]) -> None:
        Deferred.fromCoroutine(self.report_exit(on=False))
        self._resources.name_process(must=False)
        self._resources.serve(is_healthy, is_new_main=True)

    # The end.

    async def report_exit(self, *, on: bool) -> None:
        if self._predecessor is not None and not self.is_waiting:
            await self._predecessor.report_exit(on=on)

    async def leave_out(self, keys: Sequence[str]) -> None:
        """Ask the predecessor to close sockets that a reload has removed: clients there would get no answer while it lives."""
        if self._predecessor is None or self._predecessor_ended or not keys:
            return
        sockets = self._resources.sockets
        sockets.left_out = {*sockets.left_out, *keys}
        try:
            await self._predecessor.leave_out(keys)
        except ChannelError as problem:
            # Of a stream socket, closing it here ends it there, too.
            if kept := [key for key in keys if key.startswith("udp:")]:
                _log.warn(
                    "process {pid}, which an upgrade has replaced, may be of an older version, and keeps {kept} until it ends: {why}",
                    pid=sockets.predecessor,
                    kept=", ".join(kept),
                    why=problem,
                )

    def override(self, overrides: Mapping[str, Any]) -> None:
        """Pass the operator's overrides on to the predecessor, where clients may wait, too."""
        if self._predecessor is not None:
            self._predecessor.override(overrides)

    def follow(self, **changes: Any) -> None:
        """The same for bans and lists of networks."""
        if self._predecessor is not None:
            self._predecessor.follow(changes)

    def stop_upgrading(self) -> bool:
        """End a successor that does not serve yet; return whether another process serves."""
        self._is_stopping = True
        self._changes.check()
        shared = self.is_waiting or self.has_successor
        if self._upgrade is not None:
            shared = shared or self._upgrade.is_committed
            self._upgrade.give_up()
        if not shared:
            self._resources.notifier.stopping()
        return shared


async def _reported(work: Callable[..., Awaitable[Report]], **values: Any) -> dict[str, Any]:
    return attrs.asdict(await work(**values))


def _not_transferable(listeners: Iterable[Listener]) -> Iterator[str]:
    for listener in listeners:
        for address in listen_addresses(listener):
            if not address.is_plain:
                yield (
                    f"[listen {listener.name}] endpoint {address.text}: an endpoint of type {address.kind!r} cannot be handed "
                    "to another process; write ADDRESS:PORT, :PORT, unix: or systemd:, or restart txmux"
                )


_PRIVATE = 0.4
"""The part of a supervisor's memory that its starter and each of its workers have for themselves, beside what they share with it."""
_DESCRIPTORS = 16
"""Descriptors for the new process itself: its channel, its output, what it lends, and for requests meanwhile."""


def lacking_room(workers: int, free: Callable[[], tuple[int, str] | None] = free_memory) -> str:
    """Return why no upgrade can be made now, and what to do; nothing if there is room for one.

    Both services are there for a while. If memory ended then, the kernel would kill processes with clients.

    Args:
        workers: How many the new process will start.
        free: Returns what is left.
    """
    found, needed = free(), _needed(workers)
    if found is None or found[0] >= needed:
        return ""
    return (
        f"there is no room for a new process beside this one: it needs some {megabytes(needed)}, {megabytes(found[0])} are free, and {found[1]}; "
        "allow more memory (MemoryMax= in a systemd unit, or the limit of the container), or restart txmux"
    )


def lacking_descriptors(
    workers: int, count_and_limit: Callable[[], tuple[int, int]] = DESCRIPTORS.count_and_limit
) -> str:
    """Return why no upgrade can be made now, and what to do; nothing if this process may open enough descriptors.

    Args:
        workers: How many the new process will start; each has a channel from one of the old ones at a time.
        count_and_limit: Returns how many descriptors are open, and how many may be.
    """
    (count, limit), needed = count_and_limit(), _DESCRIPTORS + 2 * workers
    if limit - count >= needed:
        return ""
    return (
        f"an upgrade needs {plural(needed, 'more descriptor')} in this process, which has {count} open and may have {limit}; "
        "raise the limit (LimitNOFILE=, ulimit -n), or restart txmux"
    )


def _needed(workers: int) -> int:
    return round(own_memory() * (1 + _PRIVATE * (1 + workers)))


async def collect_state(
    supervisor: Supervisor, control: Control, resources: Resources, *, again: bool = False
) -> TransferState:
    """Return the state to hand over; see `txmux.serving.state` and `Supervisor.state_to_hand_over`."""
    when, report = control.last_reload or (0.0, None)
    rules = {
        "number": supervisor.version,
        "digest": _digest(control.rules),
        "last_reload": None if report is None else {"time": when, **report.as_json()},
    }
    state = await supervisor.state_to_hand_over(again=again)
    # The successor reads the files itself.
    networks = {
        name: contents
        for name, contents in state["networks"].items()
        if name.partition(":")[0] != "file"
    }
    return {
        **state,
        "networks": networks,
        "rules": rules,
        "history": control.rates.as_json(),
        "attention": control.attention_state(),
        "files": resources.files(),
        "passed": [*resources.sockets.passed],
        "units": {path: control.rules.files.texts[path] for path in control.rules.units},
    }


def number_in(state: Mapping[str, Any], rules: Rules) -> int:
    """Return the version of these rules: that of the predecessor's, or the next one if they differ."""
    before: Mapping[str, Any] = state.get("rules", {})
    number = int(before.get("number", 0))
    return number + (not number or before.get("digest") != _digest(rules))


def last_reload_in(state: Mapping[str, Any]) -> tuple[float, Report] | None:
    reload = state.get("rules", {}).get("last_reload")
    if reload is None:
        return None
    if not reload["ok"]:  # it no longer matters: this process has read the rules itself
        return time.time(), Report(ok=True, changes="the rules were read by an upgrade")
    return reload["time"], Report(ok=True, changes=reload["changes"])


def _digest(rules: Rules) -> str:
    texts = json.dumps(attrs.asdict(rules.files), sort_keys=True)
    return hashlib.sha256(texts.encode()).hexdigest()


_INITS = {"catatonit", "docker-init", "dumb-init", "podman-init", "tini", "tini-static"}
"""Init programs that end with the process that they have started."""


def holds_container() -> bool:
    # The namespace ends with its first process (pid_namespaces(7)), which may be a small init.
    return os.getpid() == 1 or (os.getppid() == 1 and _name_of_first() in _INITS)


@cache
def _name_of_first() -> str:
    try:
        return Path("/proc/1/comm").read_text().strip()
    except OSError:
        return ""
