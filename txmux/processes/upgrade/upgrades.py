"""Both roles in an upgrade: successor of an old process, and predecessor of a new one.

Theory of operation. The old supervisor starts the new one and owns everything until that has adopted its workers: the commit. Before,
the new process has duplicates of the sockets; after, it has the workers, too, and the old one ends. So at any moment one of them can
continue without the other:

- The new one dies before the commit: the old one continues as if there had been no upgrade, but for connections that the new workers
  have taken by then; these stay in them until they end.
- The old one dies before the commit: the new one, once it is ready, serves with the state that it has.
- The old one hangs between the two, so that the new one is not asked what has moved: it is killed, which is as above.
- The new one dies after the commit: nothing of the old service serves again; whatever runs the service starts it anew.

An old worker has a channel to each of the two supervisors, of which the newest one that is there counts. It moves its connections as a
worker does that retires, and ends after those that stay, `drain_timeout` later at most, or longer for clients that wait for a server.

A process of a version that adopts no workers gets connections alone; then the old process lives until its workers have ended.
"""

import enum
import hashlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmux.access.across_processes import SharedLimits
from txmux.classes import define
from txmux.control.conditions import Conditions
from txmux.control.control import STOPPING, Control
from txmux.control.report import Report
from txmux.errors import ListenError, MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import ChannelError
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import Message
from txmux.net.sockets.descriptors import DESCRIPTORS
from txmux.processes import oom
from txmux.processes.memory import free_memory, megabytes, own_memory
from txmux.processes.supervisor.moving import WorkerHandover
from txmux.processes.supervisor.notify import sockets_from_systemd
from txmux.processes.supervisor.pidfile import PidFileError
from txmux.processes.supervisor.pool import WorkerPool
from txmux.processes.supervisor.resources import Resources
from txmux.processes.supervisor.supervisor import Supervisor
from txmux.processes.upgrade.predecessor import Predecessor
from txmux.processes.upgrade.upgrade import Successor, Upgrade, UpgradeError
from txmux.processes.upgrade.worker_transfers import WorkerTransfers, close, settled
from txmux.processes.worker.received_rules import sockets_of
from txmux.rules.model import Files, Listener, Rules
from txmux.rules.reading.files import LARGEST_RULES
from txmux.rules.reading.units import texts_of_units
from txmux.serving.listen_addresses import listen_addresses
from txmux.serving.state import TransferState
from txmux.telemetry.formatting import plural

_log = Logger()

_LONGEST = 70.0
"""Seconds for which reloads and upgrades wait for connections; longer than the old process takes at most."""
_LEAVES = 10.0
"""Seconds after which the workers of the old process are asked to end, even if it has not ended."""
_RENEWS = 300.0
"""Seconds that it may take to renew a certificate."""
_RELOADS = 180.0
"""Seconds that the new process may take to reload, when all connections have come."""


class _UpgradeProgress(enum.IntEnum):
    """How far this process is as successor; without a predecessor, it serves once it is ready."""

    STARTING = enum.auto()
    READY = enum.auto()  # it has said so, and serves when it is asked
    FAILED = enum.auto()  # it could not, so the predecessor keeps serving
    TAKING_OVER = enum.auto()
    SERVING = enum.auto()
    SETTLED = enum.auto()  # it has told the predecessor what has moved


