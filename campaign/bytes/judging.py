"""Compares what both ends of each connection have seen with each other, and with the access log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import attrs

from campaign.bytes.headers import MOST_TRIALS, trial_at
from campaign.bytes.plans import ORDERLY, PASSED, UNFINISHED, Ending, Mix, Plan, plan
from campaign.bytes.talks import Seen
from campaign.bytes.troubles import Losses

_MOST_DEFECTS = 30  # of one round, since the first ones tell enough


_OF_CLIENTS = {"client-reset", "client-gone", "proxy-header"}
"""Why one ends whose client breaks off; the last is for a reset that may have taken a part of its header."""
_CUT = "an orderly end", "a stream that was broken off looks complete", "broken off"
"""What an end may see whose connection's worker is killed."""


@attrs.define
class Verdict:
    """What came of a round.

    Attributes:
        connections: How many clients came.
        bytes: That arrived, both ways.
        orderly: Connections that nobody broke off, so that all had to arrive.
        empty: Connections that a server saw without a byte, as their clients left before.
        cut: Connections of workers that were killed.
        looked_whole: Those of them in which an end saw an end of TCP before the last byte, which is how the kernel closes sockets.
        missed: Clients of a pool that waited at a server which went.
        reasons: Lines of the access log, by reason.
        again: Second connections from the same address, by what became of them.
        defects: What is broken.
    """

    connections: int = 0
    bytes: int = 0
    orderly: int = 0
    empty: int = 0
    missed: int = 0
    cut: int = 0
    looked_whole: int = 0
    reasons: Counter[str] = attrs.field(factory=Counter)
    again: Counter[str] = attrs.field(factory=Counter)
    defects: list[str] = attrs.field(factory=list)

    def add(self, other: Verdict) -> None:
        self.connections += other.connections
        self.bytes += other.bytes
        self.orderly += other.orderly
        self.empty += other.empty
        self.missed += other.missed
        self.cut += other.cut
        self.looked_whole += other.looked_whole
        self.reasons += other.reasons
        self.again += other.again
        self.defects += other.defects


def judge(
    seed: int,
    mix: Mix,
    clients: Iterable[Seen],
    servers: Iterable[Seen],
    log: Iterable[dict[str, Any]],
    losses: Losses,
) -> Verdict:
    """Judge one round."""
    verdict = Verdict()
    complaints: list[str] = []
    at_server = _by_trial(servers, verdict, complaints, losses)
    lines: dict[int, list[dict[str, Any]]] = {}
    nobodys: list[dict[str, Any]] = []
    for line in log:
        verdict.reasons[line["reason"]] += 1
        if line["client"] == "unix":  # whose PROXY header never came
            nobodys.append(line)
            continue
        lines.setdefault(trial_at(line["client"].rpartition(":")[0]), []).append(line)
    for client in clients:
        its = plan(seed, client.trial, mix)
        server = at_server.pop(client.trial % MOST_TRIALS, None)
        its_lines = lines.pop(client.trial % MOST_TRIALS, [])
        verdict.connections += 1
        verdict.orderly += its.is_orderly
        verdict.bytes += client.received + (server.received if server else 0)
        if client.heard == "gave up" and its.entry.startswith("unix"):
            its_lines = [nobodys.pop()] if nobodys else []
        is_whole = not client.problem and not (server and server.problem)
        may_be_cut = losses.may_miss_line if is_whole else losses.may_cut
        if not its_lines and may_be_cut(its, client, server):
            verdict.cut += 1
            verdict.looked_whole += _looks_whole(client) or _looks_whole(server)
            complaints += [
                f"{_told(its)}, of a killed worker: {said}; {_both(client, server, its_lines)}"
                for said in _of_the_cut(its, client, server)
            ]
            continue
        if _was_missed(its, client, server, its_lines):
            verdict.missed += 1
            continue
        said: list[str] = []
        if client.again:
            verdict.again[client.again] += 1
            second = [line for line in its_lines if line["backend"] is None]
            its_lines = [line for line in its_lines if line not in second]
            said += _of_the_second(client.again, second)
        said += _complaints(its, client, server, its_lines)
        if said:
            complaints.append(
                f"{_told(its)}: {', '.join(said)}; {_both(client, server, its_lines)}"
            )
    complaints += [f"trial {trial} is at a server, without a client" for trial in at_server]
    complaints += [f"trial {trial} is logged, without a client" for trial in lines]
    complaints += [f"one of UNIX is logged, without a client: {line}" for line in nobodys]
    verdict.defects = complaints[:_MOST_DEFECTS]
    if len(complaints) > _MOST_DEFECTS:
        verdict.defects.append(f"and {len(complaints) - _MOST_DEFECTS} more in this round")
    return verdict


def _by_trial(
    servers: Iterable[Seen], verdict: Verdict, complaints: list[str], losses: Losses
) -> dict[int, Seen]:
    found: dict[int, Seen] = {}
    for server in servers:
        trial = server.trial % MOST_TRIALS if server.trial >= 0 else -1
        if trial < 0 or not (server.received or server.sent or server.problem):
            if server.problem and not (losses.times and server.problem.startswith(_CUT)):
                complaints.append(f"at server {server.where}: {server.problem}")
            verdict.empty += server.heard == "end"
            if trial >= 0:
                found.setdefault(trial, server)
        elif trial not in found or not found[trial].received:
            found[trial] = server
        else:
            complaints.append(f"trial {trial} is twice at servers: {found[trial]}, {server}")
    return found


def _looks_whole(one: Seen | None) -> bool:
    return one is not None and one.problem.startswith(_CUT[:2])


