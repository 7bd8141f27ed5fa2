"""Attacks by clients, one after another, beside a good client that has to be served."""

from __future__ import annotations

import time
from collections.abc import Iterator

from campaign.budget import Budget
from campaign.hostile import admin, plain, secure
from campaign.hostile.attack import Attack, Target, under
from campaign.hostile.service import Victim
from campaign.report import Report
from tests.interop.namespaces import Namespace
from tests.support.folders import make_folder
from tests.support.limits import allow_descriptors
from tests.support.undone import Undone

ATTACKS = (*plain.ATTACKS, *secure.ATTACKS, *admin.ATTACKS)

_LONG = 300.0
"""Seconds from which on a campaign is not a mere try of the machinery."""
_MANY, _FEW = (5000, 1.0, 2.0, 1.0), (100, 0.05, 0.15, 0.05)
"""Connections of a crowd, the part of the rates, seconds of each measurement, and the part of the time in which an attack grows."""
_PATIENCE = 60.0
_MIB = 2**20
_STAYS = 24 * _MIB
"""Memory that may be left of an attack. What Python and the C library keep for the next one may be more, but does not grow with that."""


def run(budget: Budget) -> Report:
    """Attack as long as the budget lasts; each attack once at least."""
    report = Report(
        table=[
            "| attack | in peace, ms | in the attack, ms | memory | left of it | done |",
            "|---|---|---|---|---|---|",
        ]
    )
    size = _MANY if budget.seconds >= _LONG else _FEW
    chosen = [attack for attack in ATTACKS if budget.only in attack.name]
    number = 0
    with Undone() as undone:
        allow_descriptors(undone, 4 * size[0])
        _enter_network(undone)
        while not number or not budget.is_spent():
            with Undone() as once:
                victim = Victim(once, make_folder(once))
                for trial, attack in enumerate(chosen):
                    if number and budget.is_spent():
                        break
                    chance = budget.chance(number * len(chosen) + trial)
                    many = max(1, round(size[0] * attack.share))
                    target = Target(victim.ports[attack.service], many, size[1], chance)
                    where = f"{attack.name}, seed {budget.seed}, round {number}"
                    try:
                        found = [*_attack(victim, attack, target, size[2], size[3], report.table)]
                    except (AssertionError, OSError) as problem:
                        found = [f"nothing is measured: {problem!r}"]
                    report.defects += [f"{where}: {one}" for one in found]
            number += 1
    return report


def _attack(
    victim: Victim, attack: Attack, target: Target, seconds: float, ramp: float, table: list[str]
) -> Iterator[str]:
    """Attack once, or twice if memory is left of it; return which promises were broken."""
    victim.serve(attack.service, 0)  # whatever is done the first time only
    before = victim.serve(attack.service, seconds / 2)
    memory, descriptors = victim.memory(), victim.descriptors()
    with under(attack, target):
        time.sleep(attack.ramp * ramp)
        _await_begin(target)
        during = victim.serve(attack.service, seconds)
        most = victim.memory() - memory
    open_ = _calm(victim, descriptors)
    left = victim.memory() - memory
    if left > _STAYS:
        with under(attack, target):
            time.sleep(attack.ramp * ramp + seconds)
        open_ = _calm(victim, descriptors)
        if (more := victim.memory() - memory - left) > _STAYS:
            yield f"{left / _MIB:.1f} MiB stay in use, and {more / _MIB:.1f} MiB the next time"
    after = victim.serve(attack.service, 0)
    if open_ > 0:
        yield f"{open_} descriptors more than before are open"
    for when, served in (("before", before), ("during", during), ("after", after)):
        if served.failed:
            yield f"the good client was not served {when} it: {served.why}"
    if not target.count.value:
        yield "the attack has done nothing"
    cells = (
        *(attack.name, before, during, f"{most / _MIB:+.1f} MiB", f"{left / _MIB:+.1f} MiB"),
        f"{target.count.value:,} {attack.unit}",
    )
    table.append(f"| {' | '.join(map(str, cells))} |")


def _await_begin(target: Target) -> None:
    """Wait until an attack has done something, if it ever does: its process may have had no time yet."""
    end = time.monotonic() + _PATIENCE
    while not target.count.value and time.monotonic() < end:
        time.sleep(0.01)


def _calm(victim: Victim, before: int) -> int:
    """Wait until it has no more open than before, and return how many more it has in the end."""
    end = time.monotonic() + _PATIENCE
    while (more := victim.descriptors() - before) > 0 and time.monotonic() < end:
        time.sleep(0.05)
    return more


def _enter_network(undone: Undone) -> None:
    """Be in a network of our own, with addresses that are all ours."""
    namespace = Namespace(undone)
    namespace.ip(f"-6 route add local {plain.NETWORK} dev lo")
    for name, value in (
        ("ipv4/ip_local_port_range", "32768 60999"),
        ("core/somaxconn", "4096"),
        ("ipv4/tcp_max_syn_backlog", "4096"),
        ("ipv6/ip_nonlocal_bind", "1"),
    ):
        namespace.set(name, value)
    namespace.enter()
