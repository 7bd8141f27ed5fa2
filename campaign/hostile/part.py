"""Attacks by clients, one after another, on txmux and beside it on others that can do the job."""

from __future__ import annotations

import contextlib
import math
import os
import re
import resource
import socket
import statistics
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import attrs

from benchmarks.children import BenchmarkError, process
from campaign.budget import Budget
from campaign.hostile import admin, plain, secure
from campaign.hostile.attack import Attack, Target, under
from campaign.hostile.good import PATIENCE, GoodClient, Served
from campaign.hostile.requests import CHECKS, wrong
from campaign.hostile.server import serve
from campaign.hostile.victims import OTHERS, OURS, Peer, Victim, running
from campaign.report import Report
from tests.interop.namespaces import Namespace

ATTACKS = (*plain.ATTACKS, *secure.ATTACKS, *admin.ATTACKS)

_LONG = 300.0
"""Seconds from which on a campaign is not a mere try of the machinery."""
_ROUNDS = 3
"""So many fit into what is given, if it is some minutes; then nothing is longer than it has to be."""
_MEASURED = 4.0  # seconds, where there is time for it
_MEASUREMENTS = 1.75
"""How many times as long is measured in all: in the attack, half of that before it, and an eighth before both and afterwards."""
_STARTING = 1.6  # seconds to start and end a proxy
_OTHERWISE = (
    90.0  # seconds for requests, for attacks that are made twice, and for who is not served
)
_SHORTEST = 0.1
_PATIENCE, _PATIENCE_WITH_OTHERS = 60.0, 3.0  # seconds
_MIB = 2**20
_STAYS = 24 * _MIB
"""Memory that may be left of an attack. What Python and the C library keep for the next one may be more, but does not grow with that."""
_HEAD = (
    "| attack | proxy | in peace, ms | in the attack, ms | CPU | memory | afterwards | descriptors | done | rounds |",
    "|---|---|---|---|---|---|---|---|---|---|",
)
_FAILURES = (AssertionError, BenchmarkError, OSError)
"""What ends a measurement, and not the campaign."""


@attrs.frozen
class Size:
    """How large everything is.

    Attributes:
        many: Connections of a crowd.
        part: Of the rates.
        seconds: For each measurement.
        ramp: What part of the time each attack is given to grow.
        is_fresh: Whether each attack has a proxy of its own, so that what it costs is told apart.
        peers: Who is attacked.
        patience: Seconds that the good client waits: where nothing is measured but whether it is served, a busy machine may be slow.
    """

    many: int
    part: float
    seconds: float
    ramp: float
    is_fresh: bool
    peers: tuple[Peer, ...]
    patience: float = PATIENCE

    @classmethod
    def of(cls, budget: Budget) -> Size:
        """Choose what fits."""
        if budget.seconds < _LONG:
            return cls(100, 0.05, 0.15, 0.05, False, (OURS,), _PATIENCE)  # noqa: FBT003 - named above
        peers = (OURS, *(peer for peer in OTHERS if peer.path() is not None))
        wanted = [one.ramp for peer in peers for one in ATTACKS if one.service in peer.services]
        starting = _ROUNDS * len(wanted) * _STARTING + _OTHERWISE
        whole = _ROUNDS * (sum(wanted) + len(wanted) * _MEASURED * _MEASUREMENTS)
        pace = min(1.0, max(_SHORTEST, (budget.seconds - starting) / whole))
        return cls(5000, 1.0, _MEASURED * pace, pace, True, peers)  # noqa: FBT003


@attrs.frozen
class Outcome:
    """What one attack did.

    Attributes:
        before: How the good client was served before.
        during: In the attack.
        cpu: Of the proxy, in each second of the attack.
        memory: Bytes that it has more in the attack.
        left: Bytes that it has more afterwards.
        descriptors: That it has more in the attack, and afterwards.
        done: What the attack has counted.
    """

    before: Served
    during: Served
    cpu: float
    memory: int
    left: int
    descriptors: tuple[int, int]
    done: int