def _of_the_cut(its: Plan, client: Seen, server: Seen | None) -> Iterable[str]:
    """Complain of a connection whose worker was killed: what arrives is right, and TLS shows that it is not whole."""
    client_is_secure = its.entry.startswith("tls") or its.entry in PASSED
    for name, one, is_secure in (
        ("client", client, client_is_secure),
        ("server", server, its.way in "TUXN"),
    ):
        if one is None or not one.problem:
            continue
        if not one.problem.startswith(_CUT) or (is_secure and _looks_whole(one)):
            yield f"the {name} saw: {one.problem}"


def _of_the_second(what: str, lines: list[dict[str, Any]]) -> Iterable[str]:
    reasons = [line["reason"] for line in lines]
    if what == "served":
        yield "a second connection from its address was not refused"
    elif what == "refused" and reasons != ["limit"]:
        yield f"a second connection from its address was refused, and is logged as {reasons}"
    elif reasons not in ([], ["limit"], ["client-gone"]) or any(line["bytes_in"] for line in lines):
        yield f"a second connection from its address is logged as {reasons}"


def _was_missed(its: Plan, client: Seen, server: Seen | None, lines: list[dict[str, Any]]) -> bool:
    """Tell whether nobody is to blame: it was in the queue of a server that went just then, which resets it."""
    return (
        its.way in "PO"
        and server is None
        and (client.heard != "end" or its.entry.startswith("unix"))  # which has no reset
        and not client.received
        and [line["reason"] for line in lines] == ["server-reset"]
    )


def _complaints(
    its: Plan, client: Seen, server: Seen | None, lines: list[dict[str, Any]]
) -> Iterable[str]:
    if client.problem:
        yield f"the client saw: {client.problem}"
    if server is not None and server.problem:
        yield f"the server saw: {server.problem}"
    if len(lines) != 1:
        yield f"{len(lines)} lines in the access log"
    elif client.heard == "gave up":
        if lines[0]["reason"] not in {"client-gone", "proxy-header"} or lines[0]["bytes_in"]:
            yield "it gave up within its PROXY header, and is logged otherwise"
    else:
        if server is None and its.is_orderly:
            yield "no server saw it"
        yield from _of_the_line(its, client, server, lines[0])


def _of_the_line(
    its: Plan, client: Seen, server: Seen | None, line: dict[str, Any]
) -> Iterable[str]:
    reasons = _reasons(its)
    # The other end has finished, or has broken off a moment later, too: then nobody knows what else it had to say.
    if line.get("facts", {}).get("reset") == "late":
        reasons.add("done")
    if line["reason"] not in reasons:
        yield f"logged as {line['reason']} instead of {' or '.join(sorted(reasons))}"
    is_unix = its.entry.startswith("unix")  # which has no reset
    if (
        its.way == "R"
        and client.heard == "end"
        and not is_unix
        and line["reason"] != "connect-refused"
    ):
        yield "a server that broke off looks as if it had ended"
    backend = line["backend"]
    if its.way == "H" and backend is not None and backend.startswith("handover:"):
        backend = "H"
    if its.way != backend and (backend or its.is_orderly):
        yield f"logged at {backend} instead of {its.way}"
    if its.entry in PASSED or its.way == "H":
        return  # nobody counts what goes by a client's own socket; what is logged there are bytes of TLS
    came_in, came_out = line["bytes_in"], line["bytes_out"]
    if its.is_orderly and (came_in, came_out) != (its.client.size, its.server.size):
        yield "the bytes in the log are not those of the plan"
    if client.received > came_out or came_in > client.sent:
        yield "the bytes in the log are not what the client saw"
    if server is not None and (server.received > came_in or came_out > server.sent):
        yield "the bytes in the log are not what the server saw"


def _reasons(its: Plan) -> set[str]:
    if its.way == "H":  # whatever comes after that
        return {"handed-over"} | (_OF_CLIENTS if its.client.ending not in ORDERLY else set())
    if its.is_orderly:
        return {"done"}
    found = set()
    if its.client.ending not in ORDERLY:
        found |= {"client-reset", "client-gone"}
        if its.entry.startswith("tls"):
            found.add("tls-failed")
        if its.entry.endswith(("v1", "v2")):
            found.add("proxy-header")  # of which the reset may have taken a part
    if its.server.ending not in ORDERLY:
        found.add("server-reset")
        if its.way == "R":
            found.add("connect-refused")  # if the reset comes before the connection is noticed
    # of TLS that passes nobody knows whether it is whole, nor of one who just closes after the other end's close-notify
    unfinished = {*UNFINISHED} - {Ending.TRUNCATE}
    if its.client.ending not in unfinished and its.server.ending not in unfinished:
        found.add("done")
    return found


def _told(its: Plan) -> str:
    ends = ", ".join(
        f"{who} {part.size:,} bytes, {part.ending.value}"
        f"{f' at {part.at:,}' if part.ending not in ORDERLY else ''}{' waits' if part.waits else ''}"
        for who, part in (("client", its.client), ("server", its.server))
    )
    return f"trial {its.trial}, {its.entry} to {its.way}, {ends}"


def _both(client: Seen, server: Seen | None, lines: list[dict[str, Any]]) -> str:
    seen = [
        f"{who} sent {one.sent:,}, received {one.received:,}, {one.heard}" if one else f"no {who}"
        for who, one in (("client", client), ("server", server))
    ]
    names = "reason", "backend", "bytes_in", "bytes_out"
    logged = [", ".join(f"{name}={line[name]}" for name in names) for line in lines]
    return "; ".join([*seen, f"log: {logged}"])