@define(eq=False, slots=False)
class Upgrades:
    """Coordinates both roles for `MuxService`.

    Args:
        on_failed: Called if this process cannot write the PID file.

    Attributes:
        are_arriving: Whether its connections are being handed over.
        state: The state of the predecessor so far; see `txmux.serving.state`.
        renewing: Requests to renew a certificate that were passed on to the successor.
    """

    _reactor: Any
    _resources: Resources
    _on_failed: Callable[[MuxError], object]
    _reload: Callable[[], Awaitable[Report]]
    _renew: Callable[[str], Awaitable[Report]]
    _stop: Callable[[], object]

    are_arriving = _predecessor_ended = _is_stopping = _is_asked_to_settle = False
    _progress = _UpgradeProgress.STARTING

    def __attrs_post_init__(self) -> None:
        self._changes = Conditions()
        self.renewing: set[Deferred[Report]] = set()
        self._successor: Successor | None = None
        self._predecessor: Predecessor | None = None
        self._upgrade: Upgrade | None = None
        self._limits: SharedLimits | None = None
        self._handovers: Sequence[WorkerHandover] = ()
        self._files = Files()
        self.state: TransferState = {}

    # As successor.

    @property
    def is_waiting(self) -> bool:
        return self._predecessor is not None and self._progress < _UpgradeProgress.SERVING

    def find_predecessor(self) -> None:
        """Adopt the sockets of the predecessor, if there is one, or those that systemd passes."""
        # The service may have run and stopped before.
        self._is_stopping, self._progress = False, _UpgradeProgress.STARTING
        predecessor = self._predecessor = Predecessor.find()
        if predecessor is not None:
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
        self._files = rules.files
        if not self.is_waiting:
            self._resources.sockets.shut_unneeded(rules.listeners)
        self._resources.open(rules, listening=not self.is_waiting)
        if not self.is_waiting:
            self._resources.sockets.close_unused()

    def cannot_serve(self, why: object) -> None:
        if self._predecessor is not None and self._progress is _UpgradeProgress.STARTING:
            self._predecessor.fail(why)

    @contextmanager
    def telling_why(self) -> Iterator[None]:
        """Report an error to the predecessor, too: an operator who asks for an upgrade does not see this standard error stream."""
        try:
            yield
        except Exception as problem:
            self.cannot_serve(problem)
            raise

    def can_serve(self, supervisor: Supervisor) -> None:
        """Report readiness to the predecessor, or serve from now on if there is none. Further calls do nothing."""
        if self._progress > _UpgradeProgress.STARTING:
            return
        self._progress = _UpgradeProgress.READY
        predecessor, resources = self._predecessor, self._resources
        self._limits = supervisor.limits
        if predecessor is None:
            try:
                resources.write_pidfile()
            except PidFileError as problem:
                self._on_failed(problem)
            else:
                self._serves(supervisor.pool.lives)
            return

        transfers = WorkerTransfers(supervisor)

        def all_here() -> None:
            transfers.await_flows(on=False)
            self.expect_no_more()

        async def accept(**values: Any) -> list[str]:
            self._progress = _UpgradeProgress.TAKING_OVER
            try:
                return await self._serve(predecessor, supervisor, transfers, **values)
            except BaseException:
                self._progress = _UpgradeProgress.FAILED
                self._changes.check()
                raise

        predecessor.attach(
            self._reactor,
            {
                messages.SERVE: accept,
                messages.SETTLE: partial(self._settle, predecessor, transfers, all_here),
                messages.END: self._stop,
                messages.ADOPT_CONNECTIONS: partial(_pass_ends, supervisor.pool),
                messages.COUNT_ON: resources.counters.adopt,
                messages.HANDED_OVER: all_here,
                messages.RELOAD: partial(_reported, self._reload),
                messages.RENEW: partial(_reported, self._renew),
            },
            lambda: self._on_predecessor_ended(accept, transfers, all_here),
            processes=transfers.processes,
            limits=supervisor.limits.handed_over(),
        )

    async def _serve(
        self,
        predecessor: Predecessor,
        supervisor: Supervisor,
        transfers: WorkerTransfers,
        state: TransferState | None = None,
        workers: Sequence[Mapping[str, Any]] = (),
        descriptors: Sequence[int] = (),
    ) -> list[str]:
        resources, files = self._resources, descriptors[len(workers) :]
        ends = sockets_of(descriptors[: len(workers)])
        if self._is_stopping:  # the other process continues
            close(ends)
            close_all(files)
            raise UpgradeError("it is shutting down")
        resources.counters.adopt_files(files)
        adopted = transfers.adopt(workers, ends, self._reactor)
        resources.counters.settle_dead([row["counts"] for row in workers])
        # An error here leaves the other process serving; if that has ended, this one has to serve anyway.
        resources.write_pidfile(must=not self._predecessor_ended)
        supervisor.restore(state or {})
        transfers.await_flows(on=True)
        if state:
            self.expect_connections()
        left_out = [*resources.sockets.unused, *resources.endpoints.unused()]
        removed = resources.sockets.ended_by_removal(left_out)
        predecessor.lend(resources.counters)
        self._handovers = await transfers.retire(adopted, left_out, removed)
        supervisor.servers_elsewhere.share()
        try:
            resources.sockets.listen()
            await transfers.accept()
        except (ChannelError, ListenError) as problem:
            if not self._predecessor_ended:
                raise
            _log.warn("some clients are not accepted yet: {why}", why=problem)
        if not predecessor.gives_connections:
            supervisor.close_removed()
        # One that keeps its workers removes the files of UNIX sockets itself, after it has accepted who waits there.
        keep_files = predecessor.gives_connections and not self._predecessor_ended
        for store in (resources.sockets, resources.endpoints.store):
            store.close_unused(keep_files=keep_files)
        self._serves(supervisor.pool.lives)
        resources.privilege.commit(self._files)
        predecessor.kill_if_it_hangs(self._reactor, lambda: self._is_asked_to_settle)
        return left_out

    async def _settle(
        self, predecessor: Predecessor, transfers: WorkerTransfers, all_here: Callable[[], object]
    ) -> dict[str, Any]:
        self._is_asked_to_settle = True
        try:
            is_over = self._changes.until(lambda: self._is_stopping or not self.are_arriving)
            moved = await settled(self._handovers, is_over, self._reactor)
            await transfers.check_adopted(self._reactor)
            all_here()
            # Before the old process ends: systemd would take that for the end of the service.
            await self._resources.notifier.until_sent()
        finally:
            self._reactor.callLater(0, self._has_settled)  # after the answer
        transfers.keep_adopted()
        # By its end, unless it hangs; until it has passed on what is renewed, it does not end.
        self._reactor.callLater(_LEAVES, transfers.stop_adopted, self._reactor)
        self._reactor.callLater(_LEAVES + _RENEWS, predecessor.kill)
        return attrs.asdict(moved)

    def _has_settled(self) -> None:
        self._progress = _UpgradeProgress.SETTLED
        self._changes.check()

    def has_taken_over(self) -> Deferred[None]:
        """Wait until this process serves, or does not, if it is about to: it has its name already, and stops for both."""
        return self._changes.until(lambda: self._progress is not _UpgradeProgress.TAKING_OVER)

    def is_final(self) -> Deferred[None]:
        """Wait until no upgrade is under way, nor the new process has to tell the old one what has moved, which would serve again otherwise."""

        def is_settling() -> bool:
            predecessor = self._predecessor
            if self.is_upgrading:
                return True
            if predecessor is None or predecessor.gives_connections or self._predecessor_ended:
                return False
            return _UpgradeProgress.TAKING_OVER <= self._progress < _UpgradeProgress.SETTLED

        return self._changes.until(lambda: not is_settling())

    def _serves(self, is_healthy: Callable[[], bool]) -> None:
        oom.go_last()
        self._resources.store()
        self._resources.serve(is_healthy, is_new_main=self._predecessor is not None)
        self._progress = _UpgradeProgress.SERVING
        self._changes.check()

    def _on_predecessor_ended(
        self,
        accept: Callable[[], Coroutine[Any, Any, object]],
        transfers: WorkerTransfers,
        all_here: Callable[[], object],
    ) -> None:
        self._predecessor_ended = True
        if self._progress is _UpgradeProgress.READY and not self._is_stopping:
            _log.warn("the old process has ended; this one serves from now on")
            failed = partial(_log.failure, "this process cannot take its place")
            Deferred.fromCoroutine(accept()).addErrback(failed)
        self._changes.check()
        self._resources.counters.others_ended()
        transfers.keep_adopted()
        transfers.stop_adopted(self._reactor)
        all_here()

    # As predecessor.

    @property
    def has_successor(self) -> bool:
        return self._successor is not None

    @property
    def is_upgrading(self) -> bool:
        return self._upgrade is not None

    @property
    def is_under_way(self) -> bool:
        return self.is_upgrading or self.is_waiting or self.has_successor

    def serves(self) -> Deferred[None]:
        return self._changes.until(
            lambda: self._progress >= _UpgradeProgress.SERVING or self._is_stopping
        )

    def settled(self) -> Deferred[None]:
        """Wait until it is decided which process serves."""
        return self._changes.until(
            lambda: self._upgrade is None and (self._predecessor_ended or not self.is_waiting)
        )

    def connections_arrived(self) -> Deferred[None]:
        return self._changes.until(lambda: not self.are_arriving)

    def expect_connections(self) -> None:
        self.are_arriving = True
        self._reactor.callLater(_LONGEST, self.expect_no_more)  # the old process may hang

    def expect_no_more(self) -> None:
        self.are_arriving = False
        self._changes.check()

    def pass_signal_on(self, number: int) -> bool:
        return self._successor is not None and self._successor.send_signal(number)

    async def reload_successor(self) -> Report:
        return await self._pass_on("reload", messages.RELOAD, seconds=_RELOADS)

    def renew_in_successor(self, name: str) -> Awaitable[Report] | None:
        """Renew a certificate in the successor, if there is one; this process does not end before it has answered."""
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
        return Report(**answer)

    def refusals(self, listeners: Iterable[Listener], transfers: WorkerTransfers) -> Iterator[str]:
        """Yield why no upgrade is possible now."""
        if self._is_stopping:
            yield STOPPING
        if self.is_upgrading:
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
        self._upgrade = upgrade = Upgrade(transfers, self._resources, self._reactor)
        try:
            memory = None if self._limits is None else self._limits.descriptor
            await upgrade.start(state, memory)
            await upgrade.successor.stop()
        finally:
            self._upgrade = None
            self._changes.check()

    async def upgrade(
        self,
        listeners: Iterable[Listener],
        transfers: WorkerTransfers,
        state: Callable[..., Awaitable[TransferState]],
    ) -> Upgrade:
        """Start this program again, and hand over to it; after an error, this process keeps serving."""
        for why in self.refusals(listeners, transfers):
            raise UpgradeError(why)
        resources = self._resources
        self._upgrade = upgrade = Upgrade(transfers, resources, self._reactor)
        try:
            memory = None if self._limits is None else self._limits.descriptor
            await upgrade.run(state, resources.counters, memory)
            self._successor = upgrade.successor
        finally:
            self._upgrade = None
            if self._successor is None and self._limits is not None:
                # Its workers may go on with connections, and count these where it has placed them.
                self._limits.follow(upgrade.successor.limits)
            self._changes.check()
        upgrade.steps.run("leave systemd to the new process", resources.notifier.stop)
        await upgrade.steps.wait("announce the end of this process", self.report_exit)
        return upgrade

    # The end.

    async def report_exit(self) -> None:
        if self._predecessor is not None and not self.is_waiting:
            await self._predecessor.report_exit()

    def stop_upgrading(self) -> bool:
        """End a successor that does not serve yet, and have one that does stop; return whether another process serves."""
        self._is_stopping = True
        self._changes.check()
        shared = self.is_waiting or self.has_successor
        if self._upgrade is not None:
            shared = shared or self._upgrade.is_committed
            self._upgrade.give_up()
        if not shared:
            self._resources.notifier.stopping()
        return shared

    def hurry(self) -> None:
        if self._upgrade is not None:
            self._upgrade.hurry()


def _pass_ends(pool: WorkerPool, descriptors: Sequence[int], offered: int = 0) -> None:
    ends = sockets_of(descriptors)
    pool.pass_ends(ends, offered)
    close(ends)  # each was duplicated


async def _reported(work: Callable[..., Awaitable[Report]], **values: Any) -> dict[str, Any]:
    return attrs.asdict(await work(**values))


def _not_transferable(listeners: Iterable[Listener]) -> Iterator[str]:
    for listener in listeners:
        for address in listen_addresses(listener):
            if not address.is_socket:
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
    units, left_out = texts_of_units(control.rules)
    if left_out and not again:
        _log.warn(
            "lists of networks are not handed over, as those of units have over {most} MiB in all: {lists}; "
            "if the new process cannot read one, what names it is not served; make them smaller",
            most=LARGEST_RULES >> 20,
            lists=", ".join(left_out),
        )
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
        "attention": await control.attention_state(),
        "files": resources.files(),
        "passed": [*resources.sockets.passed],
        "units": units,
        "included": control.rules.files.included,
        "authors": control.rules.files.authors,
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
    texts = json.dumps(rules.files.as_json(), sort_keys=True)
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
