"""Explanations of decisions in words, made of their JSON documents: for the commands, the page and `txmux top`. Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from txmux.telemetry.formatting import duration, plural

EXPLANATION_COLUMNS = ("", "route", "match", "says")
"""The titles of the columns of an `ExplainedRoute`."""

_INSIDE = {"server": None, "datagrams": None, "gap": False, "late": False, "server_first": False}
"""What is inside a tunnel is a stream that no capture has."""


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

    @property
    def style(self) -> str:
        """Its style in the terms of `rich`."""
        if self.wins:
            return "bold green"
        return {"match": "green", "undecided": "yellow"}.get(self.answer, "dim")


class Explanation(NamedTuple):
    """How a decision came about: the conclusion has labels and texts."""

    title: str
    routes: Sequence[ExplainedRoute]
    conclusion: Sequence[tuple[str, str]]


def explained_connection(one: Mapping[str, Any]) -> Explanation:
    """Explain a live connection, by the document of ``/api/connections/ID``."""
    decision = one["explanation"] or {}
    age = duration(int(one["age_ms"] / 1000))
    title = f"connection {one['id']} from {one['client']} on listener {one['listener']}: {one['state']}, {age}"
    wins = bool(decision.get("by"))
    routes = [row for route in decision.get("routes", ()) for row in _explained(route, wins=wins)]
    return Explanation(title, routes, [*_of_connection(one, decision)])


def explained_layers(
    stream: Mapping[str, Any], trace: Mapping[str, Any], where: str = ""
) -> Iterator[Explanation]:
    """Explain what a listener makes of a client, by their documents in that of ``txmux explain --json``; then what is inside its tunnels."""
    routes = [*_verdicts(trace, "byte" if stream["datagrams"] is None else "datagram")]
    yield Explanation(where + _title(stream, trace), routes, [*_conclusion(stream, trace)])
    if "inside" in trace:
        yield from explained_layers({**stream, **_INSIDE}, trace["inside"], "inside the tunnel, ")


def _verdicts(trace: Mapping[str, Any], unit: str) -> Iterator[ExplainedRoute]:
    decision, more = trace["decision"], (trace["from"], unit, trace["peek_limit"])
    for route in trace["routes"]:
        wins = decision is not None and route["route"] == decision["route"]
        yield from _explained(route, *more, wins=wins)


def taken_by(trace: Mapping[str, Any]) -> str:
    """Write what decides on a client, as of all who go there."""
    end = trace["decision"] or trace["at_deadline"]
    by = f"route {end['route']}" if end["route"] else str(end["by"])
    is_open = trace["decision"] is None and end["by"] in {"route", "default"}
    return f"undecided; at the deadline: {by}" if is_open else by


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
    client: str | None = "the client's address",
    unit: str = "byte",
    peek_limit: int | None = None,
    *,
    wins: bool,
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
        return "it is only for some networks; give the client's address as 'from'"
    return f"'{key}' {'names' if key == 'not_from' else 'does not name'} {client}"


def _title(stream: Mapping[str, Any], trace: Mapping[str, Any]) -> str:
    count, client, sizes = plural(trace["bytes"], "byte"), trace["from"], stream["datagrams"]
    if sizes is not None:
        several = f"{plural(len(sizes), 'datagram')} of {', '.join(map(str, sizes))} bytes"
        count = several if len(sizes) > 1 else f"a datagram of {count}"
    source = f" from {client}" if client else ""
    if stream["server"]:
        source = f" from {stream['client']} to {stream['server']}"
        if client != stream["client"].rpartition(":")[0].strip("[]"):
            source += f", as if from {client}"
    if trace["during"]:
        source += f" on {datetime.fromisoformat(trace['time']).astimezone():%a %Y-%m-%d %H:%M %Z}"
    first = bytes.fromhex(trace["first"])
    shown = repr(first)[2:-1] + ("..." if len(first) < trace["bytes"] else "")
    return f"listener {trace['listener']}: {count}{source}{': ' if shown else ''}{shown}"


def _conclusion(stream: Mapping[str, Any], trace: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    decision, is_stream = trace["decision"], stream["datagrams"] is None
    if decision is None:
        yield from _undecided(trace, is_stream=is_stream)
    elif decision["by"] == "denied":
        yield "decision", f"at once: the listener's 'allow' or 'deny' keeps {trace['from']} out"
        return
    elif decision["at"]:
        limit = ", which is peek_limit" if decision["at"] == trace["peek_limit"] else ""
        unit = "byte" if is_stream else "datagram"
        yield "decision", f"at {unit} {decision['at']}{limit}: {decision['text']}"
    elif decision["by"] == "tls-failed":
        yield "decision", f"before TLS: {decision['text']}"
    else:
        yield "decision", f"at once, before any byte: {decision['text']}"
        return
    for answer in trace["answers"]:
        yield "answer", f"the client gets {answer}, since it waits for that"
    yield from _learnt(trace["facts"])
    if stream["late"]:
        yield (
            "note",
            "the capture lacks the SYN, so these may not be the client's first bytes: begin it before the client connects",
        )
    if stream["gap"]:
        after = f"what the client sent after byte {trace['bytes']}"
        yield "note", f"the capture lacks {after if is_stream else 'the end of a datagram'}"
    if stream["server_first"] and trace["silence"]:
        yield "note", "the server spoke first; a client that waits for that says nothing here:"
        yield "", f"{_after(trace['silence'])}: {trace['silence']['text']}"


def _undecided(trace: Mapping[str, Any], *, is_stream: bool) -> Iterator[tuple[str, str]]:
    """Yield what an undecided client waits for, and the outcome at the deadline."""
    end, units = trace["at_deadline"], "bytes" if is_stream else "datagrams"
    after = _after(end)
    if not is_stream and end["by"] == "silent":
        yield "decision", "with these datagrams: undecided, since they say nothing"
        yield "deadline", f"{after}: forgotten; what the client says next decides"
    elif is_stream and not trace["bytes"]:
        is_before_tls = end["by"] == "tls-failed"
        what = "no TLS yet" if is_before_tls else "no byte"
        yield "decision", f"{what}: undecided, waits for more"
        yield "deadline", f"{after}: {end['text']}"
        if not is_before_tls:
            yield "", "if the client finishes sending before that: close"
    else:
        undecided = (its for its in trace["routes"] if its["says"] == "undecided")
        route = next(its["route"] for its in undecided if not its["dry_run"])
        yield "decision", f"with these {units}: undecided, waits for more, for route {route}"
        finishing = ", or when the client finishes sending" if is_stream else ""
        yield "deadline", f"{after}{finishing}: {end['text']}"


def _after(outcome: Mapping[str, Any]) -> str:
    from txmux.rules.reading.values import duration_text  # noqa: PLC0415 - what asks a service does without the rules

    return f"after {duration_text(outcome['after'])}"


def _learnt(facts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if facts:
        yield "learnt", " ".join(f"{name}={value}" for name, value in facts.items())


def _of_connection(
    row: Mapping[str, Any], decision: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
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
    yield from _learnt({**(row["facts"] or {}), **decision.get("facts", {})})
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
