"""Finds what needs an operator's attention in what the processes of a service report.

What the items say is in `txmux.telemetry.attention_rows`.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter

import attrs

from txmux.control.clients import flooding, who_first
from txmux.control.gauges import Gauges
from txmux.control.overrides import ServiceState, WorkersCondition
from txmux.control.report import Report
from txmux.control.rules_index import RulesIndex
from txmux.net.sockets.queues import Overflow
from txmux.rules.changes import STAYS, untaken
from txmux.rules.installed import is_asleep
from txmux.rules.lint.destinations import unprovided
from txmux.rules.model import Backend, Rules
from txmux.rules.problems import Problem
from txmux.serving.listen_addresses import listen_addresses
from txmux.telemetry import attention_rows as rows
from txmux.telemetry.attention import (
    CANNOT_START,
    MEMORY_RAN_OUT,
    OF_FEW,
    AttentionItem,
    AttentionRow,
)
from txmux.telemetry.documents import BackendDocument, ServerDocument
from txmux.telemetry.formatting import duration, plural
from txmux.telemetry.sources import SourceState

_MOST_NAMED = 5
_FULL = 0.8  # of the descriptors
_OF_ALL = ""  # instead of a source
_RECENTLY = 300.0
"""Seconds in which restarts are counted: on a slow machine, each takes up to a minute."""
_MANY_RESTARTS = 3
_REMEMBERED = 600.0
"""Seconds for which the end of a worker needs attention."""
NONE_SERVES, NONE_ANSWERS = rows.NO_WORKER_SERVES.text, rows.NO_WORKER_ANSWERS.text
_LOST = re.compile(r", ([0-9]+) connections? lost$")
_SECTION = re.compile(r"\[(\w+) ([^\]]+)\]:? ")

_UNABLE = frozenset({"down", "ejected", "probing", "unresolved", "failing", "silent"})
"""States of servers that cannot serve; one that an operator or the rules took out is no trouble."""


STATES = {"ready": "ready", "drain": "drained", "maintenance": "in maintenance"}
"""How states are written that an operator has set."""

_UNDO = "; to undo it: txmux drain {} --ready"
_ADVICE = {
    "silent": "; 'eject = unanswered=0' for servers that never answer by design",
    "drain": _UNDO,
    "maintenance": _UNDO,
    "disabled": "; to use it: remove 'down' from the rules, then txmux reload",
}


def backends(
    documents: Sequence[BackendDocument], index: RulesIndex, now: float
) -> Iterator[AttentionItem]:
    """Find backends of which no server can serve, or some cannot; those without a document serve.

    It is critical where clients are turned away: no route leads to an unused backend, its fallback may serve, and held clients wait.
    It is a note where only planned work leaves no server. `now` is in seconds since 1970.
    """
    up = {row["name"] for row in documents for server in row["servers"] if server["state"] == "up"}
    idle = {row["name"] for row in documents} - up
    used, every = index.used_backends.keys(), index.backends

    def is_covered(name: str) -> bool:
        fallback = every[name].fallback
        return isinstance(fallback, Backend) and fallback.name not in idle

    for backend in documents:
        name, servers = str(backend["name"]), backend["servers"]
        if name not in every:
            continue  # a reload has removed it since the document was made
        unable = [server for server in servers if server["state"] in _UNABLE]
        if not unable and (name not in idle or name not in used):
            continue  # those that are out were taken out on purpose, and others serve
        if not unable and not backend["held"] and is_asleep(every[name]):
            continue
        if name not in idle:
            verb = "is" if len(unable) == 1 else "are"
            of = plural(len(servers), "server")
            text = f"{len(unable)} of {of} {verb} down: {_names(unable)}"
        else:
            more = "; its clients go to its fallback" if is_covered(name) else ""
            text = f"no server is up: {_names(servers)}{more}"
        newest = max(unable or servers, key=lambda server: server["since"] or 0.0)
        is_new = now - (newest["since"] or 0.0) < every[name].hold
        is_held = backend["hold"] is not None or is_new
        turns_away = name in used and name in idle and not (is_covered(name) or is_held)
        # What an operator or the rules took out on purpose is planned work.
        row = rows.NO_SERVER if turns_away else rows.FEWER_SERVERS
        why, advice = newest["why"] or "", _ADVICE.get(newest["state"], "").format(name)
        yield (row if unable else rows.SERVERS_TAKEN_OUT).item(
            newest["since"], backend=name, text=text, why=why, advice=advice
        )


def _names(servers: Sequence[ServerDocument]) -> str:
    first = (
        str(server["server"])
        if server["state"] == "down"
        else f"{server['server']} is {STATES.get(server['state'], server['state'])}"
        for server in servers[:_MOST_NAMED]
    )
    return _and_more(first, len(servers))


def _and_more(first: Iterable[str], count: int) -> str:
    more = count - _MOST_NAMED
    return ", ".join(first) + (f", and {more} more" if more > 0 else "")


def _section(line: str) -> tuple[str, str]:
    header = _SECTION.match(line)
    return ("", line) if header is None else (header[1], header[2])


def doubted_servers(doubts: Mapping[tuple[str, str], str]) -> Iterator[AttentionItem]:
    for (backend, server), why in doubts.items():
        yield rows.SERVER_DOUBTED.item(backend=backend, server=server, why=why)


_PAUSED = "paused by an operator"


def closed_listeners(missing: Iterable[str], shut: Iterable[str]) -> dict[str, str]:
    """Return why listeners do not accept, by name, from lines of ``/readyz``; `shut` are those that an operator paused."""
    lines = [(_section(line), line.partition("]: ")[2]) for line in missing]
    closed = {name: why for (kind, name), why in lines if kind == "listen"}
    return {**closed, **dict.fromkeys(shut, _PAUSED)}


def not_accepted(
    missing: Iterable[str], shut: Iterable[str], short: Mapping[str, tuple[str, float]]
) -> Iterator[AttentionItem]:
    """Find listeners that do not accept; `short` are those for which some worker lacks something, and since when."""
    closed = closed_listeners(missing, shut)
    for name in dict.fromkeys([*closed, *short]):
        if closed.get(name) == _PAUSED:
            yield rows.PAUSED.item(name=name, why=_PAUSED)
        elif name in short or closed[name].endswith(OF_FEW):
            why, since = short.get(name, ("", None))
            few = OF_FEW if closed.get(name, "").endswith(OF_FEW) else ""
            row = rows.CANNOT_ACCEPT if name in closed else rows.SOME_CANNOT_ACCEPT
            yield (rows.TAKEN_BY_FEW if few else row).item(since, name=name, why=why + few)
        else:
            why, _, do = closed[name].partition("; ")
            yield rows.NOT_OPEN.item(name=name, why=why, do=do or rows.SEE_LOG)


def overflowed(
    rules: Rules, lost: Mapping[str, Overflow], newest: Mapping[str, float]
) -> Iterator[AttentionItem]:
    """Find listeners whose queue has had no room for clients; `lost` is by the key of the address, `newest` that of `Gauges`."""
    who, do = who_first(dict(newest), rows.MORE_QUEUE)
    rate = f"; {newest[_OF_ALL]:,.0f} new connections a second{who}" if _OF_ALL in newest else ""
    for listener in rules.listeners if lost else ():
        by_line: dict[str, list[Overflow]] = {}
        for address in listen_addresses(listener):
            if (overflow := lost.get(address.key)) is not None:
                by_line.setdefault(address.line, []).append(overflow)
        for line, some in by_line.items():
            yield rows.QUEUE_OVERFLOWED.item(
                min(overflow.since for overflow in some),
                name=listener.name,
                line=line,
                attempts=plural(sum(overflow.count for overflow in some), "attempt"),
                rate=rate,
                do=do,
            )


def lasting(missing: Iterable[str], before: WorkersCondition, now: WorkersCondition) -> list[str]:
    """Return the lines of ``/readyz`` that will not be over in a moment; `before` is from when they were asked for."""
    lasts = {
        NONE_SERVES: before.none_serves and now.none_serves,
        NONE_ANSWERS: before.none_answers and now.none_answers,
    }
    is_settled = not (before.is_unsettled or now.is_unsettled)
    return [
        line for line in missing if lasts.get(line, is_settled or _section(line)[0] != "listen")
    ]


def not_served(missing: Iterable[str]) -> Iterator[AttentionItem]:
    workers = {row.text: row for row in (rows.NO_WORKER_SERVES, rows.NO_WORKER_ANSWERS)}
    for line in missing:
        if line in workers or not _section(line)[0]:
            yield workers.get(line, rows.SHUTTING_DOWN).item(text=line)


def clients_that_wait(
    held: Mapping[str, float], waiting: Mapping[str, int], now: float
) -> Iterator[AttentionItem]:
    """`held` is until when an operator holds the clients of a backend, by the monotonic clock, as is `now`; `waiting` is how many wait."""
    ends = {name: until for name, until in held.items() if until > now}
    for name in dict.fromkeys([*ends, *waiting]):
        count, until = waiting.get(name, 0), ends.get(name, 0.0)
        clients = f"{plural(count, 'client')} {'waits' if count == 1 else 'wait'}"
        left = "" if until == math.inf else f", for {duration(until - now)} more"
        row = rows.CLIENTS_HELD if name in ends else rows.CLIENTS_WAIT
        yield row.item(backend=name, clients=clients, left=left)


def silent_workers(condition: WorkersCondition) -> Iterator[AttentionItem]:
    for number, pid in () if condition.none_answers else condition.silent:
        yield rows.WORKER_SILENT.item(number=number, pid=pid)


def unusable_answers(lines: Iterable[str]) -> Iterator[AttentionItem]:
    for line in lines:
        worker, _, why = line.partition(": ")
        yield rows.ANSWER_UNUSABLE.item(worker=worker, why=why)


def processes(state: ServiceState, now: float, monotonic: float) -> Iterator[AttentionItem]:
    """Find what is wrong with the processes of a service; `now` is in seconds since 1970, and by the monotonic clock."""
    restarts = [
        (now - (monotonic - when), number, how) for when, number, how in state.ended_workers
    ]
    yield from replaced_workers(restarts, now)
    yield from ended_workers(restarts, now)
    yield from refused_calls(state.refused_calls)
    yield from problems(rows.HELPER_GONE, state.troubles(), ": ")


def replaced_workers(
    restarts: Iterable[tuple[float, int, str]], now: float
) -> Iterator[AttentionItem]:
    """Find processes that were replaced three times within five minutes, at these seconds since 1970."""
    by_worker: dict[int, list[tuple[float, str]]] = {}
    for when, number, how in restarts:
        if now - when < _RECENTLY:
            by_worker.setdefault(number, []).append((when, how))
    for number, times in by_worker.items():
        if len(times) >= _MANY_RESTARTS:
            since, many = times[0][0], plural(len(times), "time")
            how = _with_all_lost([how for _, how in times])
            name = f"worker {number}" if number else "the process that starts workers"
            verb = "could not be started" if CANNOT_START in how else "was replaced"
            yield rows.WORKER_REPLACED.item(
                since, name=name, verb=verb, times=many, how=how, number=number
            )


def _with_all_lost(reasons: Sequence[str]) -> str:
    """Return the last reason, with the connections that were lost by all."""
    last, found = reasons[-1], [_LOST.search(reason) for reason in reasons]
    if not any(found[:-1]):
        return last
    lost = sum(int(one[1]) for one in found if one)
    return f"{_LOST.sub('', last)}, {plural(lost, 'connection')} lost in all"


def ended_workers(
    restarts: Iterable[tuple[float, int, str]], now: float
) -> Iterator[AttentionItem]:
    """Find workers that have ended, at these seconds since 1970, other than those that `replaced_workers` names."""
    lately = [restart for restart in restarts if now - restart[0] < _REMEMBERED]
    often = Counter(number for when, number, _ in lately if now - when < _RECENTLY)
    killed = [restart for restart in lately if MEMORY_RAN_OUT in restart[2]]
    if killed:
        workers, their = plural(len(killed), "worker"), "their" if killed[1:] else "its"
        how = _with_all_lost([how for *_, how in killed]).rpartition(": ")[2]
        yield rows.WORKERS_KILLED.item(killed[0][0], workers=workers, their=their, how=how)
    ended = [
        one
        for one in lately
        if one[1] and often[one[1]] < _MANY_RESTARTS and CANNOT_START not in one[2]
    ]
    if others := [one for one in ended if one not in killed]:
        number, how = others[-1][1], _with_all_lost([how for *_, how in others])
        more = f"; {plural(len(others) - 1, 'other')} before" if others[1:] else ""
        yield rows.WORKER_ENDED.item(others[0][0], number=number, how=how, more=more)


def refused_calls(calls: Mapping[str, tuple[float, int]]) -> Iterator[AttentionItem]:
    if calls:
        since, number = min(calls.values())
        names = _and_more([*calls][:_MOST_NAMED], len(calls))
        yield rows.CALLS_REFUSED.item(since, number=number, s="s" * (len(calls) > 1), names=names)


def failing_steps(failing: Mapping[str, tuple[float, str]]) -> Iterator[AttentionItem]:
    for step, (since, why) in failing.items():
        yield rows.STEP_FAILS.item(since, step=step, why=why)


def left_behind(stayed: int, orphaned: int) -> Iterator[AttentionItem]:
    if stayed:
        stay = "stays" if stayed == 1 else "stay"
        yield rows.STAYED.item(connections=plural(stayed, "connection"), stay=stay)
    if orphaned:
        go = "goes" if orphaned == 1 else "go"
        yield rows.ORPHANED.item(connections=plural(orphaned, "connection"), go=go)


def failed_upgrade(last_upgrade: tuple[float, Report] | None) -> Iterator[AttentionItem]:
    if last_upgrade is not None and not last_upgrade[1].ok:
        when, report = last_upgrade
        causes = [line for line in report.errors if not line.startswith((" ", "Traceback ("))]
        more = len(causes) - 1 - _MOST_NAMED
        if more > 0:  # the last lines say most of it, as in a traceback
            causes[1:-_MOST_NAMED] = [f"{plural(more, 'line')}, see the log"]
        yield rows.UPGRADE_FAILED.item(when, why="; ".join(causes))


def rules_not_in_force(
    last_reload: tuple[float, Report] | None, path: str, *, has_changed: bool
) -> Iterator[AttentionItem]:
    """Yield why the files are not in force: that a reload has failed, or that they `has_changed` since they were read."""
    if last_reload is not None and not last_reload[1].ok:
        when, report = last_reload
        why, *others = report.errors or ["no reason is known"]
        why += f"; and {len(others)} more" if others else ""
        outcome, do, stands_for = "is not complete", "see the log", ""
        if not report.changes:
            outcome = "failed, the previous rules are in force"
            do = report.do or f"txmux check {path}, then txmux reload"
            has_changed, stands_for = False, rows.RULES_CHANGED.what  # the same item says so
        item = rows.RELOAD_FAILED.item(when, outcome=outcome, why=why, do=do)
        yield attrs.evolve(item, instead_of=stands_for)
    if has_changed:
        yield rows.RULES_CHANGED.item(path=path)


def untaken_units(rules: Rules) -> Iterator[AttentionItem]:
    for unit, problem, is_in_force in untaken(rules):
        yield rows.UNIT_NOT_TAKEN.item(unit=unit, stays=STAYS[is_in_force], why=problem)
    for problem in rules.once("unprovided", lambda rules: [*unprovided(rules)]):
        text = problem.message.partition("; ")[0]
        where = f"[{problem.section}] {problem.key}"
        yield rows.BACKEND_MISSING.item(where=where, text=text)


def problems(
    row: AttentionRow, sentences: Iterable[str], separator: str = "; "
) -> Iterator[AttentionItem]:
    """Yield an item for each sentence, which says behind the separator what to do."""
    for sentence in sentences:
        text, _, do = sentence.partition(separator)
        yield row.item(text=text, do=do)


def few_of_each_owner(about: Iterable[Problem | str], index: RulesIndex) -> Iterator[str]:
    """Yield what is said about sections, but of each other owner only the first few, and how many more there are."""
    by_owner: dict[str, list[str]] = {}
    for one in about:
        section = one.section if isinstance(one, Problem) else " ".join(_section(one))
        by_owner.setdefault(index.owner_of(section), []).append(str(one))
    for owner, its in by_owner.items():
        yield from its[:_MOST_NAMED] if owner else its
        if owner and len(its) > _MOST_NAMED:
            yield f"{owner}: {len(its) - _MOST_NAMED} more of these"


def secrets(readable: Iterable[Problem], token_trouble: str) -> Iterator[AttentionItem]:
    for problem in readable:
        for item in problems(rows.SECRET_READABLE, [problem.message]):
            yield attrs.evolve(item, section=problem.section)
    if token_trouble:
        yield rows.TOKENS_UNREADABLE.item(text=token_trouble)


def measured(gauges: Gauges, rules: Rules, now: float) -> Iterator[AttentionItem]:
    """Find what the values that processes measure show; `now` is in seconds since 1970."""
    yield from _certificates(gauges, rules, now)
    opened, most = gauges.descriptors
    if most and opened >= _FULL * most:
        yield rows.FEW_DESCRIPTORS.item(opened=opened, most=most)
    for (backend, server), (why, count, since) in gauges.ports.items():
        names = {"backend": backend, "server": server, "why": why}
        row = rows.PORTS_TAKEN_BY_FEW if why.endswith(OF_FEW) else rows.NO_SOURCE_PORT
        yield row.item(since, connections=plural(count, "connection"), **names)
    for path, (why, count, since, is_many) in gauges.handovers.items():
        row = rows.NOT_HANDED_OVER if is_many else rows.FEW_NOT_HANDED_OVER
        yield row.item(since, path=path, why=why, clients=plural(count, "client"))
    # Of the reasons of a log, that of the most lines is the last, and so the one that is shown.
    for log, count in gauges.lost_lines.items():
        name, _, why = log.partition(": ")
        row = rows.LINES_LOST if count else rows.LOG_NOT_OPENED
        yield row.item(name=name, why=why, lines=plural(count, "line"))
    for trouble in (*gauges.unread, *gauges.of_others):
        yield rows.FILE_UNREAD.item(text=trouble)
    yield from _outages(gauges, rules, now)
    if gauges.flooded:
        yield from flooding(gauges.newest)
    yield from gauges.attention()


def _outages(gauges: Gauges, rules: Rules, now: float) -> Iterator[AttentionItem]:
    """Find sources that do not answer, an item for all that one outage makes fail, and the names that cannot be looked up otherwise, one for those of a unit that fail alike."""
    failing: dict[str, list[SourceState]] = {}
    for state in gauges.outside:
        if not state.up:
            failing.setdefault(state.outage, []).append(state)
    servers = [state.name.partition(" ")[2] for state in failing.get("names", ())]
    # Those without an age have no address: their server is not up, which is an item of its own.
    stale = [(age, why, *key) for key, (age, why) in gauges.stale.items() if age is not None]
    by_cause: dict[tuple[str, str], list[tuple[float, str, str]]] = {}
    for age, why, backend, server in sorted(stale, reverse=True):
        its = rules.backends.get(backend)
        unit = "" if its is None else rules.unit_of(its.section)
        is_hit = any(
            re.search(rf"the name server {re.escape(server)}(?!\d)", why) for server in servers
        )
        key = ("", "") if is_hit else (unit, why)
        by_cause.setdefault(key, []).append((age, backend, server))
    hit = [f"backend {backend} ({server})" for _, backend, server in by_cause.pop(("", ""), ())]
    for (_, why), [(age, backend, server), *others] in by_cause.items():
        more = _and_more((f"{name} ({one})" for _, name, one in others[:_MOST_NAMED]), len(others))
        names = {"backend": backend, "server": server, "why": why, "age": duration(age)}
        yield rows.NAME_NOT_FOUND.item(now - age, **names, more=f"; also {more}" if more else "")
    for outage, states in failing.items():
        of_names = hit if outage == "names" else []
        if of_names or any(state.is_overdue for state in states):
            first = max(states, key=attrgetter("failing"))
            effect = "; ".join(dict.fromkeys(state.effect for state in states))
            named = _and_more(of_names[:_MOST_NAMED], len(of_names))
            item = rows.SOURCE_FAILS.item(
                now - first.failing,
                name=", ".join(state.name for state in states),
                outage=outage,
                age=duration(first.failing),
                effect=f"{effect} for {named}" if of_names else effect,
                why=first.why,
            )
            kind, _, path = first.name.partition(" ")
            yield attrs.evolve(item, section=f"unit {path}") if kind == "provider" else item


def _certificates(gauges: Gauges, rules: Rules, now: float) -> Iterator[AttentionItem]:
    # Those that a feature renews may last a few days; a failed renewal is an item of its own.
    renewed = {*map(str, rules.managed.values())}
    for where, found in (("route", gauges.certificates), ("backend", gauges.to_servers)):
        in_force = {(name, cert.file) for name, cert in found if cert.is_valid(now)}
        for name, cert in found:
            when = cert.when(now)
            if not when or (cert.file in renewed and cert.begins <= now):
                continue
            row = rows.CERTIFICATE_ENDED if cert.ends <= now else rows.CERTIFICATE_NOT_YET
            if cert.is_valid(now) or (cert.is_one_of_several and (name, cert.file) in in_force):
                row = rows.CERTIFICATE_ENDS
            since = cert.ends if cert.ends <= now and not cert.is_missing else None
            names = {"where": where, "name": name, "what": cert.what(), "ends": cert.ends}
            verb = "add" if cert.is_missing else "renew"
            yield row.item(since, **names, when=when, verb=verb)
    for trouble in gauges.troubles:
        yield rows.CERTIFICATE_UNREADABLE.item(text=trouble, section=" ".join(_section(trouble)))
