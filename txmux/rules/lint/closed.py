"""Listeners that lead no client anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.rules.lint.scopes import scopes
from txmux.rules.model import Listener, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.rules.model import Outcome, Rules
    from txmux.rules.problems import Problem


def closed_listeners(rules: Rules) -> Iterator[Problem]:
    """Find listeners of which every client is turned away, whatever it says."""
    outcomes: dict[str, list[Outcome | None]] = {}
    for scope in scopes(rules):
        found: list[Outcome | None] = [route.outcome for route in rules.routes_of(scope.owner)]
        if isinstance(scope.owner, Listener):
            found += [scope.owner.default, *(line.outcome for line in scope.owner.silent)]
        for listener in scope.listeners:
            outcomes.setdefault(listener.name, []).extend(found)
    for listener in rules.listeners:
        if all(one is None or isinstance(one, Refusal) for one in outcomes[listener.name]):
            message = (
                "every client is turned away: neither a route nor 'default' or 'silent' leads to a server; "
                "add a route, or a server there"
            )
            yield listener.section.problem(message)