def run(budget: Budget) -> Report:
    """Attack as long as the budget lasts; each attack once at least."""
    report, size = Report(), Size.of(budget)
    found: dict[tuple[str, str], list[Outcome]] = {}
    try:
        with _network(), tempfile.TemporaryDirectory(prefix="txmux-hostile-") as made:
            _attack(budget, size, Path(made), report, found)
    except KeyboardInterrupt:
        report.is_interrupted = True
    rows = [
        _row(attack, peer, outcomes)
        for attack, peer in product(ATTACKS, size.peers)
        if (outcomes := found.get((attack.name, peer.name)))
    ]
    report.table = [*_HEAD, *rows]
    return report


def _attack(
    budget: Budget,
    size: Size,
    folder: Path,
    report: Report,
    found: dict[tuple[str, str], list[Outcome]],
) -> None:
    own = folder / "requests"
    own.mkdir()
    with _victim(OURS, own) as victim:
        report.defects += [f"admin, {one}" for one in wrong(victim)]
    report.figures["kinds of requests to the endpoint admin"] = str(len(CHECKS))
    report.figures["measured for each figure"] = f"{size.seconds:.2f} s"
    number = 0
    while number == 0 or not budget.is_spent():
        for peer in size.peers:
            for attack, outcome in _round(peer, size, budget, number, folder, report):
                found.setdefault((attack.name, peer.name), []).append(outcome)
        number += 1


def _round(
    peer: Peer, size: Size, budget: Budget, number: int, folder: Path, report: Report
) -> Iterator[tuple[Attack, Outcome]]:
    """Make each attack once, the first round to its end."""
    with contextlib.ExitStack() as runs:
        victim: Victim | None = None
        for trial, attack in enumerate(ATTACKS):
            if attack.service not in peer.services or (number and budget.is_spent()):
                continue
            where = f"{attack.name}, {peer.name}, seed {budget.seed}, round {number}"
            if size.is_fresh:
                sys.stderr.write(f"{where}, {budget.left():.0f} s left\n")
            try:
                if victim is None or size.is_fresh:
                    runs.close()
                    own = folder / f"{peer.name}-{number}-{trial}"
                    own.mkdir()
                    victim = runs.enter_context(_victim(peer, own))
                target = Target(
                    victim.ports[attack.service],
                    victim.papers,
                    max(1, round(size.many * attack.share)),
                    size.part,
                    budget.chance(number * len(ATTACKS) + trial),
                )
                outcome, broken = _measure(victim, attack, target, size, is_first=not number)
            except _FAILURES as problem:
                victim = None
                report.defects.append(f"{where}: nothing is measured: {problem!r}")
                continue
            yield attack, outcome
            if peer is OURS:
                report.defects += [f"{where}: {one}" for one in broken]


def _measure(
    victim: Victim, attack: Attack, target: Target, size: Size, *, is_first: bool
) -> tuple[Outcome, list[str]]:
    """Attack once, or twice the first time if memory is left of it; give what came of it, and which promises were broken."""
    client = GoodClient(victim, attack.service, size.patience)
    client.served(size.seconds / 8)  # whatever is done the first time only
    before = client.served(size.seconds / 2)
    memory, descriptors = victim.memory(), victim.descriptors()
    with under(attack, target):
        time.sleep(attack.ramp * size.ramp)
        _await_begin(target)
        cpu, began = victim.cpu(), time.monotonic()
        during = client.served(size.seconds)
        cpu = (victim.cpu() - cpu) / (time.monotonic() - began)
        most = victim.memory() - memory, victim.descriptors() - descriptors
    broken = []
    open_ = _calm(victim, descriptors)
    left = victim.memory() - memory
    if left > _STAYS and is_first:
        with under(attack, target):
            time.sleep(attack.ramp * size.ramp + size.seconds)
        open_ = _calm(victim, descriptors)
        if (more := victim.memory() - memory - left) > _STAYS:
            broken.append(
                f"{left / _MIB:.1f} MiB stay in use, and {more / _MIB:.1f} MiB the next time"
            )
    after = client.served(size.seconds / 8)
    if victim.has_ended():
        broken.append("the service has ended")
    if open_ > 0:
        broken.append(f"{open_} descriptors more than before are open")
    for when, served in (("before", before), ("during", during), ("after", after)):
        if served.failed:
            broken.append(f"the good client was not served {when} it: {served.why}")
    if not target.count.value:
        broken.append("the attack has done nothing")
    if re.search("Traceback|Unhandled", victim.said()):
        broken.append(f"the service's log has an exception:\n{victim.said()[-3000:]}")
    outcome = Outcome(before, during, cpu, most[0], left, (most[1], open_), target.count.value)
    return outcome, broken


