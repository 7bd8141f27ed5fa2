"""How a service is shown to people: lengths of time, amounts, rates and explanations, for the commands, the page and messages. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_SHORT = 10  # below it, one digit behind the point says more


EXPLAINED = ("", "route", "match", "says")
"""The titles of the columns of an `ExplainedRoute`."""


def duration(seconds: float) -> str:
    """Write a length of time by its largest unit, and the next one if that says more.

    >>> duration(5400)
    '1 h 30 min'
    """
    seconds = max(seconds, 0)
    if seconds < _SHORT and seconds % 1:
        return f"{seconds:.1f} s"
    left = int(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in _UNITS:
        number, left = divmod(left, size)
        if parts or number or size == 1:
            parts.append((number, unit))
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number or len(parts) == 1)


def brief(seconds: float) -> str:
    """Write whole seconds as `duration` does, in few columns: ``1h2m``."""
    return duration(int(seconds)).replace("min", "m").replace(" ", "")


def short(value: float) -> str:
    """Write a number by three digits or so."""
    for unit in ("", " k", " M"):
        if abs(value) < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} G"


def size(number: float) -> str:
    """Write a number of bytes in the unit that leaves one to four digits.

    >>> size(1536)
    '1.5 KiB'
    """
    unit = 0
    while number >= 1000 and unit < len(_SIZES) - 1:
        number /= 1024
        unit += 1
    return f"{number:.{int(unit > 0 and number < _SHORT)}f} {_SIZES[unit]}"


def count(number: float, digits: int = 0) -> str:
    """Write a number with its thousands apart.

    >>> count(1234567)
    '1 234 567'
    """
    return f"{number:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def rate(per_second: float) -> str:
    """Write how often something happens in a second.

    >>> rate(0.25)
    '0.2/s'
    """
    return f"{count(per_second, int(0 < per_second < _SHORT))}/s"


def aligned(rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> Iterator[str]:
    """Yield the lines of a table.

    Args:
        rows: All with as many cells.
        numbers: The columns that are aligned at the right.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for cells in rows:
        padded = (
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        yield "  ".join(padded).rstrip()


# A service of another version may report less, or more: what is missing is left out.


def connection_counts(status: Mapping[str, Any]) -> str:
    """Write how many connections there are, by ``/api/status``."""
    counts = status.get("connections", {})
    words = {"active": "{} active", "undecided": "{} undecided", "total": "{} so far"}
    parts = [text.format(counts[name]) for name, text in words.items() if name in counts]
    if counts.get("limit"):
        parts.append(f"at most {counts['limit']}")
    return ", ".join(parts)


def rates(status: Mapping[str, Any]) -> str:
    """Write how fast numbers grow, by ``/api/status``."""
    found = status.get("rates") or {}
    return ", ".join(f"{name.replace('_', ' ')} {short(value)}/s" for name, value in found.items())


class ExplainedRoute(NamedTuple):
    """What a route, or one line of its match, said of a client.

    Attributes:
        wins: Whether it took the client.
        name: The route's; empty for one line.
        match: What it looks for.
        says: Its answer, in words.
        answer: The same, in a word.
    """

    wins: bool
    name: str
    match: str
    says: str
    answer: str

    @property
    def cells(self) -> tuple[str, str, str, str]:
        return (">" if self.wins else "", self.name, self.match, self.says)


class DecisionExplanation(NamedTuple):
    """How the decision on a live connection came about.

    Attributes:
        title: Which connection.
        routes: What each route said.
        conclusion: What came of it, each line with its label.
    """

    title: str
    routes: Sequence[ExplainedRoute]
    conclusion: Sequence[tuple[str, str]]


def explanation_of(one: Mapping[str, Any]) -> DecisionExplanation:
    """Write an explanation.

    Args:
        one: A connection, as ``/api/connections/ID`` reports it.
    """
    decision = one["explanation"] or {}
    age = duration(int(one["age_ms"] / 1000))
    title = f"connection {one['id']} from {one['client']} on listener {one['listener']}: {one['state']}, {age}"
    routes = explained_routes(decision.get("routes", ()), is_decided=bool(decision.get("by")))
    return DecisionExplanation(title, routes, [*_conclusion(one, decision)])


def explained_routes(
    routes: Sequence[Mapping[str, Any]],
    unit: str = "byte",
    *,
    is_decided: bool = True,
    winner: str = "",
) -> list[ExplainedRoute]:
    """Write what routes said, each followed by its lines if it has several.

    Args:
        routes: As the API and ``txmux explain --json`` report them.
        unit: What their answers count: ``byte`` or ``datagram``.
        is_decided: Whether a route that matches has won.
        winner: The only one that can have; empty if each can, as one inside of the TLS of another.
    """
    rows = []
    for route in routes:
        lines = route["lines"]
        inside = f", in the TLS of {route['inside']}" if route.get("inside") else ""
        match = lines[0]["match"] if len(lines) == 1 else f"{len(lines)} lines"
        wins = is_decided and route["says"] == "match" and not route["dry_run"]
        wins = wins and winner in {"", route["route"]}
        dry = "; dry_run, so it decides nothing" if route["dry_run"] else ""
        says = _says(route, unit) + dry
        rows.append(ExplainedRoute(wins, route["route"] + inside, match, says, route["says"]))
        for line in lines if len(lines) > 1 else ():
            says = _says(line, unit) if line["says"] else ""
            rows.append(
                ExplainedRoute(
                    wins=False, name="", match=line["match"], says=says, answer=line["says"] or ""
                )
            )
    return rows


def _says(answer: Mapping[str, Any], unit: str) -> str:
    excluded_by = answer.get("excluded_by")
    if excluded_by == "during":
        return "not asked: 'during' does not name the time when it came"
    if excluded_by:
        verb = "names" if excluded_by == "not_from" else "does not name"
        return f"not asked: '{excluded_by}' {verb} the client's address"
    said = str(answer["says"])
    if answer["at"] is not None:
        raised = f": its matcher raised {answer['error']}" if answer["error"] else ""
        return f"{said} at {unit} {answer['at']}{raised}"
    if answer["needs_up_to"] is not None:
        units = "" if unit == "byte" else f" {unit}s"
        return f"{said}, needs up to {answer['needs_up_to']}{units}"
    return said


def _conclusion(one: Mapping[str, Any], decision: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not decision:
        yield "decision", "not known"
    elif decision["by"] is None and one["state"] == "introduction":
        yield "decision", "none yet: waits for a PROXY protocol header"
    elif decision["by"] is None:
        yield "decision", f"with {_bytes(decision['bytes'])}: undecided, waits for more"
    else:
        by = f"route {decision['route']}" if decision["by"] == "route" else decision["by"]
        yield "decision", f"{by}, {_at_most(decision['bytes'])}"
    if one["server"] or one["backend"]:
        backend = f"backend {one['backend']}" if one["backend"] else ""
        is_named = one["server"] and one["backend"] and one["server"] != one["backend"]
        yield "led to", f"{backend} ({one['server']})" if is_named else one["server"] or backend
    facts = {**(one["facts"] or {}), **decision.get("facts", {})}
    if facts:
        yield "learnt", " ".join(f"{name}={value}" for name, value in facts.items())
    if decision and decision["by"] is not None and decision["bytes"] is None:
        yield "note", "another process decided, before an upgrade; what the routes said is not kept"
    elif decision and decision["by"] is not None:
        yield "note", "its bytes are not kept, so it is not known at which byte each route was sure"


def _bytes(number: int | None) -> str:
    return f"{number} byte{'' if number == 1 else 's'}"


def _at_most(number: int | None) -> str:
    if number is None:
        return "in another process"
    return f"after at most {_bytes(number)}" if number else "before any byte"
