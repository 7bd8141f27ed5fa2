"""Finds what needs an operator's attention in what the processes of a service report."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any
from urllib.parse import quote

from txmux.control.clients import crowded_logins, flooding
from txmux.control.overrides import ServiceState, WorkersCondition
from txmux.control.report import Report
from txmux.control.rules_index import RulesIndex
from txmux.net.sockets.queues import Overflow
from txmux.rules.model import Backend, Rules
from txmux.rules.problems import Problem
from txmux.serving.listen_addresses import listen_addresses
from txmux.telemetry.attention import CANNOT_START, MEMORY_RAN_OUT, AttentionItem, Level
from txmux.telemetry.counting.snapshot import Gauges
from txmux.telemetry.formatting import certificate_end, counted, duration

_MOST_NAMED = 5
_FULL = 0.8  # of the descriptors
_RECENTLY = 300.0
"""Seconds in which restarts are counted: on a slow machine, each takes up to a minute."""
_MANY_RESTARTS = 3
_SHORT_OF_MEMORY = 600.0
"""Seconds for which the end of a worker for lack of memory needs attention."""
NONE_SERVES, NONE_ANSWERS = "no worker serves", "no worker answers"
_SECTION = re.compile(r"\[(\w+) ([^\]]+)\]: ")

_UNABLE = frozenset({"down", "ejected", "probing", "unresolved", "failing", "silent"})
"""States of servers that cannot serve; one that an operator or the rules took out is no trouble."""


_STATES = {"drain": "drained", "maintenance": "in maintenance"}
"""How states are written, where it is not their name."""

_ADVICE = {"silent": "; 'eject = unanswered=0' for servers that never answer by design"}


def backends(
    documents: Sequence[Mapping[str, Any]], index: RulesIndex, now: float
) -> Iterator[AttentionItem]:
    """Find backends of which no server can serve, or some cannot; those without a document serve.

    It is critical where clients are turned away: no route leads to an unused backend, its fallback may serve, and held clients wait.
    It is a note where only planned work leaves no server. `now` is in seconds since 1970.
    """
    idle = {row["name"] for row in documents if not any(map(_is_up, row["servers"]))}
    used = index.used_backends.keys()
    every = index.backends

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
        if name not in idle:
            verb = "is" if len(unable) == 1 else "are"
            text = (
                f"{len(unable)} of {counted(len(servers), 'server')} {verb} down: {_names(unable)}"
            )
        else:
            more = "; its clients go to its fallback" if is_covered(name) else ""
            text = f"no server is up: {_names(servers)}{more}"
        newest = max(unable or servers, key=lambda server: server["since"] or 0.0)
        is_new = now - (newest["since"] or now) < every[name].hold
        is_held = backend["hold"] is not None or (backend["held"] and is_new)
        turns_away = name in used and name in idle and not (is_covered(name) or is_held)
        # What an operator or the rules took out on purpose is planned work.
        worst: Level = "warning" if unable else "note"
        yield AttentionItem(
            "critical" if unable and turns_away else worst,
            "backend",
            f"backend {name}: {text}",
            str(newest["why"] or ""),
            newest["since"],
            f"?backend={quote(name)}#servers",
            do=f"txmux servers {name}{_ADVICE.get(newest['state'], '')}",
            subject=name,
            is_logged=True,
        )


def _is_up(server: Mapping[str, Any]) -> bool:
    return bool(server["state"] == "up")


def _names(servers: Sequence[Mapping[str, Any]]) -> str:
    named = ", ".join(
        str(server["server"])
        if server["state"] == "down"
        else f"{server['server']} is {_STATES.get(server['state'], server['state'])}"
        for server in servers[:_MOST_NAMED]
    )
    more = len(servers) - _MOST_NAMED
    return f"{named}, and {more} more" if more > 0 else named


def _section(line: str) -> tuple[str, str]:
    header = _SECTION.match(line)
    return ("", line) if header is None else (header[1], header[2])


_PAUSED = "paused by an operator"
_SEE_LOG = "see the service's log for what keeps workers from it"
_MORE_ROOM = "raise the limit (LimitNOFILE=, ulimit -n) or set max_connections"


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
    item = partial(AttentionItem, what="accept", link="#listeners")
    for name in dict.fromkeys([*closed, *short]):
        why, since = short.get(name, ("", None))
        if closed.get(name) == _PAUSED:
            do = f"txmux resume {name}"
            yield item(
                "note", text=f"listener {name}: {_PAUSED}", do=do, subject=name, is_logged=True
            )
        elif name in short:
            yield item(
                "critical" if name in closed else "warning",
                text=f"listener {name}: {'cannot accept' if name in closed else 'a worker cannot accept, others do'}",
                cause=why,
                since=since,
                do=_MORE_ROOM,
                subject=name,
                is_logged=True,
            )
        else:
            cause, _, do = closed[name].partition("; ")
            text = f"listener {name}: {cause}"
            yield item("critical", text=text, do=do or _SEE_LOG, subject=name)


def overflowed(rules: Rules, lost: Mapping[str, Overflow]) -> Iterator[AttentionItem]:
    """Find listeners whose queue has had no room for clients; `lost` is by the key of the address."""
    for listener in rules.listeners if lost else ():
        for address in listen_addresses(listener):
            overflow = lost.get(address.key)
            if overflow is not None:
                yield AttentionItem(
                    "warning",  # one client can fill it, and the others try again
                    "accept",
                    f"listener {listener.name}: the queue of {address.text} has overflowed",
                    f"{counted(overflow.count, 'attempt')} to connect dropped within a minute",
                    overflow.since,
                    "#listeners",
                    do="see who they are: txmux clients; add workers, which accept faster, or let more clients wait: sysctl net.core.somaxconn, and a backlog in the endpoint",
                    subject=f"queue {address.key}",
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
    """Find what else prevents clients from being served."""
    for line in missing:
        kind, _ = _section(line)
        if line in (NONE_SERVES, NONE_ANSWERS):
            hung = "each that does nothing for ten seconds, though it could run, is replaced"
            cause = hung if line == NONE_ANSWERS else ""
            yield AttentionItem(
                "critical",
                "workers",
                line,
                cause,
                do=_SEE_LOG,
                link="#workers",
                subject="all",
            )
        elif not kind:
            yield AttentionItem(
                "note",
                "service",
                line,
                do="unless that is meant, start it again",
                subject="service",
                is_logged=True,
            )


def clients_that_wait(
    held: Mapping[str, float], waiting: Mapping[str, int], now: float
) -> Iterator[AttentionItem]:
    """Find backends whose clients wait.

    Args:
        held: Until when an operator holds the clients of a backend, by the monotonic clock.
        waiting: How many clients wait, by backend.
        now: The same clock's time.
    """
    ends = {name: until for name, until in held.items() if until > now}
    for name in dict.fromkeys([*ends, *waiting]):
        count, until = waiting.get(name, 0), ends.get(name)
        clients = f"{counted(count, 'client')} {'waits' if count == 1 else 'wait'}"
        link = f"?backend={quote(name)}#servers"
        if until is None:
            yield AttentionItem(
                "note",  # how many may be one client's doing; that no server is up is an item of its own
                "hold",
                f"backend {name}: {clients} for a server",
                do=f"txmux servers {name}",
                link=link,
                subject=name,
                is_logged=True,
            )
        else:
            left = "" if until == math.inf else f", for {duration(until - now)} more"
            yield AttentionItem(
                "note",
                "hold",
                f"backend {name}: held by an operator{left}: {clients}",
                do=f"txmux release {name}",
                link=link,
                subject=name,
                is_logged=True,
            )


def silent_workers(condition: WorkersCondition) -> Iterator[AttentionItem]:
    """Find workers that do not do their work while others do."""
    for number, pid in () if condition.none_answers else condition.silent:
        yield AttentionItem(
            "warning",
            "workers",
            f"worker {number} does not answer",
            do=f"it is replaced if it does nothing for 10 s though it could run; otherwise end it: kill -KILL {pid}",
            link="#workers",
            subject=f"worker {number}",
        )


def processes(state: ServiceState, now: float, monotonic: float) -> Iterator[AttentionItem]:
    """Find what is wrong with the processes of a service; `now` is in seconds since 1970, and by the monotonic clock."""
    restarts = [(now - (monotonic - when), number, how) for when, number, how in state.restarts]
    yield from replaced_workers(restarts, now)
    yield from killed_workers(restarts, now)
    yield from refused_calls(state.refused_calls)
    yield from helper_gone(state.problems())


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
            name = f"worker {number}" if number else "the process that starts workers"
            verb = "could not be started" if CANNOT_START in times[-1][1] else "was replaced"
            yield AttentionItem(
                "warning",
                "workers",
                f"{name} {verb} {counted(len(times), 'time')} within five minutes",
                times[-1][1],
                times[0][0],
                "#workers",
                do="see the log for what it logged before it ended",
                subject=f"replaced {number}",
                is_logged=True,
            )


def killed_workers(
    restarts: Iterable[tuple[float, int, str]], now: float
) -> Iterator[AttentionItem]:
    """Find workers that the kernel has killed since memory had run out, at these seconds since 1970."""
    killed = [
        (when, how)
        for when, _, how in restarts
        if MEMORY_RAN_OUT in how and now - when < _SHORT_OF_MEMORY
    ]
    if killed:
        count = len(killed)
        yield AttentionItem(
            "warning",
            "workers",
            f"the kernel has killed {counted(count, 'worker')} with {'its' if count == 1 else 'their'} connections: {MEMORY_RAN_OUT}",
            killed[-1][1].rpartition(": ")[2],
            killed[0][0],
            "#workers",
            do="allow more (MemoryMax=, the limit of the container), set max_connections, or have fewer workers",
            subject="memory",
            is_logged=True,
        )


def refused_calls(calls: Mapping[str, tuple[float, int]]) -> Iterator[AttentionItem]:
    """Find system calls that the sandbox has refused; see `ServiceState.refused_calls`."""
    if calls:
        since, number = min(calls.values())
        more = len(calls) - _MOST_NAMED
        named = ", ".join([*calls][:_MOST_NAMED]) + (f", and {more} more" if more > 0 else "")
        yield AttentionItem(
            "warning",
            "workers",
            f"worker {number}: the sandbox has refused system call{'s' * (len(calls) > 1)} {named}",
            since=since,
            do="see which plugin makes it; txmux itself does not, so a worker may have been taken over: restart the service",
            link="#workers",
            subject="refused calls",
            is_logged=True,
        )


def failing_steps(failing: Mapping[str, tuple[float, str]]) -> Iterator[AttentionItem]:
    """Find what the service cannot do; see `RecurringSteps.failing`."""
    for step, (since, why) in failing.items():
        yield AttentionItem(
            "warning",
            "service",
            f"it cannot {step}",
            why,
            since,
            do="it is tried again; see the log for what is lacking",
            subject=f"step {step}",
            is_logged=True,
        )


def stayed_behind(count: int) -> Iterator[AttentionItem]:
    if count:
        verb = "stays" if count == 1 else "stay"
        yield AttentionItem(
            "note",
            "upgrade",
            f"{counted(count, 'connection')} {verb} in the process that an upgrade has replaced",
            do="they end by themselves, or after drain_timeout; their counters and limits still apply",
            link="#connections",
            subject="stayed",
            is_logged=True,
        )


def outdated_rules(path: str, has_changed: bool) -> Iterator[AttentionItem]:  # noqa: FBT001 - what was found
    if has_changed:
        yield AttentionItem(
            "note",
            "rules",
            f"{path}: the files have changed since they were read",
            do="txmux check, then txmux reload",
            link="#rules",
            subject="files",
        )


def failed_upgrade(last_upgrade: tuple[float, Report] | None) -> Iterator[AttentionItem]:
    if last_upgrade is not None and not last_upgrade[1].ok:
        when, report = last_upgrade
        yield AttentionItem(
            "warning",
            "upgrade",
            "the last upgrade failed, this process keeps serving",
            "; ".join(report.errors),
            when,
            do="txmux upgrade, once the cause is mended",
            subject="failed",
            is_logged=True,
        )


def orphaned(count: int) -> Iterator[AttentionItem]:
    if count:
        go = "goes" if count == 1 else "go"
        yield AttentionItem(
            "warning",
            "upgrade",
            f"{counted(count, 'connection')} {go} on in workers whose supervisor has ended",
            do="they end by themselves; see the log for why the supervisor has ended",
            subject="orphaned",
        )


def failed_reload(last_reload: tuple[float, Report] | None, path: str) -> Iterator[AttentionItem]:
    if last_reload is not None and not last_reload[1].ok:
        when, report = last_reload
        why, *others = report.errors or ["no reason is known"]
        why += f"; and {len(others)} more" if others else ""
        in_force = (
            "is not complete" if report.changes else "failed, the previous rules are in force"
        )
        yield AttentionItem(
            "warning",
            "reload",
            f"the last reload {in_force}",
            why,
            when,
            "#rules",
            do="see the log" if report.changes else f"txmux check {path}, then txmux reload",
            subject="reload",
            is_logged=True,
        )


def helper_gone(problems: Iterable[str]) -> Iterator[AttentionItem]:
    for problem in problems:
        what, _, do = problem.partition(": ")
        yield AttentionItem("critical", "helper", what, do=do, subject="helper", is_logged=True)


def secrets(readable: Iterable[Problem], token_problem: str) -> Iterator[AttentionItem]:
    for problem in readable:
        text, _, do = problem.message.partition("; ")
        yield AttentionItem("note", "token", text, do=do, is_logged=True)
    if token_problem:
        yield AttentionItem("warning", "token", token_problem, do=_MEND, subject="file")


def bans_without_room(problems: Iterable[str]) -> Iterator[AttentionItem]:
    for problem in problems:
        text, _, do = problem.partition("; ")
        yield AttentionItem("warning", "bans", text, do=do, subject="room", is_logged=True)


_MEND = "correct the file, which is read again by itself; txmux check says what is wrong with it"


def measured(gauges: Gauges, rules: Rules, now: float) -> Iterator[AttentionItem]:
    """Find what the values that processes measure show; `now` is in seconds since 1970."""
    yield from _certificates(gauges, rules, now)
    yield from _descriptors(gauges)
    yield from _names_not_found(gauges, now)
    yield from _ports(gauges)
    yield from _logs(gauges)
    yield from _sources(gauges, now)
    yield from flooding(gauges.flooding)
    yield from crowded_logins(gauges.logins)


def _certificates(gauges: Gauges, rules: Rules, now: float) -> Iterator[AttentionItem]:
    # Certificates by ACME may last a few days; a failed renewal is an item of its own.
    routes = rules.routes if gauges.certificates else ()  # there may be thousands
    ends = [route.terminate_tls for route in routes if route.terminate_tls is not None]
    renewed = {str(file) for end in ends for _, file in zip(end.acme, end.files, strict=False)}
    of_files = [row for row in gauges.certificates if row[1] not in renewed]
    shown = {"route": of_files, "backend": gauges.to_servers}
    for where, name, file, until in [(k, *end) for k, ends in shown.items() for end in ends]:
        if when := certificate_end(until, now):
            yield AttentionItem(
                "critical" if until <= now else "warning",
                "certificates",
                f"the certificate {file} of {where} {name} {when}",
                since=until if until <= now else None,
                do="renew it: txmux reads the file again by itself",
                link="#certificates",
                subject=f"{where} {name} {file}",
            )
    for trouble in gauges.troubles:
        yield AttentionItem(
            "warning", "renewal", trouble, do=_MEND, link="#certificates", is_logged=True
        )


def _descriptors(gauges: Gauges) -> Iterator[AttentionItem]:
    opened, most = gauges.descriptors
    if most and opened >= _FULL * most:
        yield AttentionItem(
            "warning",
            "descriptors",
            f"file descriptors are running out: {opened} of {most} are open",
            do=_MORE_ROOM,
            subject="share",
        )


def _names_not_found(gauges: Gauges, now: float) -> Iterator[AttentionItem]:
    for (backend, server), (age, why) in gauges.stale.items():
        if age is None:
            continue  # it has no address, so its server is not up, which is an item of its own
        yield AttentionItem(
            "warning",
            "names",
            f"backend {backend}: {server}: addresses {duration(age)} old",
            why,
            now - age,
            do="the last addresses stay in use; see whether its name servers know it: 'resolvers', or /etc/resolv.conf",
            link=f"?backend={quote(backend)}#servers",
            subject=f"{backend} {server}",
            is_logged=True,
        )


def _ports(gauges: Gauges) -> Iterator[AttentionItem]:
    for (backend, server), (why, count, since) in gauges.ports.items():
        yield AttentionItem(
            "critical",
            "ports",
            f"backend {backend}: no source port is left towards {server}",
            f"{why}: {counted(count, 'connection')} failed",
            since,
            f"?backend={quote(backend)}#servers",
            do="name more addresses in 'source', or widen net.ipv4.ip_local_port_range",
            subject=f"{backend} {server}",
            is_logged=True,
        )


def _logs(gauges: Gauges) -> Iterator[AttentionItem]:
    # Of the processes that write a log, the one that loses the most is the last, and so the one that is shown.
    for log, count in sorted(gauges.lost_lines.items(), key=itemgetter(1)):
        name, _, why = log.partition(": ")
        text, do = f"{name}: cannot be opened", "let the service write to it, then txmux reload"
        if count:
            text = f"{name}: {counted(count, 'line')} lost"
            do = "make room on its disk, or see why what reads it does not keep up"
        yield AttentionItem("warning", "log", text, why, do=do, subject=name, is_logged=True)


def _sources(gauges: Gauges, now: float) -> Iterator[AttentionItem]:
    for trouble in gauges.unread:
        do = "see what txmux check says, then txmux reload"
        yield AttentionItem("warning", "sources", trouble, do=do, is_logged=True)
    for state in gauges.outside:
        if state.is_overdue:
            yield AttentionItem(
                "warning",
                "sources",
                f"{state.name}: no good answer for {duration(state.failing)}; {state.effect}",
                state.why,
                now - state.failing,
                do="see whether it runs and this machine reaches it; it is asked again by itself",
                subject=state.name,
                is_logged=True,
            )