def _await_begin(target: Target) -> None:
    """Wait until an attack has done something, if it ever does: its process may have had no time yet."""
    end = time.monotonic() + _PATIENCE
    while not target.count.value and time.monotonic() < end:
        time.sleep(0.01)


def _calm(victim: Victim, before: int) -> int:
    """Wait until it has no more open than before, and give how many more it has in the end."""
    patience = _PATIENCE if victim.peer is OURS else _PATIENCE_WITH_OTHERS
    end = time.monotonic() + patience
    while (more := victim.descriptors() - before) > 0 and time.monotonic() < end:
        time.sleep(0.05)
    return more


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Be in a network of our own, with addresses that nobody answers from, and others that are all ours."""
    case = unittest.TestCase()
    try:
        namespace = Namespace(case)
        namespace.ip(f"address add {plain.HERE}/32 dev lo")
        namespace.ip("link add hidden arp off type veth peer name nowhere")
        namespace.ip("link set hidden up")
        namespace.ip("link set nowhere up")
        namespace.ip(f"route add {plain.HIDDEN} dev hidden")
        namespace.ip(f"-6 route add local {plain.NETWORK} dev lo")
        for name, value in (
            ("net/ipv4/ip_local_port_range", "32768 60999"),
            ("net/core/somaxconn", "4096"),
            ("net/ipv4/tcp_max_syn_backlog", "4096"),
            ("net/ipv6/ip_nonlocal_bind", "1"),
        ):
            namespace.set(name.removeprefix("net/"), value)
        namespace.enter()
        yield
    finally:
        case.doCleanups()


@contextlib.contextmanager
def _victim(peer: Peer, folder: Path) -> Iterator[Victim]:
    """Run a proxy on a core of its own, with a server behind it."""
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, soft)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft[1], soft[1]))  # of the proxy, too
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        stack.enter_context(process(partial(serve, listening)))
        victim = stack.enter_context(running(peer, listening.getsockname()[1], folder, cores[-1:]))
        stack.callback(os.sched_setaffinity, 0, cores)
        os.sched_setaffinity(0, cores[:-1] or cores)
        yield victim


def _row(attack: Attack, peer: Peer, outcomes: list[Outcome]) -> str:
    """Write the middle of the rounds."""

    def middle(of: object) -> float:
        return statistics.median(map(of, outcomes))  # type: ignore[call-overload,no-any-return]

    def times(which: str) -> str:
        shown = (
            middle(lambda one, place=place: getattr(one, which).percentiles[place])
            for place in (0, 1)
        )
        return " / ".join("not served" if one == math.inf else f"{one * 1e3:.2f}" for one in shown)

    memory = (middle(lambda one: one.memory) / _MIB, middle(lambda one: one.left) / _MIB)
    descriptors = [middle(lambda one, at=at: one.descriptors[at]) for at in (0, 1)]
    return (
        f"| {attack.name} | {peer.name} | {times('before')} | {times('during')} | {middle(lambda one: one.cpu):.0%} "
        f"| {memory[0]:+.1f} MiB | {memory[1]:+.1f} MiB | {descriptors[0]:+.0f}, {descriptors[1]:+.0f} "
        f"| {middle(lambda one: one.done):,.0f} {attack.unit} | {len(outcomes)} |"
    )
