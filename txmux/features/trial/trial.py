"""Finds which of the remembered clients would go elsewhere by other rules. Their bytes stay in the service's own processes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest

import attrs
from typing_extensions import override

from txmux.access.lists.current import dynamic_networks_of
from txmux.classes import frozen
from txmux.client.parts import ServicePart
from txmux.control.broadcast import WorkerLink, broadcast
from txmux.errors import MuxError
from txmux.features.trial import LIMIT, MOST, REMEMBER, remembered_clients
from txmux.features.trial.documents import MovedDocument, TrialDocument
from txmux.features.trial.memory import RememberedClient
from txmux.interfaces import Transport
from txmux.net.addresses import address_in
from txmux.net.channel import messages
from txmux.net.turns import Turns, in_thread
from txmux.rules.model import Listener, Refusal, Route, Rules
from txmux.rules.tracer import Tracer, inner_listener
from txmux.rules.tracing import TracedSample, silence_of, traced_outcome
from txmux.serving.listen_addresses import listen_addresses, listen_lines, socket_address
from txmux.telemetry.formatting import plural
from txmux.transport import unmapped
from txmux.wire.jsontext import MISSHAPEN

_ask = partial(broadcast, message=messages.PART, seconds=10.0, if_late="skip", feature="trial")
_AT_PORTS = ("tcp", "udp")
_REFUSED = ("no-name", "name-denied", "address-denied")


class _CannotTellError(MuxError):
    """What is remembered does not decide."""


class _ReloadLimitError(MuxError):
    """Rules that came by themselves may move too many."""

    do = "txmux reload --try, then txmux reload"


@frozen
class _Destination:
    """Where a client goes.

    Attributes:
        text: As `txmux explain` says it.
        key: Equal for destinations of the same name, and for all that refuse.
        servers: Of a backend, and what the client has `asked` for, if that chooses among them.
        name: What the client asks for, for an example.
        ends: The routes that have opened something, outermost first.
        waits: Whether it was decided only since nothing further came.
        at_once: Whether no byte was waited for.
    """

    text: str
    key: object = Refusal
    servers: frozenset[str] = frozenset()
    asked: str = ""
    name: str | None = None
    ends: Sequence[Route] = ()
    waits: bool = False
    at_once: bool = False

    def is_like(self, other: _Destination) -> bool:
        """Return whether both are the same: by name with a server in common, or by all their servers."""
        same = self.servers == other.servers
        is_named_so = self.key == other.key and (same or self.servers & other.servers)
        return self.asked == other.asked and bool(is_named_so or (same and self.servers))


def _destination(tracer: Tracer, listener: Listener, client: RememberedClient) -> _Destination:
    """Find where a client goes by some rules, as `txmux explain` does; raises `_CannotTellError`."""
    address = address_in(client.client)
    sample = TracedSample(
        client.layers[0],
        None if address is None else unmapped(address.host),
        now=client.time,
        datagrams=client.layers if client.is_flow else None,
    )
    trace, ends = tracer.trace(listener, sample), list[Route]()
    while (outcome := (traced := traced_outcome(sample, trace)).outcome) is None:
        end, opens = trace.found.decision.route, traced.opens
        if opens is None or end is None or traced.facts.get(opens.error):
            return _Destination(str(traced))
        ends.append(end)
        if len(ends) < len(client.layers):
            sample = attrs.evolve(sample, data=client.layers[len(ends)])
        elif trace.inner is not None:
            sample = trace.inner[0]
        elif tracer.rules.routes_of(end):
            raise _CannotTellError(f"what is inside {opens.inside} that route {end.name} opens")
        else:
            sample = attrs.evolve(sample, data=b"")
        listener = inner_listener(listener, end)
        trace = tracer.trace(listener, sample, end, client.certificate)
        trace.found.decision.facts.update(client.granted)
    if ends:
        path = " > ".join(filter(None, [*(end.name for end in ends), traced.route]))
        traced = attrs.evolve(traced, by="route", route=path)
    at_once = silence_of(sample, trace) is None or trace.found.decided_at == 0
    found = _Destination(
        str(traced),
        name=trace.facts.get("sni") or trace.facts.get("host"),
        ends=ends,
        waits=trace.found.decided_at is None and bool(sample.data) and not at_once,
        at_once=at_once,
    )
    if isinstance(outcome, Refusal) or traced.requested_name.endswith(_REFUSED):
        return found
    key, servers = (type(outcome), outcome.name), frozenset(traced.servers)
    return attrs.evolve(found, key=key, servers=servers, asked=traced.requested_name)


def _listener_in(rules: Rules, before: Listener, local: str) -> Listener | None:
    """Find which listener gets a client by other rules; ``None`` if it is gone."""
    its = [one for one in rules.listeners if one.transport is before.transport]
    same = next((one for one in its if one.name == before.name), None)
    if same and {*before.endpoints} <= {*same.endpoints}:
        return same
    if before.accept_proxy_from is not None:
        for one in its:
            if {*before.endpoints} <= {*one.endpoints}:
                return one
        raise _CannotTellError("where its proxy connects to: the listener has other endpoints then")
    address = address_in(local)
    if address is None:
        return same
    where = unmapped(address.host)
    hosts = {"::", str(where), *(("", "0.0.0.0") if where.version == 4 else ())}  # noqa: S104 - nothing listens here
    by_port = rules.once("listeners by port", _listeners_by_port)
    here = by_port.get((before.transport, address.port), ())
    found = next((listener for host, listener in here if host in hosts), None)
    if found is None and same and any(one.kind not in _AT_PORTS for one in listen_lines(same)):
        return same  # systemd's sockets may be anywhere
    return found


def _listeners_by_port(rules: Rules) -> Mapping[tuple[Transport, int], list[tuple[str, Listener]]]:
    found = defaultdict[tuple[Transport, int], list[tuple[str, Listener]]](list)
    for listener in rules.listeners:
        for address in listen_addresses(listener):
            where = socket_address(address.text, 1)
            if where is not None:
                found[listener.transport, where.port].append((where.host, listener))
    return found


def compared(
    old: Tracer, new: Tracer, before: Listener, client: RememberedClient
) -> tuple[_Destination, _Destination]:
    """Return where a client goes now, and by other rules; raises `_CannotTellError`."""
    now, after = _destination(old, before, client), _listener_in(new.rules, before, client.local)
    if after is None:
        return now, _Destination("nobody listens there")
    if _reading(before) != _reading(after):
        raise _CannotTellError("what it says first where the listener expects something else then")
    then = _destination(new, after, client)
    for end, known in zip_longest(then.ends, now.ends):
        if end and _certificate_request(end) not in (None, _certificate_request(known)):
            raise _CannotTellError(f"the certificate that route {end.name} asks for")
    if then.waits and not now.waits:
        size = plural(len(client.layers[-1]), "byte")
        raise _CannotTellError(f"more than the {size} remembered")
    if now.at_once and not then.at_once and not any(client.layers):
        raise _CannotTellError("what it says first: it is served before that now")
    return now, then


def _reading(listener: Listener) -> object:
    """Return what decides which bytes the routes of a listener see."""
    more = {name: value for name, value in listener.more.items() if name != REMEMBER}
    return more, listener.accept_proxy_from


def _certificate_request(route: Route | None) -> object:
    tls = route and route.terminate_tls
    if not tls or tls.client_ca is None:
        return None
    return tls.client_ca, tls.client, tls.allow_client, tls.client_crl


class Trial(ServicePart):
    """Tries other rules on the clients that the workers remember."""

    _rules: Rules
    _is_stopped = False

    def __init__(self, workers: Callable[[], Sequence[WorkerLink]]) -> None:
        self._workers = workers

    @override
    def commit(self, rules: Rules) -> None:
        self._rules, self._is_stopped = rules, False

    @override
    def stop_following(self) -> None:
        self._is_stopped = True

    @property
    def remembers(self) -> bool:
        return bool(remembered_clients(self._rules))

    @override
    async def check_change(self, rules: Rules) -> None:
        limit = self._rules.settings.more.get(LIMIT)
        if limit is None or not self.remembers:
            return
        found = await self.compare(rules)
        if found["incomplete"]:
            raise _ReloadLimitError(
                f"'{LIMIT}' cannot be checked: {'; '.join(found['incomplete'])}; apply the rules by 'txmux reload'"
            )
        if (found["moved"] + found["unknown"]) * 100 > limit * found["clients"]:
            raise _ReloadLimitError(
                f"{found['changes']}, more than '{LIMIT} = {limit:g}%' allows; "
                "see where by 'txmux reload --try', and apply the rules by 'txmux reload'"
            )

    async def compare(self, rules: Rules) -> TrialDocument:
        """Report which of the remembered clients would go elsewhere."""
        present, turns = self._rules, Turns()
        unknown_networks = _use_contents(present, rules)
        old, new = (Tracer(one, has_answers=False) for one in (present, rules))
        begun = set[object]()
        moves: dict[tuple[str, ...], MovedDocument] = {}
        unknown, times = Counter[tuple[str, str]](), list[float]()
        missing = dict.fromkeys(
            f"{name}: what is in it is known once the rules are in force"
            for name in unknown_networks
        )
        for listener in present.listeners:
            async for client in self._clients_of(listener.name, missing):
                await turns.pause()
                if self._is_stopped:
                    raise MuxError("the service is stopping, or another process serves by now")
                times.append(client.time)
                both = partial(compared, old, new, listener, client)
                begins = listener.name, *(data[:1] for data in client.layers)
                is_first = begins not in begun
                begun.add(begins)
                try:  # for the first ones, that makes of thousands of routes what the others use, which takes seconds
                    now, then = await in_thread(both) if is_first else both()
                except _CannotTellError as why:
                    unknown[listener.name, str(why)] += 1
                    continue
                if not now.is_like(then):
                    row = moves.setdefault(
                        (listener.name, now.text, then.text),
                        {
                            "listener": listener.name, "now": now.text, "then": then.text, "count": 0,
                            "client": client.client, "name": now.name, "time": client.time,
                        },
                    )  # fmt: skip
                    row["count"] += 1
        rows = sorted(moves.values(), key=lambda row: -row["count"])
        moved, total = sum(row["count"] for row in rows), sum(unknown.values())
        words = f"{moved or 'none'} of the last {plural(len(times), 'client')} would go elsewhere"
        if not times:
            words = "no client is remembered yet: try again when clients have come"
        return {
            "ok": True,
            "clients": len(times),
            "since": min(times, default=None),
            "moved": moved,
            "unknown": total,
            "moves": rows,
            "unknowns": [
                {"listener": name, "why": why, "count": count}
                for (name, why), count in unknown.most_common()
            ],
            "changes": f"{words}, and of {total} it is not known" if total else words,
            "incomplete": [*missing],
        }

    async def _clients_of(
        self, listener: str, missing: dict[str, None]
    ) -> AsyncIterator[RememberedClient]:
        for worker in self._workers():
            after: object = 0
            left = MOST
            while left > 0:
                values = {"listener": listener, "after": after}
                answers = await _ask([worker], values=values)
                missing.update(dict.fromkeys(answers.missing))
                after, *rows = (answers[0][1] if answers else None) or [0]
                left -= len(rows)
                for row in rows:
                    try:
                        client = RememberedClient.read(row)
                    except MISSHAPEN:  # a worker may be compromised
                        continue
                    yield client
                if not rows:
                    break


def _use_contents(present: Rules, rules: Rules) -> list[str]:
    """Let rules that were only read have the networks from other sources that those in force have; return the names of others."""
    known = {one.name: one.contents for one in dynamic_networks_of(present)}
    others = [one for one in dynamic_networks_of(rules) if one.kind != "file"]
    for one in others:
        one.contents = known.get(one.name, one.contents)
    return sorted({one.name for one in others} - known.keys())
