"""Tries changed rules on the last clients: ``remember``, `txmux reload --try` and ``watch_rules_limit``."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from txmux.rules.feature import Feature
from txmux.rules.model import Rules
from txmux.rules.optional import imported_late, named
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading.values import SectionKey, ValueKind, number

REMEMBER, LIMIT = "remember", "watch_rules_limit"
MOST_REMEMBERED = 10_000  # clients of a listener, in a worker

_BYTES = 4400  # that a client takes at most: two times its first bytes, and the rest
_MUCH = 256 << 20  # bytes
_PERCENT = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,2})?|100)%")


def remembered_clients(rules: Rules) -> Mapping[str, int]:
    """Return how many clients each worker remembers, by the names of the listeners of which it does."""
    usual = rules.settings.more.get(REMEMBER, 0)
    counts = {one.name: one.more.get(REMEMBER, usual) for one in rules.listeners}
    return {name: count for name, count in counts.items() if count}


def _percent(text: str) -> float:
    match = _PERCENT.fullmatch(text)
    if match is None:
        raise InvalidValueError(f"{text!r} is not a share from 0% to 100%; write for example 10%")
    return float(match[1])


def _lint(rules: Rules) -> Iterator[Problem]:
    settings, counts = rules.settings, remembered_clients(rules)
    if LIMIT in settings.more and not settings.watch_rules:
        yield settings.section.problem(
            "works only with 'watch_rules'; add that, or remove it", LIMIT
        )
    if LIMIT in settings.more and not counts:
        message = f"refuses nothing, since no client is remembered; add '{REMEMBER} = 1000'"
        yield settings.section.problem(message, LIMIT)
    size = sum(counts.values()) * settings.workers * _BYTES
    if size > _MUCH:
        message = (
            f"the clients of all listeners may take {size >> 20} MiB in all workers; remember fewer"
        )
        owners: list[Any] = [settings, *rules.listeners]
        owner = next(one for one in owners if REMEMBER in one.more)
        yield owner.section.problem(message, REMEMBER)


_COUNT = number(0, MOST_REMEMBERED)
_MODULES = ("txmux.features.trial.memory",)

# fmt: off
FEATURE = Feature(
    "trial",
    keys={
        "txmux": {
            REMEMBER: SectionKey(_COUNT, default="0", usual=0, example="1000", loads=lambda _: _MODULES, meaning=
                "each worker [remembers](#trying-rules) this many of the last clients of each listener, to try other rules"),
            LIMIT: SectionKey(ValueKind(_percent, "`0%` to `100%`"), example="10%", meaning=
                "`watch_rules` refuses rules by which a larger share of the [remembered clients](#trying-rules) would go elsewhere"),
        },
        "listen": {
            REMEMBER: SectionKey(_COUNT, example="1000", loads=lambda _: _MODULES, meaning=
                "each worker [remembers](#trying-rules) this many of its last clients"),
        },
    },
    finds={"lint": (_lint,)},
    needed=lambda rules: bool(remembered_clients(rules)),
    part=lambda its: named("txmux.features.trial.trial:Trial")(its.workers),
    serving_part=imported_late("txmux.features.trial.memory:ClientMemory"),
    rows=lambda: named("txmux.features.trial.rows:ROWS"),
    resources=lambda: named("txmux.features.trial.resources:RESOURCES"),
)
# fmt: on
