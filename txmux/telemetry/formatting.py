"""Formats durations, amounts, rates and explanations for the commands, the page and messages. Pure."""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

from txmux.errors import printable_lines

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_SHORT = 10  # below it, one decimal is shown
_SECOND = 1000  # ms
_LEAST_FOUR_DIGITS = 999.5  # rounded to whole numbers

AND_DOWN = ", and down"  # in the reason of a drained server


EXPLANATION_COLUMNS = ("", "route", "match", "says")
"""The titles of the columns of an `ExplainedRoute`."""


def duration(seconds: float) -> str:
    """Write a length of time by its largest unit, and the next one unless it is zero.

    >>> duration(5400)
    '1 h 30 min'
    """
    seconds = max(seconds, 0)
    if seconds < _SHORT:
        return f"{round(seconds, 1):g} s"
    left = int(seconds)
    parts: list[tuple[int, str]] = []
    for unit, size in _UNITS:
        number, left = divmod(left, size)
        if parts or number or size == 1:
            parts.append((number, unit))
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number or len(parts) == 1)


def utc_time(moment: float) -> str:
    """Write a time, in seconds since 1970.

    >>> utc_time(1796083200)
    '2026-12-01 00:00 UTC'
    """
    return f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d %H:%M} UTC"


def compact_duration(seconds: float) -> str:
    return duration(int(seconds)).replace("min", "m").replace(" ", "")


def _rounded(value: float, digits: int = 3) -> str:
    """Write a number with so many digits, never as 1e+03; less than a thousandth is 0."""
    return f"{float(f'{value:.{digits}g}'):.3f}".rstrip("0").rstrip(".")


def si_number(value: float) -> str:
    for unit in ("", " k", " M"):
        if abs(value) < _LEAST_FOUR_DIGITS:
            return f"{_rounded(value)}{unit}"
        value /= 1000
    return f"{_rounded(value)} G"


def byte_rate(per_second: float) -> str:
    """Write bytes per second.

    >>> byte_rate(8010)
    '8.01 kB/s'
    """
    return f"{byte_count(per_second)}/s"


def byte_count(number: float) -> str:
    """Write a number of bytes.

    >>> byte_count(1536)
    '1.54 kB'
    """
    text = si_number(number)
    return f"{text}{'' if ' ' in text else ' '}B"


def count(number: float) -> str:
    """Write a number with its thousands apart.

    >>> count(1234567)
    '1 234 567'
    """
    return f"{number:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def rate(per_second: float) -> str:
    return f"{_rounded(per_second, 2)}/s" if per_second < _SHORT else f"{si_number(per_second)}/s"


def milliseconds(value: float) -> str:
    is_short = 0 < value < _LEAST_FOUR_DIGITS
    return f"{_rounded(value)} ms" if is_short else duration(value / _SECOND)


