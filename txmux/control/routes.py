"""The routes with what they have taken. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.control.sections import text_of
from txmux.rules.model import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txmux.rules.model import Outcome, Route, Rules
    from txmux.telemetry.counting.snapshot import Counts, RouteTotals

__all__ = ["routes_told"]


def routes_told(rules: Rules, counts: Counts) -> list[dict[str, Any]]:
    """Report each route, in their order.

    Args:
        rules: Those that hold.
        counts: Of all processes.
    """
    by_route: dict[str, list[RouteTotals]] = {}
    for one in counts.routes:
        by_route.setdefault(one.route, []).append(one)
    return [_route(rules, route, by_route.get(route.name, [])) for route in rules.routes]


def _route(rules: Rules, route: Route, counted: list[RouteTotals]) -> dict[str, Any]:
    return {
        "name": route.name,
        **_sums(counted),
        "under": list(route.under),
        "backend": _name_of(route.outcome),
        "dry_run": route.dry_run,
        "ends_tls": route.terminate_tls is not None,
        "listeners": [{"listener": one.listener, **_sums([one])} for one in counted],
        "file": route.section.path or None,
        "line": route.section.line or None,
        "rule": text_of(rules, route.section),
    }


def _sums(counted: Iterable[RouteTotals]) -> dict[str, Any]:
    totals = [*counted]
    return {
        "matches": sum(one.matches for one in totals),
        "dry_run_matches": sum(one.dry_run_matches for one in totals),
        "active": sum(one.active for one in totals),
        "bytes_in": sum(one.bytes_in for one in totals),
        "bytes_out": sum(one.bytes_out for one in totals),
        "last_match": max((one.last_match for one in totals if one.last_match), default=None),
    }


def _name_of(outcome: Outcome | None) -> str | None:
    if outcome is None:
        return None
    return outcome.value if isinstance(outcome, Refusal) else outcome.name
