"""How an explanation is written: for people, and as JSON."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import attrs

from txmux.interfaces import Verdict
from txmux.rules.model import Backend, InProcess, Refusal, Silence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Address, IPv6Address

    from txmux.cli._output import Output, Row
    from txmux.cli.pcap import Stream
    from txmux.detection.explain import Answer, Explanation, RouteAnswer
    from txmux.rules.model import Listener, Outcome, Route

_SAYS = {Verdict.MATCH: "match", Verdict.NO: "no", Verdict.NEED_MORE: "undecided"}
_STYLES = {Verdict.MATCH: "green", Verdict.NO: "dim", Verdict.NEED_MORE: "yellow"}
_SHOWN_BYTES = 48


@attrs.frozen
class Sample:
    """What a client said first.

    Attributes:
        data: The bytes; maybe none.
        client: Its address, as far as it is known.
        stream: Where it is from, if that is a capture.
        now: When it is said, in seconds since 1970.
    """

    data: bytes
    client: IPv4Address | IPv6Address | None
    stream: Stream | None = None
    now: float = 0.0


@attrs.frozen
class Trace:
    """What one listener makes of a sample."""

    listener: Listener
    found: Explanation[Route]


def write(output: Output, sample: Sample, trace: Trace) -> None:
    """Write what a listener makes of a sample, for people."""
    output.line(_title(sample, trace), "bold")
    rows = [row for answer in trace.found.routes for row in _rows(answer, sample, trace)]
    output.line()
    if rows:
        output.table(rows, ("", "route", "match", "says"))
    else:
        output.line("there is no route")
    output.line()
    output.table([((label, text), "") for label, text in _conclusion(sample, trace)])


def as_json(rules: str, traces: Iterable[tuple[Sample, Iterable[Trace]]]) -> dict[str, Any]:
    """Give the document that ``--json`` writes; the reference of the commands has its keys."""
    return {
        "rules": rules,
        "streams": [
            {
                "client": _text(sample.stream.client if sample.stream else sample.client),
                "server": _text(sample.stream and sample.stream.server),
                "bytes": len(sample.data),
                "gap": bool(sample.stream and sample.stream.gap),
                "server_first": bool(sample.stream and sample.stream.server_first),
                "listeners": [_trace_json(sample, trace) for trace in of_sample],
            }
            for sample, of_sample in traces
        ],
    }


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _title(sample: Sample, trace: Trace) -> str:
    count = f"{len(sample.data)} byte{'' if len(sample.data) == 1 else 's'}"
    shown = repr(sample.data[:_SHOWN_BYTES])[2:-1]
    more = "..." if len(sample.data) > _SHOWN_BYTES else ""
    who = f" from {sample.client}" if sample.client else ""
    if sample.stream:
        who = f" from {sample.stream.client} to {sample.stream.server}"
        if sample.client != sample.stream.client.host:
            who += f", as if from {sample.client}"
    if any(answer.route.during for answer in trace.found.routes):
        who += f" on {datetime.fromtimestamp(sample.now).astimezone():%a %Y-%m-%d %H:%M %Z}"
    return f"listener {trace.listener.name}: {count}{who}{': ' if shown else ''}{shown}{more}"


def _rows(found: RouteAnswer[Route], sample: Sample, trace: Trace) -> Iterator[Row]:
    route, answer = found.route, found.answer
    lines = route.alternatives
    match = lines[0].text if len(lines) == 1 else f"{len(lines)} lines"
    if answer is None:
        yield ("", route.name, match, f"not asked: {_why_not_asked(found, sample)}"), "dim"
        return
    wins = trace.found.decided_at is not None and trace.found.decision.route is route
    style = "bold green" if wins else _STYLES[answer.verdict]
    limit = trace.listener.peek_limit
    dry = "; dry_run, so it decides nothing" if route.dry_run else ""
    yield (">" if wins else "", route.name, match, _says(answer, limit) + dry), style
    if len(lines) > 1:
        for line, its in zip(lines, found.lines, strict=True):
            yield ("", "", line.text, _says(its, limit)), _STYLES[its.verdict]


def _why_not_asked(found: RouteAnswer[Route], sample: Sample) -> str:
    if found.excluded_by == "during":
        return "'during' does not name this time"
    if sample.client is None:
        return "it is only for some networks; tell the client's address by --from"
    verb = "names" if found.excluded_by == "not_from" else "does not name"
    return f"'{found.excluded_by}' {verb} {sample.client}"


def _says(answer: Answer, peek_limit: int) -> str:
    if answer.at is None:
        limit = ", which is peek_limit" if answer.needs == peek_limit else ""
        return f"undecided, needs up to {answer.needs}{limit}"
    raised = f": its matcher raised {answer.error}" if answer.error else ""
    return f"{_SAYS[answer.verdict]} at byte {answer.at}{raised}"


def _conclusion(sample: Sample, trace: Trace) -> Iterator[tuple[str, str]]:
    """Give what comes of it, each line with its label."""
    listener, found = trace.listener, trace.found
    leads = _leads(sample, trace)
    if leads.by == "denied":
        yield "decision", f"at once: the listener's 'allow' or 'deny' keeps {sample.client} out"
        return
    timeout = f"{listener.detect_timeout:g}s"
    silence = _silence(sample, trace)
    if silence is None:
        yield "decision", f"at once, before any byte: {leads}"
        return
    silent_for = f"{silence.after or listener.detect_timeout:g}s"
    if leads.by == "silent":
        yield "decision", "no byte: undecided, waits for more"
        yield "deadline", f"after {silent_for}: {leads}"
        yield "", "if the client finishes sending before that: close"
        if listener.race and isinstance(silence.outcome, Backend):
            yield "race", "its server is connected at once; what that says is held back until then"
    elif found.decided_at is not None:
        limit = ", which is peek_limit" if found.decided_at == listener.peek_limit else ""
        yield "decision", f"at byte {found.decided_at}{limit}: {leads}"
    else:
        waits_for = next(
            its.route.name
            for its in found.routes
            if its.answer and its.answer.at is None and not its.route.dry_run
        )
        yield "decision", f"with these bytes: undecided, waits for more, for route {waits_for}"
        yield "deadline", f"after {timeout}, or when the client finishes sending: {leads}"
    for exchange in found.decision.answered:
        yield "answer", f"the client is told {exchange.answer!r}, since it waits for that"
    facts = found.decision.facts
    if facts:
        yield "learnt", " ".join(f"{name}={value}" for name, value in facts.items())
    if sample.stream and sample.stream.gap:
        yield "note", f"the capture lacks what the client sent after byte {len(sample.data)}"
    if sample.stream and sample.stream.server_first:
        silent = _Leads("silent", None, silence.outcome)
        yield (
            "note",
            "the server spoke first; a client that waits for that says nothing here:",
        )
        yield "", f"after {silent_for}: {silent}"


@attrs.frozen
class _Leads:
    """Where a client is led, and by what; the outcome is ``None`` where the route ends TLS."""

    by: Literal["route", "default", "silent", "denied"]
    route: str | None
    outcome: Outcome | None

    def __str__(self) -> str:
        by = f"route {self.route}" if self.route else self.by
        if self.outcome is None:
            return f"{by}, which ends TLS; the routes under it decide on what is inside"
        if isinstance(self.outcome, Refusal):
            return f"{by}, {self.outcome.value}"
        servers = ", ".join(self.servers)
        if servers == self.outcome.name:
            return f"{by}, to {servers}"
        return f"{by}, to backend {self.outcome.name} ({servers})"

    @property
    def servers(self) -> list[str]:
        return [s.text for s in self.outcome.servers] if isinstance(self.outcome, Backend) else []

    def as_json(self, at: int | None) -> dict[str, Any]:
        to = self.outcome.value if isinstance(self.outcome, Refusal) else None
        if isinstance(self.outcome, (Backend, InProcess)):
            to = self.outcome.name
        return {"at": at, "by": self.by, "route": self.route, "to": to, "servers": self.servers}


def _leads(sample: Sample, trace: Trace) -> _Leads:
    listener, client = trace.listener, sample.client
    if client is not None and not listener.clients.serves(client):
        return _Leads("denied", None, Refusal.CLOSE)
    silence = _silence(sample, trace)
    if silence is None:
        return _Leads("default", None, listener.default)
    if not sample.data:
        return _Leads("silent", None, silence.outcome)
    route = trace.found.decision.route
    if route is None:
        return _Leads("default", None, listener.default)
    return _Leads("route", route.name, None if route.terminate_tls else route.outcome)


def _silence(sample: Sample, trace: Trace) -> Silence | None:
    """Tell what silence of the client's comes to; ``None`` if it is led to ``default`` before it can say anything."""
    listener = trace.listener
    asked = [its.route for its in trace.found.routes if its.excluded_by is None]
    fits = [line for line in listener.silent if line.clients.serves(sample.client)]
    unwritten: Outcome = Refusal.CLOSE
    if all(route.dry_run for route in asked):
        unwritten = listener.default
    silence = fits[0] if fits else Silence(unwritten)
    is_same = silence.outcome == listener.default and not isinstance(listener.default, Refusal)
    at_once = listener.first == "server" or (is_same and not asked)
    return None if at_once else silence