def aligned(rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> Iterator[str]:
    """Yield the lines of a table, with these columns aligned at the right."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for cells in rows:
        padded = (
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        yield "  ".join(padded).rstrip()


class ExplainedRoute(NamedTuple):
    """The verdict of a route, or of one line of its match, on a client; `answer` is the verdict in a word."""

    wins: bool
    name: str
    match: str
    verdict: str
    answer: str

    @property
    def cells(self) -> tuple[str, str, str, str]:
        return (">" if self.wins else "", self.name, self.match, self.verdict)


class DecisionExplanation(NamedTuple):
    """How the decision on a live connection came about."""

    title: str
    routes: Sequence[ExplainedRoute]
    conclusion: Sequence[tuple[str, str]]


def explanation_of(one: Mapping[str, Any]) -> DecisionExplanation:
    """Write an explanation of a connection, as ``/api/connections/ID`` reports it."""
    decision = one["explanation"] or {}
    age = duration(int(one["age_ms"] / 1000))
    title = f"connection {one['id']} from {one['client']} on listener {one['listener']}: {one['state']}, {age}"
    wins = bool(decision.get("by"))
    routes = [row for route in decision.get("routes", ()) for row in _explained(route, wins=wins)]
    return DecisionExplanation(title, routes, [*_conclusion(one, decision)])


def explained_trace(
    trace: Mapping[str, Any], unit: str = "byte", peek_limit: int = 0
) -> list[ExplainedRoute]:
    """Write the verdicts of the routes of a listener, by its part of ``txmux explain --json``.

    `peek_limit` is where the listener stops to collect bytes, if that is to be shown.
    """
    decision, client = trace["decision"], trace["from"]
    rows: list[ExplainedRoute] = []
    for route in trace["routes"]:
        wins = decision is not None and route["route"] == decision["route"]
        rows += _explained(route, wins=wins, client=client, unit=unit, peek_limit=peek_limit)
    return rows


def folded_routes(
    routes: Sequence[ExplainedRoute], answers: Collection[str]
) -> tuple[list[ExplainedRoute], dict[str, list[ExplainedRoute]]]:
    """Return the rows to show, and by their answer those of routes with these answers, unless they win."""
    shown: list[ExplainedRoute] = []
    folded: dict[str, list[ExplainedRoute]] = {}
    rows = shown
    for route in routes:
        if route.name:  # else it is a line of the route before
            is_shown = route.wins or route.answer not in answers
            rows = shown if is_shown else folded.setdefault(route.answer, [])
        rows.append(route)
    return shown, folded


def _explained(
    route: Mapping[str, Any],
    *,
    wins: bool,
    client: str | None = "the client's address",
    unit: str = "byte",
    peek_limit: int = 0,
) -> Iterator[ExplainedRoute]:
    """Yield a route, followed by its lines if there are several and they were evaluated."""

    def verdict(answer: Mapping[str, Any]) -> str:
        said = str(answer["says"] or "")
        if answer["at"] is not None:
            raised = f": its matcher raised {answer['error']}" if answer["error"] else ""
            return f"{said} at {unit} {answer['at']}{raised}"
        needs = answer["needs_up_to"]
        if needs is None:
            return said
        units = str(needs) if unit == "byte" else plural(needs, unit)
        limit = ", which is peek_limit" if needs == peek_limit else ""
        return f"{said}, needs up to {units}{limit}"

    lines, excluded_by = route["lines"], route["excluded_by"]
    inside = f", in the TLS of {route['inside']}" if route.get("inside") else ""
    match = lines[0]["match"] if len(lines) == 1 else plural(len(lines), "line")
    if excluded_by:
        said = f"not asked: {_exclusion(excluded_by, client)}"
    else:
        said = verdict(route) + ("; dry_run, so it decides nothing" if route["dry_run"] else "")
    wins = wins and route["says"] == "match" and not route["dry_run"]
    yield ExplainedRoute(wins, route["route"] + inside, match, said, route["says"])
    for line in lines if len(lines) > 1 and not excluded_by else ():
        answer = line["says"] or ""
        yield ExplainedRoute(
            wins=False, name="", match=line["match"], verdict=verdict(line), answer=answer
        )


def _exclusion(key: str, client: str | None) -> str:
    if key == "during":
        return "'during' does not name the time when it came"
    if key == "client_cert":
        return "'client_cert' does not fit the certificate"
    if client is None:
        return "it is only for some networks; give the client's address by --from"
    return f"'{key}' {'names' if key == 'not_from' else 'does not name'} {client}"


def _conclusion(row: Mapping[str, Any], decision: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not decision:
        yield "decision", "not known"
    elif decision["by"] is None and row["state"] == "introduction":
        yield "decision", "none yet: waits for a PROXY protocol header"
    elif decision["by"] is None:
        yield "decision", f"with {plural(decision['bytes'], 'byte')}: undecided, waits for more"
    else:
        by = f"route {decision['route']}" if decision["by"] == "route" else decision["by"]
        yield "decision", f"{by}, {_at_most(decision['bytes'])}"
    if row["server"] or row["backend"]:
        backend = f"backend {row['backend']}" if row["backend"] else ""
        is_named = row["server"] and row["backend"] and row["server"] != row["backend"]
        yield "led to", f"{backend} ({row['server']})" if is_named else row["server"] or backend
    facts = {**(row["facts"] or {}), **decision.get("facts", {})}
    if facts:
        yield "learnt", " ".join(f"{name}={value}" for name, value in facts.items())
    if decision and decision["by"] is not None and decision["bytes"] is None:
        yield (
            "note",
            "another process decided, before an upgrade; the verdicts of the routes are not stored",
        )
    elif decision and decision["by"] is not None:
        yield (
            "note",
            "its bytes are not stored, so it is not known at which byte each route was sure",
        )


def _at_most(number: int | None) -> str:
    if number is None:
        return "in another process"
    return f"after at most {plural(number, 'byte')}" if number else "before any byte"


def printable_json(data: object, encode: Callable[[object], str] = json.dumps) -> str:
    """Write JSON for others to show: texts in it are escaped as by `printable_lines`, since many programs show them as they are.

    Args:
        data: What `json` can write.
        encode: Writes it, all but ASCII escaped.
    """
    text = encode(data)
    return encode(_printable_values(data)) if _MAY_HIDE.search(text) else text


_MAY_HIDE = re.compile(r"\\[bfru]|\x7f")
"""How `json` writes what `printable_lines` escapes, and other characters than those of ASCII."""


def _printable_values(data: object) -> object:
    if isinstance(data, str):
        return printable_lines(data)
    if isinstance(data, Mapping):
        return {_printable_values(name): _printable_values(value) for name, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [*map(_printable_values, data)]
    return data
