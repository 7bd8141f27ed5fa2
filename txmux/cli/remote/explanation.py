"""How the decision on a live connection is written for people. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from txmux.cli.remote.amounts import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from txmux.cli._output import Row

HEAD = ("", "route", "match", "says")
"""The titles of the columns of `Explanation.routes`."""

_STYLES = {"match": "bold green", "undecided": "yellow"}


class Explanation(NamedTuple):
    """What is told of a decision.

    Attributes:
        title: Whose it is.
        routes: What each route said.
        conclusion: What came of it, each line with its label.
    """

    title: str
    routes: Sequence[Row]
    conclusion: Sequence[tuple[str, str]]


def explanation_of(one: Mapping[str, Any]) -> Explanation:
    """Write an explanation.

    Args:
        one: A connection, as the API tells of it by its ID.
    """
    told = one["explanation"] or {}
    age = duration(one["age_ms"] / 1000)
    title = f"connection {one['id']} from {one['client']} on listener {one['listener']}: {one['state']}, {age}"
    rows = [row for route in told.get("routes", ()) for row in _rows(route, told)]
    return Explanation(title, rows, [*_conclusion(one, told)])


def _rows(route: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Row]:
    lines = route["lines"]
    inside = f", in the TLS of {route['inside']}" if route.get("inside") else ""
    match = lines[0]["match"] if len(lines) == 1 else f"{len(lines)} lines"
    wins = route["says"] == "match" and not route["dry_run"] and told["by"] is not None
    dry = "; dry_run, so it decides nothing" if route["dry_run"] else ""
    style = _STYLES.get(route["says"], "dim")
    yield (">" if wins else "", route["route"] + inside, match, _says(route) + dry), style
    if len(lines) > 1:
        for line in lines:
            says = _says(line) if line["says"] else ""
            yield ("", "", line["match"], says), _STYLES.get(line["says"], "dim")


def _says(answer: Mapping[str, Any]) -> str:
    if answer.get("excluded_by") == "during":
        return "not asked: 'during' does not name the time when it came"
    if answer.get("excluded_by"):
        verb = "names" if answer["excluded_by"] == "not_from" else "does not name"
        return f"not asked: '{answer['excluded_by']}' {verb} the client's address"
    said = str(answer["says"])
    if answer["at"] is not None:
        raised = f": its matcher raised {answer['error']}" if answer["error"] else ""
        return f"{said} at byte {answer['at']}{raised}"
    if answer["needs_up_to"] is not None:
        return f"{said}, needs up to {answer['needs_up_to']}"
    return said


def _conclusion(one: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not told:
        yield "decision", "not known"
    elif told["by"] is None and one["state"] == "introduction":
        yield "decision", "none yet: waits for a PROXY protocol header"
    elif told["by"] is None:
        yield "decision", f"{_after(told['bytes'])}: undecided, waits for more"
    else:
        by = f"route {told['route']}" if told["by"] == "route" else told["by"]
        yield "decision", f"{by}, {_at_most(told['bytes'])}"
    if one["server"] or one["backend"]:
        backend = f"backend {one['backend']}" if one["backend"] else ""
        is_named = one["server"] and one["backend"] and one["server"] != one["backend"]
        yield "led to", f"{backend} ({one['server']})" if is_named else one["server"] or backend
    facts = {**(one["facts"] or {}), **told.get("facts", {})}
    if facts:
        yield "learnt", " ".join(f"{name}={value}" for name, value in facts.items())
    if told and told["by"] is not None and told["bytes"] is None:
        yield "note", "another process decided, before an upgrade; what the routes said is not kept"
    elif told and told["by"] is not None:
        yield "note", "its bytes are not kept, so it is not known at which byte each route was sure"


def _after(count: int | None) -> str:
    return f"with {count} byte{'' if count == 1 else 's'}"


def _at_most(count: int | None) -> str:
    if count is None:
        return "in another process"
    return (
        "before any byte" if not count else f"after at most {count} byte{'' if count == 1 else 's'}"
    )