def _trace_json(sample: Sample, trace: Trace) -> dict[str, Any]:
    leads = _leads(sample, trace)
    at_once = leads.by == "denied" or _silence(sample, trace) is None
    at = 0 if at_once else trace.found.decided_at
    return {
        "listener": trace.listener.name,
        "from": _text(sample.client),
        "time": datetime.fromtimestamp(sample.now).astimezone().isoformat(timespec="seconds"),
        "routes": [_route_json(answer) for answer in trace.found.routes],
        "decision": None if at is None else leads.as_json(at),
        "at_deadline": leads.as_json(None) if at is None else None,
        "facts": trace.found.decision.facts,
    }


def _route_json(found: RouteAnswer[Route]) -> dict[str, Any]:
    answered = itertools.zip_longest(found.route.alternatives, found.lines)
    return {
        "route": found.route.name,
        **_answer_json(found.answer),
        "excluded_by": found.excluded_by,
        "dry_run": found.route.dry_run,
        "lines": [{"match": line.text, **_answer_json(answer)} for line, answer in answered],
    }


def _answer_json(answer: Answer | None) -> dict[str, Any]:
    if answer is None:
        return {"says": "not asked", "at": None, "needs_up_to": None, "error": None}
    return {
        "says": _SAYS[answer.verdict],
        "at": answer.at,
        "needs_up_to": answer.needs if answer.at is None else None,
        "error": answer.error or None,
    }
