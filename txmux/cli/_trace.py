"""How an explanation is written for people."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from txmux.interfaces import Verdict
from txmux.rules.model import Backend
from txmux.rules.tracing import SAYS, Leads, leads_of, silence_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.cli._output import Output, Row
    from txmux.detection.explain import Answer, RouteAnswer
    from txmux.rules.model import Listener, Route, Silence
    from txmux.rules.tracing import Sample, Trace

_STYLES = {Verdict.MATCH: "green", Verdict.NO: "dim", Verdict.NEED_MORE: "yellow"}
_SHOWN_BYTES = 48


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


def _title(sample: Sample, trace: Trace) -> str:
    count = _count(len(sample.data), "byte")
    if sample.datagrams is not None and len(sample.datagrams) > 1:
        sizes = ", ".join(str(len(one)) for one in sample.datagrams)
        count = f"{len(sample.datagrams)} datagrams of {sizes} bytes"
    elif sample.datagrams is not None:
        count = f"a datagram of {count}"
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
    wins = wins and leads_of(sample, trace).by != "denied"
    style = "bold green" if wins else _STYLES[answer.verdict]
    limit = trace.listener.peek_limit if sample.datagrams is None else 0
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
    """Write an answer about bytes; with the limit 0, about datagrams."""
    if answer.at is None:
        limit = ", which is peek_limit" if answer.needs == peek_limit else ""
        needs = answer.needs if peek_limit else _count(answer.needs, "datagram")
        return f"undecided, needs up to {needs}{limit}"
    raised = f": its matcher raised {answer.error}" if answer.error else ""
    return f"{SAYS[answer.verdict]} at {'byte' if peek_limit else 'datagram'} {answer.at}{raised}"


def _waiting(sample: Sample, trace: Trace, leads: Leads) -> Iterator[tuple[str, str]]:
    """Yield what an undecided client waits for, and what comes of it at the deadline."""
    waits_for = next(
        its.route.name
        for its in trace.found.routes
        if its.answer and its.answer.at is None and not its.route.dry_run
    )
    is_flow = sample.datagrams is not None
    these = "datagrams" if is_flow else "bytes"
    yield "decision", f"with these {these}: undecided, waits for more, for route {waits_for}"
    end = "" if is_flow else ", or when the client finishes sending"
    yield "deadline", f"after {trace.listener.detect_timeout:g}s{end}: {leads}"


def _silent(
    sample: Sample, listener: Listener, silence: Silence, then: str, leads: Leads
) -> Iterator[tuple[str, str]]:
    """Yield what comes of a client that has said nothing yet."""
    if sample.datagrams is not None:
        yield "decision", "with these datagrams: undecided, since they say nothing"
        yield "deadline", f"{then}forgotten; what the client says next decides"
        return
    yield "decision", "no byte: undecided, waits for more"
    yield "deadline", f"{then}{leads}"
    yield "", "if the client finishes sending before that: close"
    if listener.race and isinstance(silence.outcome, Backend):
        yield "race", "its server is connected at once; what that says is held back until then"


def _lacking(sample: Sample) -> str:
    if sample.datagrams is not None:
        return "the end of a datagram"
    return f"what the client sent after byte {len(sample.data)}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _conclusion(sample: Sample, trace: Trace) -> Iterator[tuple[str, str]]:
    """Yield what comes of it, each line with its label."""
    listener, found = trace.listener, trace.found
    leads = leads_of(sample, trace)
    if leads.by == "denied":
        yield "decision", f"at once: the listener's 'allow' or 'deny' keeps {sample.client} out"
        return
    silence = silence_of(sample, trace)
    if silence is None:
        yield "decision", f"at once, before any byte: {leads}"
        return
    silent_for = f"{silence.after or listener.detect_timeout:g}s"
    if leads.by == "silent":
        yield from _silent(sample, listener, silence, f"after {silent_for}: ", leads)
    elif found.decided_at is not None:
        is_limit = sample.datagrams is None and found.decided_at == listener.peek_limit
        limit = ", which is peek_limit" if is_limit else ""
        unit = "byte" if sample.datagrams is None else "datagram"
        yield "decision", f"at {unit} {found.decided_at}{limit}: {leads}"
    else:
        yield from _waiting(sample, trace, leads)
    for exchange in found.decision.answered:
        yield "answer", f"the client is told {exchange.answer!r}, since it waits for that"
    facts = found.decision.facts
    if facts:
        yield "learnt", " ".join(f"{name}={value}" for name, value in facts.items())
    if sample.stream and sample.stream.gap:
        yield "note", f"the capture lacks {_lacking(sample)}"
    if sample.stream and sample.stream.server_first:
        silent = Leads("silent", None, silence.outcome)
        yield (
            "note",
            "the server spoke first; a client that waits for that says nothing here:",
        )
        yield "", f"after {silent_for}: {silent}"
