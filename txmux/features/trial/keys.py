"""The keys ``remember`` and ``watch_rules_limit``."""

from collections.abc import Mapping

from txmux.rules.model import Rules

REMEMBER, LIMIT = "remember", "watch_rules_limit"
MOST = 10_000
"""Clients of a listener that a worker may remember."""


def remembered_clients(rules: Rules) -> Mapping[str, int]:
    """Return how many clients each worker remembers, by the names of the listeners of which it does."""
    usual = rules.settings.more.get(REMEMBER, 0)
    counts = {one.name: one.more.get(REMEMBER, usual) for one in rules.listeners}
    return {name: count for name, count in counts.items() if count}
