"""Real programs, and all tests with such, over networks that lose, delay, reorder, double and eat packets; and pulled cables."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator

from campaign.budget import Budget
from campaign.networks import again, cables, flights, plugged
from campaign.networks.conditions import CONDITIONS
from campaign.networks.transfers import Transfers
from campaign.report import Report

RELAYS = ("kernel", "portable")
_NETWORKS = tuple(name for name in CONDITIONS if name not in {"some loss", "brisk", "late"})
"""Those of the path; the others are for a loopback interface."""
_SIZE = 2**20
_SHARE = 0.5
"""Of the time, what belongs to programs and cables; the tests with real programs have the rest."""


def run(budget: Budget) -> Report:
    """Try all that is here, once at least if there is time, and go on with other seeds."""
    report = Report()
    _pull_cables(report)
    _lose_half_a_hello(report)
    _send_first_flights(budget.chance(-1).randrange(2**32), report)
    transfers = Transfers()
    for trial in itertools.count():
        chance = budget.chance(trial)
        for network in chance.sample(_NETWORKS, len(_NETWORKS)):
            if budget.left() < budget.seconds * (1 - _SHARE):
                break
            relay = RELAYS[trial % 2]
            transfers.run(network, relay=relay, seed=chance.randrange(2**32), size=_SIZE)
        else:
            continue
        break
    report.figures["real programs"] = f"{transfers.programs} runs, {transfers.moved:,} bytes"
    for network, seconds in sorted(transfers.seconds.items()):
        mean = sum(seconds) / len(seconds)
        report.figures[f"  over {network}"] = f"{len(seconds)} times all, {mean:.0f} s each"
    report.defects += transfers.defects
    _run_again(budget, report)
    return report


def _lose_half_a_hello(report: Report) -> None:
    for listener, (route, seconds) in flights.lose_half_a_hello().items():
        report.figures[f"half a hello late, {listener}"] = f"{route} after {seconds:.1f} s"
        if route != flights.LATE[listener]:
            report.defects.append(f"half a hello late, {listener}: {route}")


def _send_first_flights(seed: int, report: Report) -> None:
    total = 0
    for network in _NETWORKS:
        count, defects = flights.decide(network, seed)
        total += count
        report.defects += defects
    report.figures["first flights"] = f"{total} over {len(_NETWORKS)} networks"


def _pull_cables(report: Report) -> None:
    ends: dict[str, list[float]] = {}
    for relay, side, ours in itertools.product(RELAYS, ("client", "server"), (False, True)):
        found, defects = cables.pulled(relay, side, ours=ours)
        report.defects += defects
        for name, seconds in found.items():
            ends.setdefault(name, []).append(seconds)
        report.defects += plugged.plugged_in_again(relay, side, ours=ours)
    for name, times in ends.items():
        report.figures[f"cable pulled, {name}"] = f"{min(times):.1f} to {max(times):.1f} s"


def _run_again(budget: Budget, report: Report) -> None:
    """Run what there is time for: the order is left to chance."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in again.NETWORKS}
    for network, file in _shuffled(budget.chance(-2)):
        if budget.is_spent():
            break
        outcomes = again.run_again([file], network)
        counts[network].update(again.counted(outcomes))
        report.defects += again.defects(outcomes, network)
    for network, count in counts.items():
        told = ", ".join(f"{number} {what}" for what, number in sorted(count.items()))
        report.figures[f"tests again, {network}"] = told or "none"


def _shuffled(chance: random.Random) -> Iterator[tuple[str, str]]:
    files = again.files()
    chance.shuffle(files)
    for file in files:
        for network in again.NETWORKS:
            yield network, file
