"""Every byte of connections and datagrams over networks that lose, delay, reorder and cut packets; and pulled cables."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import partial

import attrs

from campaign.budget import Budget
from campaign.bytes.part import Rounds
from campaign.bytes.rounds import RELOAD, UPGRADE, WORKERS, Round, choose
from campaign.networks import cables
from campaign.networks.conditions import CONDITIONS
from campaign.report import Report
from tests.interop.namespaces import Namespace
from tests.support.undone import Undone

_SECONDS = 60.0
"""Seconds that one network lasts at most."""


def run(budget: Budget) -> Report:
    """Pull each cable, and then have rounds of byte truth over one network after another, one at least."""
    report = Report()
    _pull_cables(budget, report)
    trial = 0
    while not report.is_interrupted and not (trial and budget.is_spent()):
        network = [*CONDITIONS][(budget.seed + trial) % len(CONDITIONS)]
        own = Budget(min(_SECONDS, budget.left()), budget.chance(trial).randrange(2**32))
        found = over(network, own)
        report.defects += [f"seed {budget.seed}, {network}: {one}" for one in found.defects]
        for name in ("connections", "bytes looked at", "datagrams"):
            report.figures[f"{name}, {network}, {trial + 1}"] = found.figures[name]
        report.is_interrupted = found.is_interrupted
        trial += 1
    return report


def over(network: str, budget: Budget, step: Callable[[Rounds], None] = Rounds.try_next) -> Report:
    """Have rounds in a namespace whose loopback interface is a bad network."""
    with Undone() as undone:
        namespace = Namespace(undone)
        CONDITIONS[network].spoil(namespace)
        namespace.enter()
        rounds = Rounds(budget, _whole, seconds=budget.seconds / 3, every=2)
        return rounds.go(partial(step, rounds))


def _whole(number: int, by: random.Random) -> Round:
    """Choose a round whose connections nobody breaks off: what breaks one off may overtake what it came with.

    None waits for a name, since the few questions for it may all be lost.
    """
    its = choose(number, by)
    mix = attrs.evolve(
        its.mix,
        entries=[one for one in its.mix.entries if not one.endswith(("v1", "v2", "named"))],
        ways=[one for one in its.mix.ways if one not in "RN"],
        breaks=0.0,
        most=2**20,
    )
    changes = tuple(one for one in its.changes if one in {RELOAD, UPGRADE, WORKERS})
    return attrs.evolve(its, mix=mix, changes=changes)


def _pull_cables(budget: Budget, report: Report) -> None:
    ends: dict[str, list[float]] = {}
    every = itertools.product(("kernel", "portable"), ("client", "server"), (False, True))
    for relay, side, ours in budget.chance(-1).sample([*every], 8):
        found, defects = cables.pulled(relay, side, ours=ours)
        report.defects += defects
        for name, seconds in found.items():
            ends.setdefault(name, []).append(seconds)
        if budget.is_spent():
            break
    for name, times in ends.items():
        report.figures[f"cable pulled, {name}"] = f"{min(times):.1f} to {max(times):.1f} s"
